"""Pictures inside a page: scaled down, encoded as text, within a budget of bytes."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tag2mask import classes
from tag2mask.errors import InputError
from tag2mask.io.images import find_photo, read_image
from tag2mask.io.labels import read_label
from tag2mask.report.runs import Evaluation
from tag2mask.viz import plots

Picture = dict[str, Any]  # attributes of an <img>, or ``gap``: the text in its place
THUMB_WIDTH = 260


class Album:
    """Encodes pictures until the page is full; ``left_out`` found no room, ``damaged`` could not be read."""

    def __init__(self, budget: int) -> None:
        """Hold pictures of ``budget`` bytes in all; as text they take a third more."""
        self.left = budget
        self.left_out = self.damaged = 0

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

    def panels(self, folders: Mapping[str, Mapping[str, Path]], count: int) -> dict[str, dict[str, Picture]]:
        """Encode the ``count`` photographs that most folders (title -> name -> file) have: name -> title -> picture."""
        numbers = Counter(name for folder in folders.values() for name in folder)
        return {
            name: {title: self._file(files.get(name), f"CAMs of {name}: {title}") for title, files in folders.items()}
            for name in sorted(numbers, key=lambda name: (-numbers[name], name))[:count]
        }

    def _file(self, path: Path | None, alt: str) -> Picture:
        if path is None:
            return {"gap": "no picture"}
        try:
            return self.picture(read_image(path), alt, 1150)
        except InputError:
            self.damaged += 1
            return {"gap": "picture cannot be read"}

    def scored_image(self, evaluation: Evaluation, name: str, root: Any) -> dict[str, Any]:
        """Encode photograph, prediction and truth of a scored image: ``pictures``, and the ``key`` of their colours.

        The evaluation names the folders. The photograph is searched beside the masks, and in ``root`` if it is a text.
        """
        masks, folder = (Path(evaluation.config.get(option, "")) for option in ("masks", "predictions"))
        roots = (masks.parent, *([Path(root)] if root and isinstance(root, str) else []))
        photo = _read(find_photo(each / photos, name) for each in roots for photos in ("JPEGImages", "images"))
        threshold, pixels, values = evaluation.score.threshold, {"photograph": photo}, set[int]()
        prediction = folder / (f"{name}.png" if threshold is None else f"{name}.npz")
        for title, path in (("prediction", prediction), ("truth", masks / f"{name}.png")):
            label = pixels[title] = _read([path], lambda path: _label(path, threshold))
            if label is not None:
                white = np.full((*label.shape, 3), 255, np.uint8)
                below = white if photo is None or photo.shape != white.shape else photo
                pixels[title] = plots.overlay(below, label, strength=0.65)
                values |= set(np.unique(label).tolist()) - {classes.BACKGROUND, classes.IGNORE}
        pictures = {
            title: {"gap": f"no {title} found"} if picture is None else self.picture(picture, f"{title} of {name}")
            for title, picture in pixels.items()
        }
        names = dict(enumerate(evaluation.score.iou))
        key = {names.get(v, str(v)): "rgb({},{},{})".format(*classes.palette()[v]) for v in sorted(values)}
        return {"pictures": pictures, "key": key}


def _read(paths: Iterable[Path | None], reader: Callable[[Path], np.ndarray] = read_image) -> np.ndarray | None:
    """Read the first file that there is, at the width of a thumbnail; None where it is missing or damaged."""
    try:
        picture = next(reader(path) for path in paths if path is not None)
    except (InputError, StopIteration):
        return None
    height = max(1, round(picture.shape[0] * THUMB_WIDTH / picture.shape[1]))
    resampling = Image.Resampling.LANCZOS if picture.ndim == 3 else Image.Resampling.NEAREST  # labels keep their values
    return np.asarray(Image.fromarray(picture).resize((THUMB_WIDTH, height), resampling))


def _label(path: Path, threshold: float | None) -> np.ndarray:
    """Return the label map (H, W) in a PNG, or of a CAM file at a background threshold."""
    if threshold is None or path.suffix != ".npz":
        return read_label(path)
    import torch  # heavy, and only pages with scored CAMs need it

    from tag2mask.io.cams import read_cam
    from tag2mask.metrics.functional import at_full_size

    cam = read_cam(path)
    score, winner = at_full_size(cam.cam, cam.classes.to(torch.uint8), cam.size)
    return np.asarray(torch.where(score > threshold, winner, classes.BACKGROUND), np.uint8)
