"""Annotation files of MS COCO, and the masks that are painted from them. The processes that paint need no torch."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tag2mask import classes
from tag2mask.errors import DamagedError, MismatchError

RULE = 1
"""Version of the mask rule in `paint`; another rule makes other masks of the same annotations."""
NAME = re.compile(r"\w[\w.-]*\.(jpg|png)")
LONGEST = 65535
"""Side of a JPEG, in pixels."""
KEYS = {
    "categories": ("id", "name"),
    "images": ("file_name", "height", "id", "width"),
    "annotations": ("area", "category_id", "image_id", "iscrowd", "segmentation"),
}
"""Lists of an annotation file, and what each entry must have."""
MEND = "unpack annotations_trainval2014.zip again, or mend it there"


class Scene(NamedTuple):
    """A photograph and its objects without crowds.

    Attributes:
        name: of the photograph, without ending.
        height: in pixels.
        width: in pixels.
        objects: mask value and outline of each, in the order of painting: the larger area first, equal ones as in the
            file. An outline is a list of polygons (x, y, x, y, ...) or a run-length code of pycocotools.
    """

    name: str
    height: int
    width: int
    objects: tuple[tuple[int, Any], ...]

    @property
    def tags(self) -> tuple[int, ...]:
        """Mask values of the objects in rising order, those that others hide included."""
        return tuple(sorted({value for value, _ in self.objects}))


def paint(scene: Scene) -> np.ndarray:
    """Return the label map of a photograph, (H, W) uint8: where objects overlap, the last of the scene is seen."""
    from pycocotools import mask

    size = scene.height, scene.width
    label = np.zeros(size, np.uint8)
    for value, outline in scene.objects:
        code = outline if isinstance(outline, dict) else mask.merge(mask.frPyObjects(outline, *size))
        label[mask.decode(code) == 1] = value
    return label


def read_scenes(path: Path) -> list[Scene]:
    """Read an annotation file; the scenes come in the order of their names.

    Raises:
        DamagedError: it is cut short, lacks something, or contradicts itself; the entry is named.
        MismatchError: its categories are not those of COCO.
    """
    content = _read_json(path)
    values, pictures = _mask_values(path, content), _pictures(path, content)
    objects: dict[int, list[tuple[float, int, Any]]] = {image: [] for image in pictures}
    for where, entry in _entries(path, content, "annotations"):
        image = _known(where, entry, "image_id", pictures, "images")
        value = values[_known(where, entry, "category_id", values, "categories")]
        if entry["iscrowd"] not in (0, 1):
            raise _fault(where, f"iscrowd {_short(entry['iscrowd'])}", "0 or 1")
        area = _number(where, entry, "area", (int, float), 0, 1e18)
        if not entry["iscrowd"]:
            objects[image].append((area, value, _outline(where, entry["segmentation"], pictures[image][1:])))
    scenes = []
    for image, picture in pictures.items():
        ordered = sorted(objects[image], key=lambda each: -each[0])  # stable: equal areas stay in the order of the file
        scenes.append(Scene(*picture, tuple((value, outline) for _, value, outline in ordered)))
    return sorted(scenes, key=lambda scene: scene.name)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:  # no JSON, or no UTF-8
        reason = " ".join(str(error).split("\n")[0].split())
        raise DamagedError(f"{path} is cut short or no JSON ({reason}); {MEND}") from None


def _entries(path: Path, content: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pass on the entries of a list, each with its place, such as ``annotations[7]``."""
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DamagedError(
            f"{path} has no list {key!r}, or an empty one; expected images, annotations, categories; {MEND}"
        )
    for number, entry in enumerate(entries):
        where = f"{path}: {key}[{number}]"
        if not isinstance(entry, dict):
            raise _fault(where, _short(entry), "an object")
        if missing := [needed for needed in KEYS[key] if needed not in entry]:
            raise _fault(where, f"no key {missing[0]!r}", ", ".join(KEYS[key]))
        yield where, entry


def _mask_values(path: Path, content: Any) -> dict[int, int]:
    """Return the mask value of each category id."""
    names: dict[int, str] = {}
    for where, entry in _entries(path, content, "categories"):
        key = _number(where, entry, "id", (int,), 0, 2**53)
        if key in names:
            raise _fault(where, f"the id {key} for the second time", "each once")
        names[key] = str(entry["name"])
    ids, wanted = sorted(names), list(classes.COCO[1:])
    found = [names[key] for key in ids]
    if found != wanted:
        same = next((k for k, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), len(wanted))
        raise MismatchError(
            f"{path} has {len(found)} categories that are not the 80 of COCO: in the order of their ids, "
            f"{found[same : same + 1]} stands in the place of {wanted[same : same + 1]}; {MEND}"
        )
    return {key: value for value, key in enumerate(ids, 1)}


def _pictures(path: Path, content: Any) -> dict[int, tuple[str, int, int]]:
    """Return name, height and width of each image id."""
    pictures: dict[int, tuple[str, int, int]] = {}
    names: set[str] = set()
    for where, entry in _entries(path, content, "images"):
        image, file = _number(where, entry, "id", (int,), 0, 2**53), entry["file_name"]
        height, width = (_number(where, entry, key, (int,), 1, LONGEST) for key in ("height", "width"))
        if not isinstance(file, str) or not NAME.fullmatch(file):
            expected = "a plain name of letters, digits, _, - and points that ends in .jpg or .png"
            raise _fault(where, f"file_name {_short(file)}", expected)
        name = os.path.splitext(file)[0]
        if image in pictures or name in names:
            twice = f"the id {image}" if image in pictures else f"the name {name}"
            raise _fault(where, f"{twice} for the second time", "each once")
        names.add(name)
        pictures[image] = name, height, width
    return pictures


def _outline(where: str, segmentation: Any, size: tuple[int, int]) -> Any:
    """Return polygons as they are, a run-length code compressed; refuse what pycocotools cannot paint."""
    if isinstance(segmentation, dict):
        return _code(where, segmentation, size)
    if not isinstance(segmentation, list) or not segmentation:
        expected = "polygons, or a run-length code with size, counts"
        raise _fault(where, f"segmentation {_short(segmentation)}", expected)
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            shape = f"{len(polygon)} numbers" if isinstance(polygon, list) else _short(polygon)
            raise _fault(where, f"a polygon of {shape}", "x and y of three points or more")
        if not set(map(type, polygon)) <= {int, float}:
            raise _fault(where, f"a polygon {_short(polygon)}", "numbers")
        if not -LONGEST <= min(polygon) <= max(polygon) <= LONGEST:
            raise _fault(where, f"a polygon that reaches from {min(polygon)} to {max(polygon)}", "pixels")
    return segmentation


def _code(where: str, code: dict[str, Any], size: tuple[int, int]) -> Any:
    """Return a run-length code compressed; one that does not fill its photograph would be painted as chance values."""
    from pycocotools import mask

    counts = code.get("counts")
    runs: Any = _runs(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if code.get("size") != list(size) or not whole or sum(runs) != size[0] * size[1]:
        expected = f"size [{size[0]}, {size[1]}] and counts that add up to all of its pixels"
        raise _fault(where, f"a run-length code {_short(code)}", expected)
    return mask.frPyObjects({"size": list(size), "counts": runs}, *size)


def _runs(text: str) -> list[int]:
    """Return the counts in a compressed string, which pycocotools does not tell; [-1] where it is not one.

    The string has groups of 5 bits, lowest first; a sixth bit says that more follow. From the third on, a count is the
    difference from the last but one: ``rleFrString`` in pycocotools' maskApi.c.
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


def _known(where: str, entry: Mapping[str, Any], key: str, known: Mapping[int, Any], of: str) -> int:
    if type(entry[key]) is not int or entry[key] not in known:
        raise _fault(where, f"{key} {_short(entry[key])}", f"the id of an entry of {of}")
    return int(entry[key])


def _number(where: str, entry: Mapping[str, Any], key: str, kinds: tuple[type, ...], low: float, high: float) -> Any:
    value = entry[key]
    if type(value) not in kinds or not low <= value <= high:  # True is an int, too
        kind = "a whole number" if kinds == (int,) else "a number"
        raise _fault(where, f"{key} {_short(value)}", f"{kind}, {low} to {high:g}")
    return value


def _fault(where: str, found: str, expected: str) -> DamagedError:
    return DamagedError(f"{where} has {found}; expected {expected}; {MEND}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
