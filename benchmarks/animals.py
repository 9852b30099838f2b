"""Score the network that comes with tag2mask on photographs of PASCAL VOC that have masks.

usage: python -m benchmarks.animals VOC2012 [--split val] [--count 10]

Segments the photographs as `tag2mask segment` does, once as it is and once with ``--scales 0.75,1,1.5 --flip``. Prints
the table of `tag2mask evaluate` for both, with the mean over the classes of ``ANIMALS``. The network gets no tags.
``--count`` takes the first photographs of the split only. The figures go to benchmarks/out/animals.json.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.record import write_record
from tag2mask.classes import VOC
from tag2mask.data.voc import voc_photos
from tag2mask.errors import InputError
from tag2mask.inference.photographs import Segmenter, segment_all
from tag2mask.metrics import evaluation
from tag2mask.tasks.settings import MaskInference
from tag2mask.utils.progress import progress

ANIMALS = ("background", "cat", "cow", "dog", "horse", "person", "sheep")  # of which the training had many photographs
WAYS = {"segment": MaskInference((1.0,), False), "--scales 0.75,1,1.5 --flip": MaskInference((0.75, 1.0, 1.5), True)}


def score(root: Path, split: str, count: int | None, inference: MaskInference) -> dict[str, Any]:
    """Return what `evaluation.evaluate` says of the masks of a split; ``best`` has ``miou7`` and so on too."""
    photos = voc_photos(root, split)[:count]
    with TemporaryDirectory() as folder:
        targets = {photo.image: [Path(folder) / f"{photo.name}.png"] for photo in photos}
        made = segment_all(Segmenter(inference=inference), targets)
        for _, result in progress(made, len(photos), "photographs"):
            if isinstance(result, InputError):
                raise result
        masks = next(photo.mask.parent for photo in photos if photo.mask is not None)
        names = [photo.name for photo in photos]
        result = evaluation.evaluate(evaluation.Task(Path(folder), masks, names, VOC), ())
    result["best"] |= evaluation.mean_over(result["best"], ANIMALS)
    return result


def main() -> None:
    """Score both ways, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    figures = {way: score(options.voc, options.split, options.count, inference) for way, inference in WAYS.items()}
    for way, found in figures.items():
        print(f"\n{way}\n{evaluation.table(found)}")
    write_record(Path("benchmarks/out/animals.json"), {"split": options.split, "count": options.count, **figures})


if __name__ == "__main__":
    main()
