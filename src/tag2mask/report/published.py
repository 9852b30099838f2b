"""Numbers that others have published on PASCAL VOC 2012 and MS COCO 2014, in percent, each with its source.

All are copied from the tables of Liu et al. 2023 (PLoS ONE 18(11): e0288596); nothing here was measured by us.
"""

from typing import NamedTuple

from tag2mask.classes import COCO, VOC

PAPER = "Liu et al. 2023"
SUPERVISION = {"I": "image tags", "I+S": "image tags and saliency"}


class Published(NamedTuple):
    """A published mean IoU.

    Attributes:
        method: as the table names it; the paper's own is ``Liu et al.``.
        backbone: of its network.
        miou: in percent.
        split: photographs that it was scored on.
        source: the table that it stands in.
        supervision: ``I`` from image tags, ``I+S`` from saliency maps besides.
    """

    method: str
    backbone: str
    miou: float
    split: str
    source: str
    supervision: str = "I"


class DataSet(NamedTuple):
    """What was published on a data set.

    Attributes:
        name: of the data set.
        classes: names by mask value, the background first.
        images: photographs of each split.
        cams: mean IoU of CAMs.
        segmentation: that of segmentation networks trained on pseudo-labels.
        table: where the paper lists those.
        per_class: method -> class -> IoU on val, of segmentation networks trained on pseudo-labels from image tags.
        per_class_table: where the paper lists those.
    """

    name: str
    classes: tuple[str, ...]
    images: dict[str, int]
    cams: tuple[Published, ...]
    segmentation: tuple[Published, ...]
    table: str
    per_class: dict[str, dict[str, float]]
    per_class_table: str

    @property
    def ours(self) -> tuple[Published, ...]:
        """Return the paper's own segmentation networks, on val."""
        return tuple(p for p in self.segmentation if p.method.startswith("Liu") and p.split == "val")


_CAMS = tuple(
    Published(method, backbone, miou, "train", f"{PAPER}, Table 2")
    for method, backbone, miou in (
        ("Puzzle-CAM", "ResNet-50", 51.53),
        ("Puzzle-CAM", "ResNeSt-101", 61.85),
        ("Liu et al.", "ResNet-50", 56.75),
        ("Liu et al.", "ResNeSt-101", 65.28),
    )
)

_TABLE_5 = (
    ("MDC", "ResNet-101", "I+S", 60.4, 60.8),
    ("DSRG", "ResNet-101", "I+S", 61.4, 63.2),
    ("SeeNet", "VGG16", "I+S", 63.1, 62.8),
    ("EM-Adapt", "VGG16", "I", 38.2, 39.6),
    ("MIL-LSE", "Overfeat", "I", 42.0, 40.6),
    ("CRF", "VGG16", "I", 52.8, 53.7),
    ("RRM", "ResNet-38", "I", 62.6, 62.9),
    ("IRNet", "ResNet-50", "I", 63.5, 64.8),
    ("IAL", "ResNet-38", "I", 64.3, 65.4),
    ("GWSM", "VGG16", "I", 63.3, 63.6),
    ("SSDD", "ResNet-38", "I", 64.9, 65.5),
    ("CIAN", "VGG16", "I", 64.3, 65.3),
    ("AMN", "ResNet-101", "I", 69.5, 69.6),
    ("URN", "ResNet-101", "I", 69.5, 69.7),
    ("RS", "ResNet-50", "I", 75.2, 76.7),
    ("SANCE", "ResNet-101", "I", 76.9, 70.9),
    ("MARS", "ResNet-101", "I", 77.7, 77.2),
    ("Liu et al.", "ResNeSt-101", "I", 64.9, 65.8),
    ("Liu et al. + random walk + CRF", "ResNeSt-101", "I", 76.6, 77.4),
)
_SEGMENTATION = tuple(
    Published(method, backbone, miou, split, f"{PAPER}, Table 5", supervision)
    for method, backbone, supervision, *both in _TABLE_5
    for split, miou in zip(("val", "test"), both, strict=True)
)

_TABLE_3 = {
    "SEC": "82.4 62.9 26.4 61.6 27.6 38.1 66.6 62.7 75.2 22.1 53.5 28.3 65.8 57.8 62.3 52.5 32.5 62.6 32.1 45.4 45.3",
    "MCOF": "85.8 74.1 23.6 66.4 36.6 62.0 75.5 68.5 78.2 18.8 64.6 29.6 72.5 61.6 63.1 55.5 37.7 65.8 32.4 68.4 39.9",
    "AffinityNet": (
        "88.2 68.2 30.6 81.1 49.6 61.0 77.8 66.1 75.1 29.0 66.0 40.2 80.4 62.0 70.4 73.7 42.5 70.7 42.6 68.1 51.6"
    ),
    "Liu et al.": (
        "86.7 72.5 33.8 43.1 28.7 73.1 85.6 78.9 88.6 33.5 87.2 55.5 87.0 78.9 76.1 80.8 51.6 76.4 51.0 49.6 43.7"
    ),
}
_PER_CLASS = {method: dict(zip(VOC, map(float, row.split()), strict=True)) for method, row in _TABLE_3.items()}

_TABLE_6 = (
    ("SEC", "VGG16", "I", 22.4),
    ("DSRG", "ResNet-101", "I+S", 26.0),
    ("IAL", "ResNet-38", "I", 27.7),
    ("SEAM", "ResNet-38", "I", 31.9),
    ("IRNet", "ResNet-50", "I", 32.6),
    ("AMN", "ResNet-101", "I", 44.7),
    ("URN", "ResNet-101", "I", 40.7),
    ("Liu et al.", "ResNeSt-101", "I", 34.2),
    ("Liu et al. + random walk + CRF", "ResNeSt-101", "I", 43.8),
)
_COCO = tuple(
    Published(method, backbone, miou, "val", f"{PAPER}, Table 6", supervision)
    for method, backbone, supervision, miou in _TABLE_6
)

DATA_SETS = (
    DataSet(
        "PASCAL VOC 2012",
        VOC,
        {"train": 1464, "val": 1449, "test": 1456},
        _CAMS,
        _SEGMENTATION,
        "Table 5",
        _PER_CLASS,
        "Table 3",
    ),
    DataSet("MS COCO 2014", COCO, {"train": 82783, "val": 40504}, (), _COCO, "Table 6", {}, ""),
)
