"""Label PNGs: maps of mask values, with the VOC palette.

Shape letters in this file: H x W the photograph.
"""

import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from tag2mask import classes
from tag2mask.errors import DamagedError
from tag2mask.io.files import atomic
from tag2mask.io.images import open_picture


def write_label(path: Path, label: np.ndarray, note: str | None = None) -> None:
    """Write a label map (H, W) of mask values as a palette PNG, with a ``note`` for `read_note`."""
    with atomic(path) as file:
        file.write(label_png(label, note))


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
    """Read a label map, (H, W) uint8: the values of a palette or grey PNG; ``DamagedError`` for a coloured picture."""
    with open_picture(path, "mask") as image:
        mode, label = image.mode, np.array(image, dtype=np.uint8)
    if mode not in ("P", "L", "1"):
        raise DamagedError(f"{path} is a {mode} picture; a mask holds class numbers: save it as a palette or grey PNG")
    return label


def require_classes(masks: Sequence[Path]) -> None:
    """Raise ``DamagedError`` where all masks hold the values 0 and 255 alone: 255 is ``IGNORE``, so they show no class.

    The message has the command that writes class 1 in the place of 255. Masks are opened until one shows a class.
    """
    ignored = False
    for path in masks:
        values = np.unique(read_label(path))
        if np.setdiff1d(values, (classes.BACKGROUND, classes.IGNORE)).size:
            return
        ignored = ignored or classes.IGNORE in values
    if ignored:
        program = (
            "import sys, pathlib, numpy as np; from PIL import Image; [Image.fromarray(np.minimum(Image.open(path), 1))"
            '.save(path) for path in pathlib.Path(sys.argv[1]).glob("[!.]*.[pP][nN][gG]")]'
        )
        command = shlex.join([sys.executable, "-c", program, str(masks[0].parent)])
        raise DamagedError(
            f"the masks in {masks[0].parent} hold only 0 and 255, which are the background and what is ignored: no "
            f"class; if 255 stands for one class, this writes 1 in its place: {command}"
        )
