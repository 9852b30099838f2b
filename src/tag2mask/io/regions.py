"""Regions of photographs that another tool has made: maps of numbers (PNG), or COCO run-length codes (JSON), as SAM's.

Shape letters in this file: H x W the photograph.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask

from tag2mask.errors import DamagedError, MismatchError, MissingError
from tag2mask.io.files import decoding, read_json
from tag2mask.io.images import open_picture
from tag2mask.io.names import file_in
from tag2mask.io.rle import compressed

ENDINGS = (".png", ".json")
REMEDY = "make the regions again, or take the file away"
RegionPixels = list[np.ndarray]  # of each region the numbers of its pixels, row by row; regions may overlap


def read_regions(folder: Path, name: str, size: tuple[int, int]) -> RegionPixels:
    """Read the regions of a photograph of ``size`` H and W: ``NAME.png`` or else ``NAME.json``.

    A PNG of grey values or a palette holds the number of a region at each pixel; 0 is no region. A JSON file is a
    list of objects, or holds one under ``annotations``; each has a run-length code as its ``segmentation``.

    Raises:
        MissingError: there is neither file.
        DamagedError, SpaceError: a file cannot be read.
        MismatchError: it is of another size.
    """
    found = [path for path in (file_in(folder, name, ending) for ending in ENDINGS) if path.is_file()]
    if not found:
        raise MissingError(f"no regions of {name} in {folder}; expected {name}.png or {name}.json")
    if found[0].suffix == ".png":
        return of_map(_read_map(found[0], size))
    content = read_json(found[0])
    return [_pixels(found[0], each, size) for each in _entries(found[0], content)]


def of_map(numbers: np.ndarray) -> RegionPixels:
    """Return the regions of a map (H, W) of their numbers; 0 is no region."""
    flat = numbers.reshape(-1)
    order = flat.argsort(kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    return [pixels for pixels in np.split(order, starts[1:]) if flat[pixels[0]] != 0]


def _read_map(path: Path, size: tuple[int, int]) -> np.ndarray:
    with open_picture(path, "map of regions") as image:
        if image.mode not in ("P", "L", "1", "I", "I;16", "I;16B"):
            raise ValueError(f"a {image.mode} picture, expected grey values of 8 or 16 bits, or a palette")
        numbers = np.array(image).astype(np.int64)
    if numbers.shape != size:
        raise MismatchError(f"{path} is {_of(numbers.shape)}, its photograph {_of(size)}; {REMEDY}")
    return numbers


def _entries(path: Path, content: Any) -> Sequence[Any]:
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise DamagedError(f"{path} is no list of regions, and has none under 'annotations'; {REMEDY}")
    return entries


def _pixels(path: Path, entry: Any, size: tuple[int, int]) -> np.ndarray:
    code = entry.get("segmentation") if isinstance(entry, dict) else None
    if not isinstance(code, dict):
        raise DamagedError(f"{path} has a region without a run-length code as 'segmentation'; {REMEDY}")
    if (own := code.get("size")) != list(size):
        raise MismatchError(f"{path} has a region of size {str(own)[:40]}, its photograph is {_of(size)}; {REMEDY}")
    with decoding(path, "regions", REMEDY):
        return np.flatnonzero(mask.decode(compressed(code, size)))


def _of(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]} (height x width)"
