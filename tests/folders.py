"""Photographs and the files beside them, as several files of tests write them, and preprocessing to suit their size."""

from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.data.transforms import Preprocessing

TINY = Preprocessing(long_side=(40, 60), crop_size=32)


def photograph(path: Path, size: tuple[int, int] = (50, 40), seed: int = 0) -> Path:
    """Write a noisy photograph of ``size`` width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def annotation(path: Path, *names: str) -> None:
    """Write a VOC annotation that names objects, one of them with a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(f"<object><name>{name}</name><part><name>head</name></part></object>" for name in names)
    path.write_text(f"<annotation>{objects}</annotation>")


def tags_file(path: Path, text: str) -> Path:
    """Write ``tags.csv`` into a folder."""
    path.mkdir(exist_ok=True)
    (path / "tags.csv").write_bytes(text.encode())
    return path / "tags.csv"
