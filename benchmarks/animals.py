"""Score the network that comes with tag2mask on photographs of PASCAL VOC that have masks.

usage: python -m benchmarks.animals VOC2012 [--split val] [--count 10]

Prints IoU, FDR and FNR of each class of ``ANIMALS``, and their means, once as `tag2mask segment` does it and once with
``--scales 0.75,1,1.5 --flip``. The network gets no tags. ``--count`` takes the first photographs of the split only.
The figures go to benchmarks/out/animals.json.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import write_record
from tag2mask.classes import VOC
from tag2mask.data.voc import voc_photos
from tag2mask.inference import Segmenter
from tag2mask.io.images import read_image
from tag2mask.io.labels import read_label
from tag2mask.metrics.evaluation import mean_over
from tag2mask.metrics.scores import SegmentationScores
from tag2mask.tasks.settings import MaskInference
from tag2mask.utils.progress import progress

ANIMALS = ("background", "cat", "cow", "dog", "horse", "person", "sheep")  # of which the training had many photographs
WAYS = {"segment": MaskInference((1.0,), False), "--scales 0.75,1,1.5 --flip": MaskInference((0.75, 1.0, 1.5), True)}


def score(root: Path, split: str, count: int | None, inference: MaskInference) -> dict[str, Any]:
    """Return the scores of the network on the photographs of a split, in percent: ``iou`` by class, ``miou7``, ..."""
    segmenter = Segmenter(inference=inference)
    metric = SegmentationScores(len(VOC))
    photos = voc_photos(root, split)[:count]
    for photo in progress(photos, len(photos), "photographs"):
        assert photo.mask is not None
        mask, _ = segmenter(read_image(photo.image))
        metric.update(torch.from_numpy(mask), torch.from_numpy(read_label(photo.mask)))
    rates = {rate: metric.compute()[rate].tolist() for rate in ("iou", "fdr", "fnr")}
    named = {rate: {name: rounded(values[VOC.index(name)]) for name in ANIMALS} for rate, values in rates.items()}
    return named | mean_over(named, ANIMALS)


def rounded(value: float) -> float | None:
    """Return a score in percent; None where there is none: of a class that these photographs do not have."""
    return None if math.isnan(value) else round(100 * value, 2)


def main() -> None:
    """Score both ways, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    figures = {way: score(options.voc, options.split, options.count, inference) for way, inference in WAYS.items()}
    for way, found in figures.items():
        print(f"\n{way}\n{'':<12}{'IoU':>7}{'FDR':>7}{'FNR':>7}")
        for name in ANIMALS:
            values = [found[rate][name] for rate in ("iou", "fdr", "fnr")]
            print(f"{name:<12}" + "".join("      -" if value is None else f"{value:7.1f}" for value in values))
        print(", ".join(f"{key} {found[key]:.1f}" for key in ("miou7", "mfdr7", "mfnr7")))
    write_record(Path("benchmarks/out/animals.json"), {"split": options.split, "count": options.count, **figures})


if __name__ == "__main__":
    main()
