"""Annotation files of MS COCO, and the masks that are painted from them. The processes that paint need no torch."""

import os
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tag2mask import classes
from tag2mask.errors import InputError

RULE = 1
"""Version of the mask rule in `paint`; another one makes other masks of the same annotations."""
_NAME = re.compile(r"\w[\w.-]*\.(jpg|png)")
_LONGEST = 65535  # side of a JPEG, in pixels
_IMAGE_KEYS = frozenset({"id", "file_name", "height", "width"})
_OBJECT_KEYS = frozenset({"image_id", "category_id", "iscrowd", "area", "segmentation"})
_CATEGORY_KEYS = frozenset({"id", "name"})
_MEND = "unpack annotations_trainval2014.zip again, or mend it there"

Outline = list[np.ndarray] | bytes
"""Of an object: polygons (x, y, x, y, ...) in pixels, or the counts of a compressed run-length code."""


class Picture(NamedTuple):
    """A photograph as the annotation file names it: without ending, height and width in pixels."""

    name: str
    height: int
    width: int


class Scene(NamedTuple):
    """The objects of a photograph, in the order in which they are painted."""

    picture: Picture
    values: tuple[int, ...]
    outlines: tuple[Outline, ...]


def paint(scene: Scene) -> np.ndarray:
    """Return the label map of a photograph, (H, W) uint8: where objects overlap, the last of the scene is seen."""
    from pycocotools import mask

    _, height, width = scene.picture
    label = np.zeros((height, width), np.uint8)
    for value, outline in zip(scene.values, scene.outlines, strict=True):
        if isinstance(outline, bytes):
            code = {"size": [height, width], "counts": outline}
        else:
            code = mask.merge(mask.frPyObjects(outline, height, width))
        label[mask.decode(code) == 1] = value
    return label


class Outlines:
    """Outlines of many objects in little memory: the numbers of all polygons in one row."""

    def __init__(self) -> None:
        """Begin with none."""
        self.numbers, self.ends = array("d"), array("q", [0])
        self.firsts = array("q", [0])
        self.codes: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.firsts) - 1

    def __getitem__(self, index: int) -> Outline:
        if index in self.codes:
            return self.codes[index]
        ends = self.ends[self.firsts[index] : self.firsts[index + 1] + 1]
        return [np.array(self.numbers[ends[k] : ends[k + 1]]) for k in range(len(ends) - 1)]

    def add(self, where: str, segmentation: Any, size: tuple[int, int]) -> None:
        """Append the outline of an object in a photograph of ``size`` height and width; ``where`` names it."""
        if isinstance(segmentation, dict):
            self.codes[len(self)] = _code(where, segmentation, size)
        elif not isinstance(segmentation, list) or not segmentation:
            raise _fault(
                where, f"segmentation {_short(segmentation)}", "polygons, or a run-length code with size, counts"
            )
        else:
            for polygon in segmentation:
                self._add_polygon(where, polygon)
        self.firsts.append(len(self.ends) - 1)

    def _add_polygon(self, where: str, polygon: Any) -> None:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            found = f"{len(polygon)} numbers" if isinstance(polygon, list) else _short(polygon)
            raise _fault(where, f"a polygon of {found}", "x and y of three points or more")
        try:
            self.numbers.fromlist(polygon)
            inside = -_LONGEST <= min(polygon) <= max(polygon) <= _LONGEST
        except TypeError:
            raise _fault(where, f"a polygon {_short(polygon)}", "numbers") from None
        if not inside:
            raise _fault(where, f"a polygon that reaches from {min(polygon)} to {max(polygon)}", "pixels")
        self.ends.append(len(self.numbers))


@dataclass(frozen=True)
class Instances:
    """What an annotation file says: photographs by name, and their objects without crowds.

    Attributes:
        pictures: by name.
        bounds: the objects of photograph i stand from ``bounds[i]`` to ``bounds[i + 1]`` of ``order``, (P + 1,).
        order: objects by photograph, then as they are painted: the larger area first, equal ones as in the file.
        values: mask value of each object.
        outlines: of each object.
    """

    pictures: list[Picture]
    bounds: np.ndarray
    order: np.ndarray
    values: np.ndarray
    outlines: Outlines

    def objects(self, index: int) -> np.ndarray:
        """Return the objects of a photograph in the order of painting."""
        return self.order[self.bounds[index] : self.bounds[index + 1]]

    def scene(self, index: int) -> Scene:
        """Return what is painted on a photograph."""
        found = self.objects(index)
        values = tuple(int(value) for value in self.values[found])
        return Scene(self.pictures[index], values, tuple(self.outlines[int(k)] for k in found))

    def tags(self, index: int) -> tuple[int, ...]:
        """Return the mask values of a photograph's objects in rising order, those that others hide included."""
        return tuple(int(value) for value in np.unique(self.values[self.objects(index)]))


def read_instances(path: Path) -> Instances:
    """Read an annotation file piece by piece: one of 330 MB takes less than that in memory.

    Raises:
        InputError: it is cut short, lacks something, or contradicts itself; the entry is named.
    """
    values_of = _read_categories(path)
    listed = _read_pictures(path)
    pictures = sorted(listed.values())
    places = {picture: index for index, picture in enumerate(pictures)}
    index_of = {image: places[picture] for image, picture in listed.items()}
    owners, areas, values, outlines = array("q"), array("d"), array("B"), Outlines()
    for where, entry in _entries(path, "annotations", _OBJECT_KEYS):
        index = _look_up(where, entry, "image_id", index_of, "images")
        value = _look_up(where, entry, "category_id", values_of, "categories")
        if entry["iscrowd"] not in (0, 1):
            raise _fault(where, f"iscrowd {_short(entry['iscrowd'])}", "0 or 1")
        if entry["iscrowd"]:
            continue
        outlines.add(where, entry["segmentation"], pictures[index][1:])
        owners.append(index)
        areas.append(_area(where, entry["area"]))
        values.append(value)
    order = np.lexsort((-np.asarray(areas), np.asarray(owners)))  # stable: equal areas stay in the order of the file
    bounds = np.searchsorted(np.asarray(owners)[order], np.arange(len(pictures) + 1))
    return Instances(pictures, bounds, order, np.asarray(values), outlines)


def _read_categories(path: Path) -> dict[int, int]:
    """The mask value of each category id."""
    names: dict[int, str] = {}
    for where, entry in _entries(path, "categories", _CATEGORY_KEYS):
        key = _integer(where, entry, "id", 0, 2**53)
        if key in names:
            raise _fault(where, f"the id {key} for the second time", "each once")
        names[key] = str(entry["name"])
    ids, wanted = sorted(names), list(classes.COCO[1:])
    found = [names[key] for key in ids]
    if found != wanted:
        same = next((k for k, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), 80)
        raise InputError(
            f"{path} has {len(found)} categories that are not the 80 of COCO: in the order of their ids, "
            f"{found[same : same + 1]} stands in the place of {wanted[same : same + 1]}; {_MEND}"
        )
    return {key: value for value, key in enumerate(ids, 1)}


def _read_pictures(path: Path) -> dict[int, Picture]:
    """The photograph of each image id."""
    found: dict[int, Picture] = {}
    names: set[str] = set()
    for where, entry in _entries(path, "images", _IMAGE_KEYS):
        image, file = _integer(where, entry, "id", 0, 2**53), entry["file_name"]
        height, width = (_integer(where, entry, key, 1, _LONGEST) for key in ("height", "width"))
        if not isinstance(file, str) or not _NAME.fullmatch(file):
            expected = "a plain name of letters, digits, _, - and points that ends in .jpg or .png"
            raise _fault(where, f"file_name {_short(file)}", expected)
        name = os.path.splitext(file)[0]
        if image in found or name in names:
            twice = f"the id {image}" if image in found else f"the name {name}"
            raise _fault(where, f"{twice} for the second time", "each once")
        names.add(name)
        found[image] = Picture(name, height, width)
    return found


def _entries(path: Path, key: str, needed: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream the entries of a list in a JSON file, each with its place, as ``annotations[7]``."""
    import ijson

    where = None
    try:
        with open(path, "rb") as file:
            for number, entry in enumerate(ijson.items(file, f"{key}.item", use_float=True)):
                where = f"{path}: {key}[{number}]"
                if not isinstance(entry, dict):
                    raise _fault(where, _short(entry), "an object")
                if not needed <= entry.keys():
                    raise _fault(where, f"no key {min(needed - entry.keys())!r}", ", ".join(sorted(needed)))
                yield where, entry
    except (ijson.JSONError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise InputError(f"{path} is cut short or no JSON ({reason}); {_MEND}") from None
    if where is None:
        raise InputError(
            f"{path} has no list {key!r}, or an empty one; expected images, annotations, categories; {_MEND}"
        )


def _fault(where: str, found: str, expected: str) -> InputError:
    return InputError(f"{where} has {found}; expected {expected}; {_MEND}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _look_up(where: str, entry: dict[str, Any], key: str, known: dict[int, int], of: str) -> int:
    try:
        return known[entry[key]]
    except (KeyError, TypeError):
        raise _fault(where, f"{key} {_short(entry[key])}", f"the id of an entry of {of}") from None


def _integer(where: str, entry: dict[str, Any], key: str, low: int, high: int) -> int:
    value = entry[key]
    if type(value) is not int or not low <= value <= high:  # True is an int, too
        raise _fault(where, f"{key} {_short(value)}", f"a whole number, {low} to {high}")
    return value


def _area(where: str, area: Any) -> float:
    if type(area) not in (int, float) or not 0 <= area < float("inf"):
        raise _fault(where, f"area {_short(area)}", "a number of pixels, 0 or more")
    return float(area)


def _code(where: str, code: dict[str, Any], size: tuple[int, int]) -> bytes:
    """A run-length code as compressed counts; one that does not fill its photograph decodes to chance values."""
    from pycocotools import mask

    counts = code.get("counts")
    runs: Any = _runs(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if code.get("size") != list(size) or not whole or sum(runs) != size[0] * size[1]:
        found = f"a run-length code {_short(code)}"
        raise _fault(where, found, f"size [{size[0]}, {size[1]}] and counts that add up to all of its pixels")
    return bytes(mask.frPyObjects({"size": list(size), "counts": runs}, *size)["counts"])


def _runs(text: str) -> list[int]:
    """The counts in a compressed string: groups of 5 bits, lowest first, a sixth says that more follow.

    From the third on, a count is the difference from the last but one: ``rleFrString`` in pycocotools' maskApi.c.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return [-1]
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # its sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if not shift else [-1]
