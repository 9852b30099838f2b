"""Draw docs/images/examples.jpg: python docs/images/examples.py CAM_CHECKPOINT EDGE_CHECKPOINT.

The checkpoints are those of the CAM and edge networks of weights/animals_lite0.md; the masks are of the network there.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tag2mask.inference import CAMMaker, Refiner, Segmenter
from tag2mask.viz import plots

EXAMPLES = Path("examples")
SIDE = 320  # pixels to which the photographs are shrunk in the picture


def scene(path: Path, tags: list[str], maker: CAMMaker, refiner: Refiner, segmenter: Segmenter) -> np.ndarray:
    """A row: photograph, CAM, pseudo-label, mask of the segmentation network, which gets no tags."""
    cams = maker(path, tags=tags)
    best = np.max(list(cams.maps.values()), axis=0)
    mask, shares = segmenter(cams.image)
    found = ", ".join(shares) or "nothing"
    parts = [
        (f"tags: {', '.join(tags)}", cams.image),
        ("CAM", plots.heat(cams.image, best)),
        ("pseudo-label", plots.overlay(cams.image, refiner(cams).label)),
        (f"mask: {found}", plots.overlay(cams.image, mask)),
    ]
    height, width = cams.image.shape[:2]
    return plots.row([(title, plots.fit(picture, SIDE)) for title, picture in parts], height=2.4 * height / width)


if __name__ == "__main__":
    networks = CAMMaker(sys.argv[1]), Refiner(edges=sys.argv[2], threshold=0.3), Segmenter()
    lines = [line.split(",") for line in (EXAMPLES / "tags.csv").read_text().split()[:0:-1]]
    rows = [scene(EXAMPLES / "images" / f"{name}.jpg", [tag], *networks) for name, tag in lines]
    Image.fromarray(plots.column(rows)).save("docs/images/examples.jpg", quality=88, optimize=True)
