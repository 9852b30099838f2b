"""How much of the disk the files of a stage will need; a stage asks before it writes."""

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from tag2mask.errors import SpaceError

Item = TypeVar("Item")

SAMPLE = 200
"""Photographs from which an estimate is made."""
BLOCK = 4096
"""Bytes of a disk block: on most file systems a file takes a multiple of this."""
PACKED = 0.8
"""Size of compressed CAMs in float16, as a share of the uncompressed size; measured in docs/scaling.md."""
LABEL = 0.02
"""Bytes of a label PNG for each pixel; measured in docs/scaling.md."""


def sample(items: Sequence[Item]) -> Sequence[Item]:
    """Return about `SAMPLE` of the items, evenly spaced."""
    return items[:: max(1, len(items) // SAMPLE)]


def cam_bytes(height: int, width: int, classes: int) -> float:
    """Estimate the size of a CAM file from height, width and number of its maps."""
    return 2 * PACKED * classes * height * width


def label_bytes(height: int, width: int) -> float:
    """Estimate the size of a label PNG."""
    return LABEL * height * width


def require_room(folder: Path, count: int, sizes: Iterable[float], files: str) -> str:
    """Check that the disk has room for the files of a stage.

    Args:
        folder: where the files go; it need not exist yet.
        count: how many files will be written.
        sizes: expected bytes of some of them.
        files: what the message calls the files, such as ``masks``.

    Returns:
        A line for the user: how many files, how large they are together, how much is free.

    Raises:
        SpaceError: the files will not fit.
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
