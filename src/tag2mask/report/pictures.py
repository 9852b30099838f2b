"""Pictures inside a page: scaled down, encoded as text, within a budget of bytes."""

import base64
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from tag2mask import classes
from tag2mask.errors import InputError
from tag2mask.io.images import find_photo, read_image
from tag2mask.io.labels import read_label
from tag2mask.report.runs import Evaluation
from tag2mask.viz import plots

File = TypeVar("File")
Picture = dict[str, Any]
"""Attributes of an ``<img>``, or ``gap``: the text in its place."""
THUMB_WIDTH = 260
TINT = 0.65
"""Share of a class's colour where it lies over a photograph."""


class Album:
    """Encodes pictures until the page is full.

    Attributes:
        left_out: number of pictures that found no room.
        damaged: number of pictures that could not be read.
    """

    def __init__(self, budget: int) -> None:
        """Hold pictures of ``budget`` bytes in all; as text they take a third more."""
        self.left = budget
        self.left_out = self.damaged = 0

    def file(self, path: Path, alt: str) -> Picture:
        """Encode the picture in a file."""
        try:
            with Image.open(path) as picture:
                return self.picture(np.asarray(picture.convert("RGB")), alt, 1150)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            self.damaged += 1
            return {"gap": "picture cannot be read"}

    def picture(self, pixels: np.ndarray, alt: str, width: int = THUMB_WIDTH) -> Picture:
        """Encode RGB pixels (H, W, 3) uint8, at most ``width`` pixels wide."""
        image = Image.fromarray(pixels)
        image.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=80)
        content = buffer.getvalue()
        if len(content) > self.left:
            self.left_out += 1
            return {"gap": "left out: the page is full"}
        self.left -= len(content)
        source = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
        return {"src": source, "alt": alt, "width": image.width, "height": image.height, "gap": None}


def scored_image(evaluation: Evaluation, name: str, root: str | None, album: Album) -> dict[str, Any]:
    """Return photograph, prediction and truth of a scored image as ``pictures``, and the ``key`` of their colours.

    Args:
        evaluation: its options name the folders of the prediction and of the truth.
        name: of the photograph.
        root: folder of the data set; photographs are searched beside the masks and here.
        album: encodes the pictures.
    """
    masks, folder = Path(evaluation.config.get("masks", "")), Path(evaluation.config.get("predictions", ""))
    roots = (masks.parent, *([Path(root)] if root else []))
    paths = (find_photo(each / photos, name) for each in roots for photos in ("JPEGImages", "images"))
    photo = _read(read_image, paths)
    threshold = evaluation.score.threshold
    if threshold is None:
        prediction = _read(read_label, [folder / f"{name}.png"])
    else:
        prediction = _read(lambda path: _best_class(path, threshold), [folder / f"{name}.npz"])
    photo = None if photo is None else _scaled(photo)
    labels = {"prediction": prediction, "truth": _read(read_label, [masks / f"{name}.png"])}
    labels = {title: None if label is None else _scaled(label) for title, label in labels.items()}
    pixels = {"photograph": photo, **{t: None if x is None else _over(photo, x) for t, x in labels.items()}}
    pictures = {
        title: {"gap": f"no {title} found"} if picture is None else album.picture(picture, f"{title} of {name}")
        for title, picture in pixels.items()
    }
    return {"pictures": pictures, "key": _key([x for x in labels.values() if x is not None], [*evaluation.score.iou])}


def _read(reader: Callable[[Path], File], paths: Iterable[Path | None]) -> File | None:
    """Read the first file that there is; None where it is missing or damaged."""
    try:
        return next((reader(path) for path in paths if path is not None), None)
    except InputError:
        return None


def _best_class(path: Path, threshold: float) -> np.ndarray:
    """Return the label map (H, W) of a CAM file at a background threshold."""
    import torch  # heavy, and only pages with scored CAMs need it

    from tag2mask.io.cams import read_cam
    from tag2mask.metrics.functional import at_full_size

    cam = read_cam(path)
    score, winner = at_full_size(cam.cam, cam.classes.to(torch.uint8), cam.size)
    return np.asarray(torch.where(score > threshold, winner, classes.BACKGROUND), np.uint8)


def _scaled(picture: np.ndarray) -> np.ndarray:
    """Scale a photograph (H, W, 3) or a label map (H, W) to the width of a thumbnail; a label map keeps its values."""
    height = max(1, round(picture.shape[0] * THUMB_WIDTH / picture.shape[1]))
    resampling = Image.Resampling.LANCZOS if picture.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((THUMB_WIDTH, height), resampling))


def _over(photo: np.ndarray | None, label: np.ndarray) -> np.ndarray:
    """Lay a label map over a photograph of the same shape, or over white."""
    fits = photo is not None and photo.shape[:2] == label.shape
    return plots.overlay(
        photo if photo is not None and fits else np.full((*label.shape, 3), 255, np.uint8), label, TINT
    )


def _key(labels: list[np.ndarray], names: list[str]) -> dict[str, str]:
    """Return the CSS colour of each class in label maps, by name."""
    values = {int(value) for label in labels for value in np.unique(label)} - {classes.BACKGROUND, classes.IGNORE}
    colours = {value: ",".join(map(str, classes.palette()[value].tolist())) for value in sorted(values)}
    return {names[value] if value < len(names) else str(value): f"rgb({rgb})" for value, rgb in colours.items()}
