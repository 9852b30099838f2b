"""Annotation files of MS COCO, and the masks that are painted from them. The processes that paint need no torch."""

import json
import os
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask

from tag2mask import classes
from tag2mask.errors import DamagedError, MismatchError
from tag2mask.io.files import MEGABYTE, decoding
from tag2mask.io.names import checked
from tag2mask.io.rle import compressed

RULE = 1  # version of the mask rule in `paint`; another rule makes other masks of the same annotations
NAME = re.compile(r"\w[\w.-]*\.(jpg|png)")
LONGEST = 65535  # side of a JPEG, in pixels
MOST_PIXELS = 25_000_000  # of a photograph; those of COCO have 410,000 at most
LONGEST_OUTLINE = 1_000_000  # pycocotools takes 100 bytes of memory for each pixel of a polygon's sides
ID = (lambda value: type(value) is int, "a whole number")  # `type`, for True is an int, too
SIDE = (lambda value: type(value) is int and 1 <= value <= LONGEST, f"a whole number, 1 to {LONGEST}")
AREA = (lambda value: type(value) in (int, float) and 0 <= value < 1e18, "a number of at least 0")
FILE = (lambda value: isinstance(value, str) and NAME.fullmatch(value), "a plain name that ends in .jpg or .png")
CLASS = (lambda value: isinstance(value, str), "the name of a class")
CROWD = (lambda value: value in (0, 1), "0 or 1")
OUTLINE = (lambda value: isinstance(value, (list, dict)), "polygons, or a run-length code")
FIELDS: dict[str, dict[str, Any]] = {
    "categories": {"id": ID, "name": CLASS},
    "images": {"file_name": FILE, "height": SIDE, "id": ID, "width": SIDE},
    "annotations": {"area": AREA, "category_id": ID, "image_id": ID, "iscrowd": CROWD, "segmentation": OUTLINE},
}
"""The lists of an annotation file: for each field of their entries a test of its value, and what is expected."""
MEND = "unpack annotations_trainval2014.zip again, or mend it there"


class Scene(NamedTuple):
    """A photograph and its objects without crowds: mask value and outline of each, the larger area first."""

    name: str
    height: int
    width: int
    objects: tuple[tuple[int, Any], ...]  # an outline is a list of polygons (x, y, ...) or pycocotools' run-length code

    @property
    def tags(self) -> tuple[int, ...]:
        """Mask values of the objects in rising order, those that others hide included."""
        return tuple(sorted({value for value, _ in self.objects}))


def paint(scene: Scene) -> np.ndarray:
    """Return the label map of a photograph, (H, W) uint8: where objects overlap, the last of the scene is seen."""
    size = scene.height, scene.width
    label = np.zeros(size, np.uint8)
    for value, outline in scene.objects:
        code = outline if isinstance(outline, dict) else mask.merge(mask.frPyObjects(outline, *size))
        label[mask.decode(code) == 1] = value
    return label


def read_scenes(path: Path) -> list[Scene]:
    """Read an annotation file, in the order of names; the error names a damaged or contradictory entry."""
    with decoding(path, "JSON", MEND, 1000 * MEGABYTE):
        content = json.loads(path.read_bytes())
    categories = sorted((entry["id"], entry["name"]) for _, entry in _entries(path, content, "categories"))
    for name, wanted in zip_longest([name for _, name in categories], classes.COCO[1:]):
        if name != wanted:
            raise MismatchError(
                f"{path} has {len(categories)} categories that are not the 80 of COCO: in the order of their ids, "
                f"{short(name)} stands in the place of {wanted!r}; {MEND}"
            )
    values = {key: value for value, (key, _) in enumerate(categories, 1)}
    pictures: dict[int, tuple[str, int, int]] = {}
    names: set[str] = set()
    for where, entry in _entries(path, content, "images"):
        key, name = entry["id"], checked(os.path.splitext(entry["file_name"])[0], where)
        if key in pictures or name in names:
            raise _fault(where, f"the id {key} or the name {name} for the second time", "each once")
        if entry["height"] * entry["width"] > MOST_PIXELS:
            raise _fault(where, f"{entry['height']} x {entry['width']} pixels", f"at most {MOST_PIXELS:,}")
        names.add(name)
        pictures[key] = name, entry["height"], entry["width"]
    objects: dict[int, list[tuple[float, int, Any]]] = {key: [] for key in pictures}
    for where, entry in _entries(path, content, "annotations"):
        for field, known, of in (("image_id", pictures, "images"), ("category_id", values, "categories")):
            if entry[field] not in known:
                raise _fault(where, f"{field} {entry[field]}", f"the id of an entry of {of}")
        if not entry["iscrowd"]:
            outline = _outline(where, entry["segmentation"], pictures[entry["image_id"]][1:])
            objects[entry["image_id"]].append((entry["area"], values[entry["category_id"]], outline))
    for each in objects.values():
        each.sort(key=lambda item: -item[0])  # stable: equal areas stay in the order of the file
    scenes = [Scene(*pictures[key], tuple((value, outline) for _, value, outline in objects[key])) for key in pictures]
    return sorted(scenes, key=lambda scene: scene.name)


def _entries(path: Path, content: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pass on the entries of a list that pass the tests in `FIELDS`, each with its place, such as ``images[7]``."""
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DamagedError(f"{path} has no list {key!r}, or an empty one; expected {', '.join(FIELDS)}; {MEND}")
    for number, entry in enumerate(entries):
        where = f"{path}: {key}[{number}]"
        if not isinstance(entry, dict):
            raise _fault(where, short(entry), "an object")
        for field, (is_right, expected) in FIELDS[key].items():
            if not is_right(entry.get(field)):
                raise _fault(where, f"{field} {short(entry.get(field))}", expected)
        yield where, entry


def _outline(where: str, segmentation: Any, size: tuple[int, int]) -> Any:
    """Return what `paint` takes: polygons or a compressed run-length code; refuse what pycocotools cannot paint."""
    if isinstance(segmentation, list):
        for polygon in segmentation or [[]]:
            whole = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            if not whole or not all(type(number) in (int, float) and abs(number) <= LONGEST for number in polygon):
                raise _fault(where, f"a polygon {short(polygon)}", "x and y of three points or more, in pixels")
            most = len(polygon) * (max(polygon) - min(polygon))  # of its sides together
            points = np.reshape(polygon, (-1, 2)) if most > LONGEST_OUTLINE else np.zeros((1, 2))
            if np.abs(points - np.roll(points, 1, 0)).sum() > LONGEST_OUTLINE:
                raise _fault(where, f"a polygon {short(polygon)}", f"an outline of at most {LONGEST_OUTLINE:,} pixels")
        return segmentation
    try:
        return compressed(segmentation, size)
    except ValueError:
        expected = f"size {list(size)} and counts that add up to all of its pixels"
        raise _fault(where, f"a run-length code {short(segmentation)}", expected) from None


def _fault(where: str, content: str, expected: str) -> DamagedError:
    return DamagedError(f"{where} has {content}; expected {expected}; {MEND}")
