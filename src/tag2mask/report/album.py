"""Pictures inside a page: scaled down, encoded as text, within a budget of bytes."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from tag2mask import classes
from tag2mask.errors import InputError
from tag2mask.io.images import find_photo, read_image
from tag2mask.io.labels import read_label
from tag2mask.report.markup import Markup, el
from tag2mask.report.runs import Evaluation
from tag2mask.viz import plots

File = TypeVar("File")
PHOTOS = ("JPEGImages", "images")
"""Folders of photographs that lie beside the folder of their masks."""
THUMB = 260
TINT = 0.65
"""Share of a class's colour where it lies over a photograph."""


class Album:
    """Encodes pictures until the page is full, and counts those left out.

    Attributes:
        left_out: pictures that found no room.
        damaged: pictures that could not be read.
    """

    def __init__(self, budget: int = 9_000_000) -> None:
        """Hold pictures of ``budget`` bytes in all; as text they take a third more."""
        self.left = budget
        self.left_out = 0
        self.damaged = 0

    def file(self, path: Path, alt: str, width: int = 1150) -> Markup:
        """Return the picture in a file, at most ``width`` pixels wide, or what stands in its place."""
        try:
            with Image.open(path) as picture:
                return self.picture(np.asarray(picture.convert("RGB")), alt, width)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            self.damaged += 1
            return el("span", "picture cannot be read", class_="gap")

    def picture(self, pixels: np.ndarray, alt: str, width: int = THUMB) -> Markup:
        """Return a picture of RGB pixels (H, W, 3) uint8."""
        image = Image.fromarray(pixels)
        image.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=80)
        content = buffer.getvalue()
        if len(content) > self.left:
            self.left_out += 1
            return el("span", "left out: the page is full", class_="gap")
        self.left -= len(content)
        source = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
        return el("img", src=source, alt=alt, width=image.width, height=image.height)


def photograph(evaluation: Evaluation, name: str, roots: Sequence[Path] = ()) -> np.ndarray | None:
    """Return a scored photograph, (H, W, 3) uint8, looked for beside the masks and in ``roots``; None if not found."""
    for root in (Path(evaluation.config.get("masks", "")).parent, *roots):
        for folder in PHOTOS:
            path = find_photo(root / folder, name)
            if path is not None:
                return _read(read_image, path)
    return None


def truth(evaluation: Evaluation, name: str) -> np.ndarray | None:
    """Return the mask of a scored photograph, (H, W) uint8; None if it is not there."""
    return _read(read_label, Path(evaluation.config.get("masks", "")) / f"{name}.png")


def prediction(evaluation: Evaluation, name: str) -> np.ndarray | None:
    """Return the label map that was scored, (H, W) uint8: a label PNG, or a CAM file at the scored threshold."""
    folder = Path(evaluation.config.get("predictions", ""))
    if evaluation.score.threshold is None:
        return _read(read_label, folder / f"{name}.png")
    from tag2mask.io.cams import read_cam  # with torch

    cam = _read(read_cam, folder / f"{name}.npz")
    return None if cam is None else _winner(cam, evaluation.score.threshold)


def _winner(cam: Any, threshold: float) -> np.ndarray:
    import torch

    from tag2mask.metrics.functional import at_full_size

    score, winner = at_full_size(cam.cam, cam.classes.to(torch.uint8), cam.size)
    return np.asarray(torch.where(score > threshold, winner, classes.BACKGROUND), np.uint8)


def _read(reader: Callable[[Path], File], path: Path) -> File | None:
    try:
        return reader(path)
    except InputError:
        return None


def small(picture: np.ndarray, width: int = THUMB) -> np.ndarray:
    """Scale a photograph (H, W, 3) or a label map (H, W) down to a width; a label map keeps its values."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    how = Image.Resampling.LANCZOS if picture.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((width, height), how))


def overlay(label: np.ndarray, photo: np.ndarray | None) -> np.ndarray:
    """Lay a label map (H, W) over a photograph of the same shape, if there is one, else over white; (H, W, 3) uint8."""
    if photo is None or photo.shape[:2] != label.shape:
        photo = np.full((*label.shape, 3), 255, np.uint8)
    return plots.overlay(photo, label, TINT)
