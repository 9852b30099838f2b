"""Draw docs/images/pipeline.png from what `make demo` has made: python docs/images/pipeline.py [SCENE ...]."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.data.sample import CLASSES
from tag2mask.io.cams import read_cam
from tag2mask.io.images import read_image
from tag2mask.io.labels import read_label
from tag2mask.viz import plots

SAMPLE, RUNS = Path("data/sample"), Path("runs/demo")
SCENES = ("scene_0122", "scene_0123")


def scene(name: str) -> np.ndarray:
    """A row: photograph, CAMs, pseudo-label, mask of the segmentation network, truth."""
    image = read_image(SAMPLE / "images" / f"{name}.jpg")
    found = read_cam(RUNS / "full" / "cams" / f"{name}.npz")
    best = np.asarray(found.cam, np.float32).max(0)
    tags = ", ".join(CLASSES[value - 1] for value in found.classes)
    labels = {
        "pseudo-label": RUNS / "full" / "labels" / f"{name}.png",
        "mask": RUNS / "segmentation" / "masks" / "val" / f"{name}.png",
        "truth": SAMPLE / "masks" / f"{name}.png",
    }
    drawn = [(title, plots.overlay(image, read_label(path))) for title, path in labels.items()]
    return plots.row([(f"tags: {tags}", image), ("CAM", plots.heat(image, best)), *drawn], height=1.6)


if __name__ == "__main__":
    rows = [scene(name) for name in sys.argv[1:] or SCENES]
    picture = Image.fromarray(plots.column(rows)).quantize(256, dither=Image.Dither.NONE)  # a third of the bytes
    picture.save("docs/images/pipeline.png", optimize=True)
