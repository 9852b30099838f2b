"""PASCAL VOC 2012 in the devkit's layout: JPEGImages, Annotations, SegmentationClass, SegmentationClassAug."""

import re
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

from tag2mask import classes
from tag2mask.data.photos import Photo, require_photos
from tag2mask.errors import DamagedError, MissingError
from tag2mask.io.files import MEGABYTE, decoding
from tag2mask.io.folders import photo_name, read_list

SPLITS = {"train": 1464, "val": 1449, "test": 1456, "trainaug": 10582}  # trainaug: VOC's train and SBD, less VOC's val


def split_names(root: Path, split: str) -> list[str]:
    """Return the ids of a split: from ``ImageSets/Segmentation`` where it is listed there, else as published."""
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file() and split not in SPLITS:
        raise MissingError(f"no split {split!r}: {path} does not exist; expected {', '.join(SPLITS)} or that file")
    names = read_ids(path) if path.is_file() else packaged_names(split)
    if not names:
        raise DamagedError(f"{path} is empty; expected one image id a line")
    return names


def read_ids(path: Path) -> list[str]:
    """Read the ids of a list, one a line; the columns of 1, 0 and -1 in lists of a class are left out."""
    return list(dict.fromkeys(photo_name(re.sub(r"\s+-?[01]$", "", name), path) for name in read_list(path)))


def packaged_names(split: str) -> list[str]:
    """Return the ids of a split as published."""
    return (resources.files("tag2mask.data") / "lists" / f"voc2012_{split}.txt").read_text().split()


def voc_photos(root: Path, split: str) -> list[Photo]:
    """Return the photographs of a split; reads every annotation, no image.

    ``test`` has neither tags nor masks. Masks of ``train`` and ``val`` are the official ones, of other splits SBD's.
    """
    names = split_names(root, split)
    images = require_photos(root / "JPEGImages", names, f"the split {split}")
    if split == "test":
        return [Photo(name, images[name], None) for name in names]
    masks = root / ("SegmentationClass" if split in ("train", "val") else "SegmentationClassAug")
    tags = {name: read_tags(root / "Annotations" / f"{name}.xml") for name in names}
    return [Photo(name, images[name], tags[name], masks / f"{name}.png") for name in names]


def read_tags(path: Path) -> tuple[int, ...]:
    """Return the mask values of the classes that an annotation file names, in rising order."""
    with decoding(path, "XML", "extract it again: each id of a split needs its annotation (its tags)", MEGABYTE):
        named = {(node.text or "").strip() for node in ElementTree.parse(path).iterfind("object/name")}
    if unknown := sorted(named.difference(classes.VOC[1:])):
        raise DamagedError(f"{path} names {unknown[0]!r}; expected the 20 classes of VOC")
    return tuple(sorted(classes.VOC.index(name) for name in named))
