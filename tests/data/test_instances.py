"""Annotation files of COCO: run-length codes, and what spoils one: the fault is named, nothing is written."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tag2mask.cli.main import main
from tag2mask.data.prepare import instances
from tests.coco_scenes import LINES, TRAIN, VAL, Data, command, compressed, name_of, runs, write
from tests.commands import line


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Drawn annotations in COCO's layout."""
    write(tmp_path / "coco", "train", TRAIN)
    write(tmp_path / "coco", "val", VAL)
    return tmp_path / "coco"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (300, 400)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_every_run_length_code_is_decoded_as_pycocotools_does(size: tuple[int, int], share: float) -> None:
    mask = (np.random.default_rng(0).random(size) < share).astype(np.uint8)
    for counts in (runs(mask), compressed(mask)):
        outline = instances._outline("here", {"size": list(size), "counts": counts}, size)
        np.testing.assert_array_equal(instances.paint(instances.Scene("a", *size, ((7, outline),))), 7 * mask)


def no_images(data: Data) -> str:
    del data["images"]
    return "has no list 'images', or an empty one"


def no_annotations(data: Data) -> str:
    del data["annotations"]
    return "has no list 'annotations'"


def no_categories(data: Data) -> str:
    del data["categories"]
    return "has no list 'categories'"


def an_image_without_height(data: Data) -> str:
    del data["images"][2]["height"]
    return "images[2] has height None; expected a whole number"


def an_annotation_without_area(data: Data) -> str:
    del data["annotations"][3]["area"]
    return "annotations[3] has area None; expected a number"


def an_annotation_that_is_a_number(data: Data) -> str:
    data["annotations"][1] = 5
    return "annotations[1] has 5; expected an object"


def another_class(data: Data) -> str:
    next(entry for entry in data["categories"] if entry["name"] == "cat")["name"] = "unicorn"
    return "'unicorn' stands in the place of 'cat'"


def a_class_too_few(data: Data) -> str:
    data["categories"] = [entry for entry in data["categories"] if entry["name"] != "toothbrush"]
    return "has 79 categories that are not the 80 of COCO: in the order of their ids, None stands in the place of"


def a_class_too_many(data: Data) -> str:
    data["categories"].append({"id": 999, "name": "unicorn"})
    return "has 81 categories that are not the 80 of COCO: in the order of their ids, 'unicorn' stands in"


def a_class_twice(data: Data) -> str:
    data["categories"].append(data["categories"][0])
    return "has 81 categories"


def an_unknown_category(data: Data) -> str:
    data["annotations"][4]["category_id"] = 1000
    return "annotations[4] has category_id 1000; expected the id of an entry of categories"


def an_unknown_image(data: Data) -> str:
    data["annotations"][4]["image_id"] = [1]
    return "annotations[4] has image_id [1]; expected a whole number"


def an_id_twice(data: Data) -> str:
    data["images"][1]["id"] = data["images"][0]["id"]
    return "images[1] has the id 90000 or the name"


def a_name_twice(data: Data) -> str:
    data["images"][1]["file_name"] = data["images"][0]["file_name"].replace(".jpg", ".png")
    return f"images[1] has the id 89993 or the name {name_of('two polygons')} for the second time"


def a_crowd_of_two(data: Data) -> str:
    data["annotations"][0]["iscrowd"] = 2
    return "annotations[0] has iscrowd 2; expected 0 or 1"


def an_area_below_nothing(data: Data) -> str:
    data["annotations"][0]["area"] = -1
    return "annotations[0] has area -1"


def a_polygon(given: Any, told: str) -> Callable[[Data], str]:
    def spoil(data: Data) -> str:
        data["annotations"][2]["segmentation"] = given
        return f"annotations[2] has {told}"

    spoil.__name__ = told
    return spoil


def an_image(key: str, value: Any, told: str) -> Callable[[Data], str]:
    def spoil(data: Data) -> str:
        data["images"][1][key] = value
        return f"images[1] has {key} {told}"

    spoil.__name__ = f"{key} {told}"
    return spoil


SPOILT = [
    no_images,
    no_annotations,
    no_categories,
    an_image_without_height,
    an_annotation_without_area,
    an_annotation_that_is_a_number,
    another_class,
    a_class_too_few,
    a_class_too_many,
    a_class_twice,
    an_unknown_category,
    an_unknown_image,
    an_id_twice,
    a_name_twice,
    a_crowd_of_two,
    an_area_below_nothing,
    a_polygon([[1, 2, 3, 4, 5]], "a polygon [1, 2, 3, 4, 5]"),
    a_polygon([[1, 2, 3, 4]], "a polygon [1, 2, 3, 4]"),
    a_polygon([[1, 2, 3, 4, 5, 6, 7]], "a polygon [1, 2, 3, 4, 5, 6, ...]"),
    a_polygon([], "a polygon []"),
    a_polygon([5], "a polygon 5"),
    a_polygon("wxyz", "segmentation 'wxyz'"),
    a_polygon([[1, 2, 3, 4, 5, "6"]], "a polygon [1, 2, 3, 4, 5, '6']"),
    a_polygon([[1, 2, 3, 4, 5, float("nan")]], "a polygon [1, 2, 3, 4, 5, nan]"),
    a_polygon([[1, 2, 3, 4, 5, None]], "a polygon [1, 2, 3, 4, 5, None]"),
    a_polygon([[1, 2, 3, 4, 5, 1e12]], "a polygon [1, 2, 3, 4, 5, 1000000000000.0]"),
    a_polygon({"size": [6, 8], "counts": [3, 4]}, "a run-length code {'counts': [3, 4], 'size': [6, 8]}"),
    a_polygon({"size": [6, 8], "counts": [0, 50]}, "a run-length code"),
    a_polygon({"size": [6, 8], "counts": [60, -12]}, "a run-length code"),
    a_polygon({"size": [8, 6], "counts": [0, 48]}, "a run-length code"),
    a_polygon({"size": [6, 8]}, "a run-length code"),
    a_polygon({"size": [6, 8], "counts": ""}, "a run-length code"),
    a_polygon({"size": [6, 8], "counts": "o"}, "a run-length code"),
    a_polygon({"size": [6, 8], "counts": compressed(LINES) + "o"}, "a run-length code"),
    a_polygon({"size": [6, 8], "counts": "é"}, "a run-length code"),
    an_image("height", 0, "0; expected a whole number"),
    an_image("width", -8, "-8; expected a whole number"),
    an_image("width", 8.5, "8.5; expected a whole number"),
    an_image("id", "12", "'12'; expected a whole number"),
    an_image("file_name", "../a.jpg", "'../a.jpg'; expected a plain name"),
    an_image("file_name", "/etc/a.jpg", "'/etc/a.jpg'; expected a plain name"),
    an_image("file_name", "train2014/a.jpg", "'train2014/a.jpg'; expected a plain name"),
    an_image("file_name", "..\\a.jpg", "'..\\\\a.jpg'; expected a plain name"),
    an_image("file_name", ".a.jpg", "'.a.jpg'; expected a plain name"),
    an_image("file_name", "a,b.jpg", "'a,b.jpg'; expected a plain name"),
    an_image("file_name", "a.jpg\n", "'a.jpg\\n'; expected a plain name"),
    an_image("file_name", "a.gif", "'a.gif'; expected a plain name"),
    an_image("file_name", None, "None; expected a plain name"),
]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_spoilt_annotation_file_is_named_before_anything_is_written(
    spoil: Callable[[Data], str], split: str, root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if split == "val":  # the other file is whole, and read first
        write(root, "train", VAL)
    data = copy.deepcopy(TRAIN)
    told, path = spoil(data), root / "annotations" / f"instances_{split}2014.json"
    path.write_text(json.dumps(data))
    before = sorted(root.rglob("*"))
    assert main(command(root, out)) == 2
    message = line(capsys)
    assert f"{path}" in message
    assert told in message
    assert "unpack annotations_trainval2014.zip again" in message
    assert not out.exists()
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: b"",
        lambda whole: b"<html>not found</html>",
        lambda whole: whole.replace(b"two", b"\xff\xfe"),
        lambda whole: whole + b"}",
    ],
    ids=["half", "all but the last", "empty", "html", "bytes", "trailing"],
)
def test_a_file_that_is_no_whole_json_is_named(
    damage: Callable[[bytes], bytes], root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "annotations" / "instances_train2014.json"
    path.write_bytes(damage(path.read_bytes()))
    assert main(command(root, out)) == 2
    assert f"{path} cannot be read as JSON (" in line(capsys)
    assert not out.exists()


def test_a_name_in_both_splits_is_refused(root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, "val", TRAIN)
    assert main(command(root, out)) == 2
    assert f"8 names of photographs stand in both {root / 'annotations'}" in line(capsys)
    assert not out.exists()
