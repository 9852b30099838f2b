"""Label PNGs: maps of mask values, with the VOC palette.

Shape letters in this file: H x W the photograph.
"""

import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from tag2mask import classes
from tag2mask.errors import InputError
from tag2mask.io.files import atomic
from tag2mask.io.images import _too_large

TO_ONE_CLASS = (
    "import sys, pathlib, numpy as np; from PIL import Image; [Image.fromarray(np.minimum(Image.open(path), 1))"
    '.save(path) for path in pathlib.Path(sys.argv[1]).glob("[!.]*.[pP][nN][gG]")]'
)
"""A program that writes 1 over every value above 0 in the masks of a folder."""


def write_label(path: Path, label: np.ndarray, note: str | None = None) -> None:
    """Write a label map (H, W) of mask values as a palette PNG, with a ``note`` for `read_note`."""
    content = label_png(label, note)
    with atomic(path) as file:
        file.write(content)


def label_png(label: np.ndarray, note: str | None = None) -> bytes:
    """Return the content of the file that `write_label` writes."""
    image = Image.fromarray(np.asarray(label, np.uint8), mode="P")
    image.putpalette(classes.palette().tobytes())
    text = PngImagePlugin.PngInfo()
    if note is not None:
        text.add_itxt("Comment", note)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def read_label(path: Path) -> np.ndarray:
    """Read a label map, (H, W) uint8: the values of a palette or grey PNG."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise InputError(
                    f"{path} is a {image.mode} picture; a mask holds class numbers: save it as a palette or grey PNG"
                )
            return np.array(image, dtype=np.uint8)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; a mask of that name was expected") from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read as a mask ({error}); replace it") from None


def require_classes(masks: Sequence[Path]) -> None:
    """Refuse masks that hold the values 0 and 255 alone, all over: 255 is ``IGNORE``, so they are of no class.

    Opens masks until one of them shows a class: most often the first.

    Raises:
        InputError: with the command that makes masks of one class of them.
    """
    ignored = False
    for path in masks:
        values = np.unique(read_label(path))
        if np.setdiff1d(values, (classes.BACKGROUND, classes.IGNORE)).size:
            return
        ignored = ignored or classes.IGNORE in values
    if ignored:
        command = shlex.join([sys.executable, "-c", TO_ONE_CLASS, str(masks[0].parent)])
        raise InputError(
            f"the masks in {masks[0].parent} hold only 0 and 255, which are the background and what is ignored: no "
            f"class; if 255 stands for one class, this writes 1 in its place: {command}"
        )
