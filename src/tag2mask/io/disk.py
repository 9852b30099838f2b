"""How much of the disk the files of a stage will need; a stage asks before it writes."""

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from tag2mask.errors import SpaceError

Item = TypeVar("Item")
BLOCK = 4096
"""Bytes of a disk block: on most file systems a file takes a multiple of this."""


def sample(items: Sequence[Item]) -> Sequence[Item]:
    """Return about 200 of the items, evenly spaced: enough for an estimate."""
    return items[:: max(1, len(items) // 200)]


def cam_bytes(height: int, width: int, classes: int) -> float:
    """Estimate the size of a CAM file: 1.6 bytes for each value, measured in docs/scaling.md."""
    return 1.6 * classes * height * width


def label_bytes(height: int, width: int) -> float:
    """Estimate the size of a label PNG: 0.02 bytes for each pixel, measured in docs/scaling.md."""
    return 0.02 * height * width


def require_room(folder: Path, count: int, sizes: Iterable[float], files: str) -> str:
    """Raise ``SpaceError`` where ``count`` files will not fit on the disk, else return a line that says the sizes.

    The folder need not exist yet. ``sizes`` are the expected bytes of some of the ``files``, as messages call them.
    """
    blocks = [BLOCK * math.ceil(max(1.0, size) / BLOCK) for size in sizes]
    needed = count * sum(blocks) / max(1, len(blocks))
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise SpaceError(
            f"{count:,} {files} need about {readable_size(needed)} in {folder}, where {readable_size(free)} are free; "
            "free some space, or name a folder on another disk"
        )
    return f"{count:,} {files} to write into {folder}: about {readable_size(needed)}, {readable_size(free)} free"


def readable_size(size: float) -> str:
    """Return a number of bytes in a suitable unit: ``12 kB``, ``3.4 GB``."""
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 9.95 else f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
