"""Numbers that others have published on PASCAL VOC 2012 and MS COCO 2014, in percent, each with its source.

``published.csv`` and ``published_classes.csv`` hold them. All are copied from the tables of Liu et al. 2023 (PLoS ONE
18(11): e0288596); none was measured by us.
"""

import csv
from importlib import resources

from tag2mask.classes import COCO, VOC
from tag2mask.report.runs import Evaluation

PAPER = "Liu et al. 2023"


class DataSet:
    """The published numbers of a data set, as text in percent.

    Attributes:
        cams: mean IoU of CAMs. Each number is a dictionary with ``method`` (the paper's own is ``Liu et al.``),
            ``backbone``, ``supervision``, ``split``, ``miou``, ``images`` of the split, and ``table`` of the paper.
        segmentation: mean IoU of segmentation networks trained on pseudo-labels.
        ours: those of the paper's own segmentation networks, on val.
        per_class: method -> class -> IoU on val, of segmentation networks trained on image tags; from Table 3.
    """

    def __init__(self, name: str, classes: tuple[str, ...], images: dict[str, int]) -> None:
        """Read the numbers of ``name``, with names of ``classes`` by mask value and numbers of ``images`` by split."""
        self.name, self.classes, self.images = name, classes, images
        numbers = [
            row | {"split": split, "miou": row[split], "images": f"{count:,}"}
            for row in _read("published.csv", name)
            for split, count in images.items()
            if row[split]
        ]
        self.cams = [number for number in numbers if number["kind"] == "cams"]
        self.segmentation = [number for number in numbers if number["kind"] == "segmentation"]
        self.ours = [n for n in self.segmentation if n["method"].startswith("Liu") and n["split"] == "val"]
        rows = _read("published_classes.csv", name)
        self.per_class = {row["method"]: {c: float(row[c]) for c in classes} for row in rows}


def _read(file: str, data_set: str) -> list[dict[str, str]]:
    text = resources.files("tag2mask.report").joinpath(file).read_text(encoding="utf-8")
    return [row for row in csv.DictReader(text.splitlines()) if row["data"] == data_set]


VOC_2012 = DataSet("PASCAL VOC 2012", VOC, {"train": 1464, "val": 1449, "test": 1456})
COCO_2014 = DataSet("MS COCO 2014", COCO, {"train": 82783, "val": 40504})


def data_set_of(evaluation: Evaluation) -> DataSet | None:
    """Return the data set with published numbers that has the classes of an evaluation."""
    return next((data for data in (VOC_2012, COCO_2014) if set(evaluation.score.iou) == set(data.classes)), None)
