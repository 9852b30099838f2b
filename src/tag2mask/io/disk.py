"""How much room the files of a stage will take, said before it starts."""

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from tag2mask.errors import InputError

Item = TypeVar("Item")

SAMPLE = 200
"""Photographs that an estimate is made from."""
BLOCK = 4096
"""Bytes that a file takes on disk are a multiple of this on most file systems."""
PACKED = 0.8
"""Size of compressed CAMs in float16, as a share of the plain ones; docs/scaling.md has the measurement."""
LABEL = 0.02
"""Bytes that a pixel takes in a label PNG, likewise."""


def sample(items: Sequence[Item]) -> Sequence[Item]:
    """Return some of many, evenly spaced: enough to estimate from, few enough to open."""
    return items[:: max(1, len(items) // SAMPLE)]


def cam_bytes(height: int, width: int, classes: int) -> float:
    """Estimate the size of a CAM file from height and width of its maps and their number."""
    return 2 * PACKED * classes * height * width


def label_bytes(height: int, width: int) -> float:
    """Estimate the size of a label PNG."""
    return LABEL * height * width


def require_room(folder: Path, count: int, sizes: Iterable[float], what: str) -> str:
    """Check that the disk has room for what a stage will write.

    Args:
        folder: that is written to; it need not exist yet.
        count: files that will be written.
        sizes: expected bytes of some of them.
        what: the files, in words.

    Returns:
        A line to be shown: how many files, how large, how much is free.

    Raises:
        InputError: they will not fit.
    """
    blocks = [BLOCK * math.ceil(max(1.0, size) / BLOCK) for size in sizes]
    needed = count * sum(blocks) / max(1, len(blocks))
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise InputError(
            f"{count:,} {what} need about {shown(needed)} in {folder}, where {shown(free)} are free; free some "
            "space, or name a folder on another disk"
        )
    return f"{count:,} {what} to write into {folder}: about {shown(needed)}, {shown(free)} free"


def shown(size: float) -> str:
    """Return bytes in a unit that suits them: ``12 kB``, ``3.4 GB``."""
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 9.95 else f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
