"""Draw forty photographs of PASCAL VOC as a folder of one's own, for measurements on few photographs.

usage: python -m benchmarks.forty VOC2012 photographs [--seed 6] [--split val]

Of the photographs in ``trainaug.txt``, or another list, whose tags are all among cat, dog, horse and person, ten are
drawn for each of these tags in turn. ``photographs`` gets ``images`` and ``tags.csv``. The masks, with the values of
these four classes, go to ``photographs_masks`` beside it, so that only scoring sees them.
"""

import argparse
import random
import shutil
from pathlib import Path

import numpy as np

from tag2mask.classes import BACKGROUND, IGNORE, VOC
from tag2mask.data.photos import Photo
from tag2mask.data.voc import voc_photos
from tag2mask.io.labels import read_label, write_label

CLASSES = [VOC.index(name) for name in ("cat", "dog", "horse", "person")]


def draw(photos: list[Photo], seed: int, each: int = 10) -> list[Photo]:
    """Return ``each`` photographs of every tag, sorted by name; none is drawn twice."""
    generator = random.Random(seed)
    left = [photo for photo in photos if photo.tags and set(photo.tags) <= set(CLASSES)]
    drawn: list[Photo] = []
    for tag in CLASSES:
        drawn += generator.sample([photo for photo in left if tag in (photo.tags or ()) and photo not in drawn], each)
    return sorted(drawn, key=lambda photo: photo.name)


def four_classes(mask: np.ndarray) -> np.ndarray:
    """Number the four classes of a mask of VOC from 1; others are ignored."""
    value = np.full(256, IGNORE)
    value[[BACKGROUND, *CLASSES]] = range(1 + len(CLASSES))
    return value[mask]


def main() -> None:
    """Draw, and copy what is drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--split", default="trainaug")
    options = parser.parse_args()
    photos = draw(voc_photos(options.voc, options.split), options.seed)
    (options.out / "images").mkdir(parents=True)
    for photo in photos:
        assert photo.mask is not None
        shutil.copy(photo.image, options.out / "images")
        write_label(Path(f"{options.out}_masks") / f"{photo.name}.png", four_classes(read_label(photo.mask)))
    lines = [f"{photo.name},{';'.join(VOC[tag] for tag in photo.tags or ())}\n" for photo in photos]
    (options.out / "tags.csv").write_text("name,tags\n" + "".join(lines))


if __name__ == "__main__":
    main()
