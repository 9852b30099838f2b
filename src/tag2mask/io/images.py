"""Photographs and pictures: read in any mode, written so that a killed process leaves the old file or none.

Shape letters in this file: H x W a picture.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tag2mask.errors import InputError
from tag2mask.io import folders
from tag2mask.io.files import atomic

RUN_LENGTHS = 3
"""What zlib calls Z_RLE: of repeated pixels it finds those side by side alone."""


def read_image(path: Path) -> np.ndarray:
    """Read a photograph of any mode as RGB, (H, W, 3) uint8, turned as its EXIF orientation says; see `rgb`."""
    try:
        with Image.open(path) as image:
            deep = any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
            upright: Image.Image = image
            ImageOps.exif_transpose(upright, in_place=True)
            pixels = rgb(upright)
            if deep and not upright.mode.startswith("I") and 0 < pixels.max() < 16:
                raise InputError("colours of 12 bits in 16, of which 4 could be read: save it with 8 bits")
            return pixels
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; put the photograph there or take its name off the list") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a photograph ({error}); replace it or take its name off the list"
        ) from None


def read_size(path: Path) -> tuple[int, int]:
    """Read height and width of a picture as `read_image` turns it, from the head of its file alone."""
    try:
        with Image.open(path) as image:
            return (image.width, image.height) if _turned(image) else (image.height, image.width)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; put the photograph there or take its name off the list") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a picture ({error}); replace it or take its name off the list"
        ) from None


def _too_large(path: Path) -> InputError:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # where Pillow refuses
    return InputError(f"{path} has more than {limit:,} pixels, the limit; shrink it, and its mask with it")


def _turned(image: Image.Image) -> bool:
    """Whether the EXIF orientation of a picture exchanges its height and width."""
    return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def sizes_hint(photo: Path, size: Iterable[int], other: Iterable[int]) -> str:
    """Say what to do where something of a photograph has another size: its EXIF orientation may be why.

    Args:
        photo: the photograph.
        size: its height and width, as `read_image` turns it.
        other: those of the mask or CAM.
    """
    try:
        with Image.open(photo) as image:
            turned = tuple(other) == tuple(size)[::-1] and _turned(image)
    except OSError:
        turned = False
    if turned:
        return "the photograph is turned by its EXIF orientation, the other is not: turn that, or remove the EXIF tag"
    return "they must be of one size"


def is_deep(path: Path) -> bool:
    """Say whether a picture has grey values of more than 8 bits, or floats, which `rgb` scales; False where unread."""
    try:
        with Image.open(path) as image:
            return image.mode.startswith(("I", "F"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def find_photo(folder: Path, name: str) -> Path | None:
    """Return the photograph of that name in a folder, whatever its ending; None where there is none.

    Lists the folder each time; for many names `folders.photos_in` lists it once.
    """
    wanted, photos = folders.unified(name), folders.paths_in(folder, folders.PHOTO_ENDINGS)
    return next((path for path in photos if folders.unified(path.stem) == wanted), None)


def rgb(image: Image.Image) -> np.ndarray:
    """Return the pixels of a picture of any mode as RGB, (H, W, 3) uint8.

    Grey values of more than 8 bits are scaled by the range that their maximum tells: up to 255 they stay, up to 4095
    they are 12 bits in 16, else 16 bits or more. Those of a float picture that are at most 1 are in [0, 1].

    Raises:
        InputError: a value is not finite, or far below zero.
    """
    if image.mode.startswith(("I", "F")):  # Pillow would cut these off at 255
        image = _eight_bits(np.asarray(image, np.float64), whole=image.mode != "F")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # no copy more than needed


def _eight_bits(values: np.ndarray, whole: bool) -> Image.Image:
    """Scale grey values to 8 bits, by the rule of `rgb`."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all() or low < -high / 100:
        raise InputError(f"grey values from {low:g} to {high:g}: save it with values from 0 to 255")
    top = next((top for top in (*([] if whole else [1]), 255, 4095, 65535) if high <= top), high)
    return Image.fromarray((values.clip(0) / top * 255).round().astype(np.uint8))


def write_picture(path: Path, picture: np.ndarray, fast: bool = False) -> None:
    """Write an RGB array (H, W, 3) uint8 as PNG; ``fast`` in half to a third of the time, of about the same size."""
    how = {"compress_type": RUN_LENGTHS} if fast else {}
    with atomic(path) as file:
        Image.fromarray(picture).save(file, format="PNG", **how)


def write_jpeg(path: Path, picture: np.ndarray, note: str) -> None:
    """Write an RGB array (H, W, 3) uint8 as JPEG, with a ``note`` for `read_note`."""
    with atomic(path) as file:
        Image.fromarray(picture).save(file, format="JPEG", quality=90, comment=note.encode())


def read_note(path: Path) -> str | None:
    """Return the note that a picture of ours holds, None where there is none."""
    try:
        with Image.open(path) as image:
            note = image.info.get("Comment", image.info.get("comment"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return note.decode(errors="replace") if isinstance(note, bytes) else note
