"""PASCAL VOC 2012 in the devkit's layout: JPEGImages, Annotations, SegmentationClass, SegmentationClassAug."""

import re
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

from tag2mask import classes
from tag2mask.data.photos import Photo
from tag2mask.errors import InputError
from tag2mask.io.folders import near_photo, read_list, without_ending

SPLITS = {"train": 1464, "val": 1449, "test": 1456, "trainaug": 10582}
"""Number of images of each split; ``trainaug`` is SBD's train and val with VOC's train, without VOC's val."""


def split_names(root: Path, split: str) -> list[str]:
    """Return the ids of a split: from ``ImageSets/Segmentation`` where it is listed there, else as published."""
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if path.is_file():
        names = read_ids(path)
    elif split in SPLITS:
        names = packaged_names(split)
    else:
        raise InputError(
            f"no split {split!r}: {path} does not exist; expected one of {', '.join(SPLITS)}, or that file"
        )
    if not names:
        raise InputError(f"{path} is empty; expected one image id a line")
    return names


def read_ids(path: Path) -> list[str]:
    """Read the ids of a list, one a line; the columns of 1, 0 and -1 in lists of a class are left out."""
    return list(dict.fromkeys(without_ending(re.sub(r"\s+-?[01]$", "", name)) for name in read_list(path)))


def packaged_names(split: str) -> list[str]:
    """Return the ids of a split as published."""
    return (resources.files("tag2mask.data") / "lists" / f"voc2012_{split}.txt").read_text().split()


def voc_photos(root: Path, split: str) -> list[Photo]:
    """Return the photographs of a split, with tags (all but ``test``) and the paths of their masks.

    Masks are the official ones for ``train`` and ``val`` and SBD's, from ``SegmentationClassAug``, for other splits.
    Reads every annotation, no image.
    """
    if not (root / "JPEGImages").is_dir():
        raise InputError(
            f"no JPEGImages in {root.resolve()}; set --data.init_args.root to the folder VOCdevkit/VOC2012, or fetch "
            "it with `tag2mask prepare voc`"
        )
    masks = {"train": "SegmentationClass", "val": "SegmentationClass", "test": None}.get(split, "SegmentationClassAug")
    names = split_names(root, split)
    photos = []
    for name in names:
        mask = root / masks / f"{name}.png" if masks else None
        tags = None if split == "test" else read_tags(root / "Annotations" / f"{name}.xml")
        photos.append(Photo(name, root / "JPEGImages" / f"{name}.jpg", tags, mask))
    check_images(photos, f"{split} of {root}")
    return photos


def read_tags(path: Path) -> tuple[int, ...]:
    """Return the mask values of the classes that an annotation file names, in rising order."""
    try:
        found = {(node.text or "").strip() for node in ElementTree.parse(path).iterfind("object/name")}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; each id of a split needs its annotation (its tags)") from None
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not whole XML ({error}); extract it again") from None
    unknown = found.difference(classes.VOC[1:])
    if unknown:
        raise InputError(f"{path} names {sorted(unknown)[0]!r}; expected the 20 classes of VOC")
    return tuple(sorted(classes.VOC.index(name) for name in found))


def check_images(photos: list[Photo], what: str) -> None:
    """Raise ``InputError`` where photographs are missing."""
    missing = [photo.image for photo in photos if not photo.image.is_file()]
    if missing:
        near = near_photo(missing[0].parent, missing[0].name)
        raise InputError(
            f"{len(missing)} of {len(photos)} photographs in {what} are missing, the first {missing[0]}"
            f"{near or '; add them or take their names off the list'}"
        )
