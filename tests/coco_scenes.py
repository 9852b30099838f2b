"""Annotations in COCO's form, drawn with letters, for the tests that read and paint them."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as codes

from tag2mask import classes

DOG, CAT, PERSON, LAST = (classes.COCO.index(name) for name in ("dog", "cat", "person", "toothbrush"))
SIZE = (6, 8)
Data = dict[str, Any]


def category(value: int) -> int:
    """The id of a class in the drawn annotations: with gaps, as COCO's."""
    return 3 * value + value // 7


def drawn(text: str) -> np.ndarray:
    """A map as rows of letters: what each stands for is in the words before the dash."""
    legend = {".": 0, "p": PERSON, "c": CAT, "d": DOG, "t": LAST}
    return np.array([[legend[letter] for letter in row] for row in text.split()], np.uint8)


def box(x: int, y: int, width: int, height: int) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def runs(mask: np.ndarray) -> list[int]:
    """Run-length code, column by column, beginning with zeros."""
    found, value = [0], 0
    for pixel in mask.T.ravel():
        if pixel != value:
            found.append(0)
            value = pixel
        found[-1] += 1
    return found


def compressed(mask: np.ndarray) -> str:
    return codes.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


LINES = np.zeros(SIZE, np.uint8)
LINES[1::2, 2:5] = 1
PICTURES = {
    "two polygons": [(DOG, 12, [box(0, 0, 2, 3), box(5, 2, 3, 2)])],
    "the smaller wins": [(DOG, 4, [box(3, 2, 2, 2)]), (PERSON, 24, [box(1, 1, 6, 4)]), (CAT, 6, [box(4, 2, 3, 2)])],
    "equal, the later wins": [(DOG, 9, [box(0, 0, 3, 3)]), (CAT, 9, [box(2, 2, 3, 3)])],
    "wholly covered": [(CAT, 9, [box(1, 1, 2, 2)]), (LAST, 5, [box(0, 0, 4, 4)])],
    "uncompressed": [(LAST, 9, {"size": [6, 8], "counts": runs(LINES)})],
    "compressed": [(CAT, 9, {"size": [6, 8], "counts": compressed(LINES)})],
    "a crowd alone": [(None, 99, {"size": [6, 8], "counts": [0, 48]})],
    "nothing": [],
}
EXPECTED = {
    "two polygons": ("dog", "dd...... dd...... dd...ddd .....ddd ........ ........"),
    "the smaller wins": ("person;cat;dog", "........ .pppppp. .ppddcc. .ppddcc. .pppppp. ........"),
    "equal, the later wins": ("cat;dog", "ddd..... ddd..... ddccc... ..ccc... ..ccc... ........"),
    "wholly covered": ("cat;toothbrush", "tttt.... tttt.... tttt.... tttt.... ........ ........"),
    "uncompressed": ("toothbrush", "........ ..ttt... ........ ..ttt... ........ ..ttt..."),
    "compressed": ("cat", "........ ..ccc... ........ ..ccc... ........ ..ccc..."),
    "a crowd alone": ("", "........ " * 6),
    "nothing": ("", "........ " * 6),
}


def name_of(title: str) -> str:
    return f"COCO_train2014_{title.replace(' ', '_').replace(',', '')}"


def annotations(pictures: dict[str, list[Any]]) -> Data:
    """An annotation file; photographs, categories and ids come in no order."""
    data: Data = {"info": {}, "images": [], "annotations": []}
    for number, (name, objects) in enumerate(pictures.items()):
        image = {"id": 90000 - 7 * number, "file_name": f"{name}.jpg", "height": 6, "width": 8, "license": 3}
        data["images"].append(image)
        for value, area, segmentation in objects:
            entry = {
                "id": len(data["annotations"]),
                "image_id": image["id"],
                "area": area,
                "iscrowd": int(value is None),
            }
            entry |= {"category_id": category(value or PERSON), "segmentation": segmentation, "bbox": [0, 0, 1.5, 1]}
            data["annotations"].append(entry)
    named = [{"id": category(value), "name": classes.COCO[value], "supercategory": "x"} for value in range(1, 81)]
    data["categories"] = random.Random(0).sample(named, 80)
    return data


TRAIN = annotations({name_of(title): objects for title, objects in PICTURES.items()})
VAL = annotations({"COCO_val2014_dog": [(DOG, 4, [box(3, 2, 2, 2)])], "COCO_val2014_none": []})


def write(root: Path, split: str, data: Data) -> None:
    """Write an annotation file and, empty, for nobody opens them, the photographs that it names."""
    for folder in (f"{split}2014", "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(data))
    for image in data["images"]:
        (root / f"{split}2014" / image["file_name"]).touch()


def command(root: Path, out: Path, *more: str) -> list[str]:
    return ["prepare", "coco", "--root", str(root), "--out", str(out), "--no-download", "--workers", "1", *more]
