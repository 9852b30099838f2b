"""Photographs and pictures: read in any mode, written so that a killed process leaves the old file or none.

Shape letters in this file: H x W a picture.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from tag2mask.errors import DamagedError, InputError, SpaceError
from tag2mask.io import folders
from tag2mask.io.files import MEGABYTE, atomic, decoding

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""What is opened, whatever a file is called: of Pillow's other formats, one calls another program."""
MOST_IN_SMALL = 60_000_000
"""Pixels of a photograph of less than 10 MB, half of that where `rgb` scales it: it takes up to 1 GB of memory."""


def most_pixels() -> int:
    """Return Pillow's limit of the pixels of a picture; at half of that Pillow warns."""
    return 2 * (Image.MAX_IMAGE_PIXELS or 0)


@contextmanager
def open_picture(path: Path, kind: str = "photograph") -> Iterator[Image.Image]:
    """Open a picture file; what goes wrong in the block becomes an error that names the file and the ``kind`` of it.

    The error is a ``MissingError``, a ``SpaceError`` (too many pixels) or a ``DamagedError``; see `files.decoding`.
    """
    with decoding(path, f"a {kind}", "replace it or take its name off the list"):
        limit = most_pixels()
        try:
            with Image.open(path, formats=FORMATS) as image:
                if kind == "photograph" and path.stat().st_size < 10 * MEGABYTE:
                    limit = min(limit, MOST_IN_SMALL // (2 if _is_deep(image) else 1))
                if image.width * image.height > limit:
                    raise Image.DecompressionBombError
                yield image
        except Image.DecompressionBombError:
            raise SpaceError(f"{path} has more than {limit:,} pixels, the limit; shrink it, and its mask too") from None


def read_image(path: Path) -> np.ndarray:
    """Read a photograph of any mode as RGB, (H, W, 3) uint8, turned as its EXIF orientation says; see `rgb`."""
    with open_picture(path) as image:
        deep = any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
        ImageOps.exif_transpose(image, in_place=True)
        pixels = rgb(image)
        if deep and not image.mode.startswith("I") and 0 < pixels.max() < 16:
            raise DamagedError("colours of 12 bits in 16, of which 4 could be read: save it with 8 bits")
        return pixels


def read_grey(path: Path) -> np.ndarray:
    """Read a grey picture of 8 bits, (H, W) float32 in [0, 1]."""
    with open_picture(path, "edge map") as image:
        if image.mode != "L":
            raise ValueError(f"a picture of mode {image.mode}, expected L, grey of 8 bits")
        return np.array(image, np.float32) / 255


def read_size(path: Path) -> tuple[int, int]:
    """Read height and width of a photograph, turned as `read_image` turns it; only the head of the file is read."""
    with open_picture(path) as image:
        width, height = image.size
        return (width, height) if _lies_on_side(image) else (height, width)


def _lies_on_side(image: Image.Image) -> bool:
    """Say whether the EXIF orientation of a picture exchanges its height and width."""
    return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def sizes_hint(photo: Path | None, size: Iterable[int], other: Iterable[int]) -> str:
    """Say what to do where the size of a ``photo`` (None: not known), turned upright, and the ``other`` differ.

    Both are height and width; the other is that of its mask or CAM. The EXIF orientation may be why.
    """
    turned = tuple(other) == tuple(size)[::-1]
    if turned and photo is not None:
        with open_picture(photo) as image:
            turned = _lies_on_side(image)
    if not turned:
        return "they must be of one size"
    return "the photograph is turned by its EXIF orientation and one of them is not: turn that, or remove the EXIF tag"


def is_deep(path: Path) -> bool:
    """Say whether a picture has grey values of more than 8 bits, or floats, which `rgb` scales; False where unread."""
    with suppress(InputError), open_picture(path) as image:
        return _is_deep(image)
    return False


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


def find_photo(folder: Path, name: str) -> Path | None:
    """Return the photograph of that name in a folder, whatever its ending; None where there is none.

    It lists the folder each time; for many names `folders.photos_in` lists it once.
    """
    photos = folders.paths_in(folder, folders.PHOTO_ENDINGS)
    return next((path for path in photos if folders.unified(path.stem) == folders.unified(name)), None)


def rgb(image: Image.Image) -> np.ndarray:
    """Return the pixels of a picture of any mode as RGB, (H, W, 3) uint8.

    Grey values of more than 8 bits are scaled. Their maximum tells the range: up to 255 they stay, up to 4095 they are
    12 bits in 16, else 16 bits or more. A float picture whose values are at most 1 is in [0, 1]. A value that is not
    finite, or far below zero, is a ``DamagedError``.
    """
    if image.mode.startswith(("I", "F")):  # Pillow would cut these off at 255
        values = np.array(image, np.float64)
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all() or low < -high / 100:
            raise DamagedError(f"grey values from {low:g} to {high:g}: save it with values from 0 to 255")
        ranges = (1, 255, 4095, 65535) if image.mode == "F" else (255, 4095, 65535)
        top = next((top for top in ranges if high <= top), high)
        np.clip(values, 0, None, out=values)
        np.divide(values, top, out=values)
        np.multiply(values, 255, out=values)
        image = Image.fromarray(values.round(out=values).astype(np.uint8))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # no copy more than needed


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write an RGB array (H, W, 3) uint8 as PNG."""
    with atomic(path) as file:  # zlib's Z_RLE, 3, takes half to a third of the time for the same size
        Image.fromarray(picture).save(file, format="PNG", compress_type=3)


def write_jpeg(path: Path, picture: np.ndarray, note: str) -> None:
    """Write an RGB array (H, W, 3) uint8 as JPEG, with a ``note`` for `read_note`."""
    with atomic(path) as file:
        Image.fromarray(picture).save(file, format="JPEG", quality=90, comment=note.encode())


def read_note(path: Path) -> str | None:
    """Return the note in a picture that `write_jpeg` or `labels.write_label` wrote; None where there is none."""
    with suppress(InputError), open_picture(path, "picture") as image:
        note = image.info.get("Comment", image.info.get("comment"))
        return note.decode(errors="replace") if isinstance(note, bytes) else note
    return None
