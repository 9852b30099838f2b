"""Numbers that others have published, from the tables of Liu et al. 2023, PLoS ONE 18(11): e0288596; none is ours."""

import csv
from importlib import resources

from tag2mask.classes import COCO, VOC
from tag2mask.report.runs import Evaluation, Score


class DataSet:
    """The published mIoU of ``cams`` and ``segmentation`` networks on a data set in percent, as lines of the CSV file.

    ``ours`` are those of the paper's own segmentation networks on val, ``images`` the number of images by split, and
    ``per_class`` the scores on val of networks trained on image tags, by method, from Table 3.
    """

    def __init__(self, name: str, classes: tuple[str, ...]) -> None:
        """Read the numbers of ``name``, which has these ``classes`` by mask value."""
        self.name, self.classes = name, classes
        numbers = _read("published.csv", name)
        self.cams = [number for number in numbers if number["kind"] == "cams"]
        self.segmentation = [number for number in numbers if number["kind"] == "segmentation"]
        self.ours = [n for n in self.segmentation if n["method"].startswith("Liu") and n["split"] == "val"]
        self.images = {number["split"]: int(number["images"]) for number in numbers}
        self.per_class = {}
        for row in _read("published_classes.csv", name):
            iou = [float(row[title]) / 100 for title in classes]
            self.per_class[row["method"]] = Score(sum(iou) / len(iou), None, None, dict(zip(classes, iou, strict=True)))


def _read(file: str, data_set: str) -> list[dict[str, str]]:
    text = resources.files("tag2mask.report").joinpath(file).read_text(encoding="utf-8")
    return [row for row in csv.DictReader(text.splitlines()) if row["data"] == data_set]


DATA_SETS = VOC_2012, COCO_2014 = DataSet("PASCAL VOC 2012", VOC), DataSet("MS COCO 2014", COCO)


def data_set_of(evaluation: Evaluation) -> DataSet | None:
    """Return the data set with published numbers that has the classes of an evaluation."""
    return next((data for data in DATA_SETS if set(evaluation.score.iou) == set(data.classes)), None)
