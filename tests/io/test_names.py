"""Names that a file gives are plain: nothing lands outside a folder, and no terminal is written to by a name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tag2mask import classes
from tag2mask.data import coco, folder, voc
from tag2mask.data.prepare.instances import read_scenes
from tag2mask.errors import DamagedError
from tag2mask.io.folders import read_classes, read_list
from tag2mask.io.names import file_in
from tag2mask.io.records import record_of, write_run
from tag2mask.utils.progress import LONGEST, shown

EVIL = {
    "a folder": ["../JPEGImages/a", "/etc/passwd", "a/b", "..", "."],
    "a control character": ["a\0b", "a\x1b[31mred", "a\x07", "a\x85b", "a\u2028b", "a\x0cb", "a\x1cb"],
    "5,000 characters": ["a" * 5000],
}


def of_list(path: Path, name: str) -> Any:
    path.write_text(f"cat_01\n{name}\r\n", newline="")
    return read_list(path)


def of_voc(path: Path, name: str) -> Any:
    path.write_text(f"cat_01  1\n{name} -1\n", newline="")
    return voc.read_ids(path)


def of_tags(path: Path, name: str) -> Any:
    path.write_text(f"name,tags\ncat_01,cat\n{name},cat\n", newline="")
    return folder.read_tags(path)


def of_table(path: Path, name: str) -> Any:
    path.write_text(f"{coco.HEADER}\n{name},cat,3,5,x\n", newline="")
    return coco.read_table(path)


def of_classes(path: Path, name: str) -> Any:
    path.write_text(f"cat\n{name}\n", newline="")
    return read_classes(path)


def of_tag(path: Path, name: str) -> Any:
    path.write_text(f"name,tags\ncat_01,cat;{name}\n", newline="")
    return folder.read_tags(path)


def of_record(path: Path, name: str) -> Any:
    write_run(path, {"classes": ["cat", name]})
    return record_of(path)


FILES, CLASSES = (of_list, of_voc, of_tags, of_table), (of_classes, of_tag, of_record)
CASES = [
    (read, fault, name)
    for fault, names in EVIL.items()
    for name in names
    for read in (FILES if fault == "a folder" else FILES + CLASSES)
]


@pytest.mark.parametrize(("read", "fault", "name"), CASES)
def test_a_name_that_is_not_plain_is_refused(
    read: Callable[[Path, str], Any], fault: str, name: str, tmp_path: Path
) -> None:
    expected = "line 2" if read is of_table else f"a name with {fault.split(',')[0]}"
    with pytest.raises(DamagedError, match=rf"f\.txt.*{expected}"):
        read(tmp_path / "f.txt", name)


@pytest.mark.parametrize("read", [of_list, of_voc, of_tags, of_classes])
@pytest.mark.parametrize("name", ["img 12", "für_Æ", "カタ", "a..b", ".hidden", "für Æ", "1.5", "👩\u200d🚀"])
def test_plain_names_are_read(read: Callable[[Path, str], Any], name: str, tmp_path: Path) -> None:
    assert name.split(".")[0] in "".join(read(tmp_path / "f.txt", name))


def test_a_name_in_coco_json_is_not_longer_than_files_may_be(tmp_path: Path) -> None:
    categories = [{"id": value, "name": name} for value, name in enumerate(classes.COCO) if value]
    image = {"id": 1, "file_name": f"{'a' * 300}.jpg", "height": 3, "width": 5}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"categories": categories, "images": [image], "annotations": [{}]}))
    with pytest.raises(DamagedError, match=r"images\[0\]: a name with 300 characters"):
        read_scenes(path)


def test_a_name_is_checked_where_a_file_is_written(tmp_path: Path) -> None:
    assert file_in(tmp_path, "a", ".png") == tmp_path / "a.png"
    with pytest.raises(DamagedError, match="a name with a folder"):
        file_in(tmp_path, "../a", ".png")


def test_a_message_colours_no_terminal_and_fills_none() -> None:
    assert shown("\x1b[31mred\0") == r"\x1b[31mred\x00"
    assert len(shown("a" * 100_000)) < LONGEST + 10
