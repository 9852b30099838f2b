"""``run.json``: what it holds, and whether a folder was made with the same configuration."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tag2mask.errors import DamagedError, MismatchError
from tag2mask.io import records
from tag2mask.io.records import first_difference, made_with, record_of, same_run, write_run

CONFIG: dict[str, Any] = {"data": {"root": Path("x"), "scales": (0.5, 1.0)}, "seed": 0}


def test_a_folder_without_a_record_was_not_begun(tmp_path: Path) -> None:
    assert same_run(tmp_path, CONFIG) is False


def test_the_same_configuration_is_known_again(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG)
    assert same_run(tmp_path, CONFIG) is True


def test_the_order_of_settings_does_not_matter(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG)
    assert same_run(tmp_path, dict(reversed(CONFIG.items()))) is True


def test_another_configuration_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG)
    other = CONFIG | {"data": CONFIG["data"] | {"scales": (1.0,)}, "seed": 7}
    with pytest.raises(MismatchError, match=r"data\.scales: \[0\.5, 1\.0\], now \[1\.0\].*--overwrite"):
        same_run(tmp_path, other)


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG)
    assert same_run(tmp_path, {"other": 1}, overwrite=True) is False


@pytest.mark.parametrize("text", ["", '{"config": ', "\x00"])
def test_a_damaged_record_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DamagedError, match=r"run\.json"):
        same_run(tmp_path, CONFIG)


@pytest.mark.parametrize("text", ["[]", "{}", '{"config": 1}'])
def test_a_record_without_a_configuration_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    for read in (record_of, made_with, lambda folder: same_run(folder, CONFIG)):
        with pytest.raises(DamagedError, match=r"run\.json"):
            read(tmp_path)


def test_a_folder_is_known_by_the_digest_of_its_configuration(tmp_path: Path) -> None:
    assert made_with(tmp_path) is None
    write_run(tmp_path, CONFIG, seed=1)
    one = made_with(tmp_path)
    write_run(tmp_path, dict(reversed(CONFIG.items())), seed=2)
    assert made_with(tmp_path) == one
    write_run(tmp_path, CONFIG | {"seed": 1})
    assert made_with(tmp_path) != one


def test_a_record_says_what_ran(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, seed=3)
    record = json.loads((tmp_path / "run.json").read_text())
    assert {"config", "command", "commit", "versions", "time", "seed"} <= set(record)
    assert record["seed"] == 3
    assert record["versions"]["torch"]


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        ({"a": 1}, {"a": 2}, "a: 1, now 2"),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, "a.b.c: 1, now 2"),
        ({"a": 1, "b": 2}, {"a": 1}, "b: 2, now None"),
        ({}, {"new": "x"}, "new: None, now 'x'"),
        ({"a": {"b": 1}}, {"a": None}, "a: {'b': 1}, now None"),
        ([1], [2], "it: [1], now [2]"),
    ],
)
def test_first_difference_names_the_place(before: Any, now: Any, difference: str) -> None:
    assert first_difference(before, now) == difference


def test_the_commit_says_whether_any_file_of_the_package_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "src" / "package"
    (package / "io").mkdir(parents=True)
    for name in ("__init__.py", "io/records.py", "losses.py"):
        (package / name).write_text("")
    monkeypatch.setattr(records, "__file__", str(package / "io" / "records.py"))
    assert records.commit() == "unknown"
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    (tmp_path / "notes.txt").write_text("not of the package")
    assert len(records.commit()) == 40
    (package / "losses.py").write_text("changed = True")
    assert records.commit().endswith("+changes")


NO_RECORDS = ["1", "[]", "null", '{"config": 1}', '{"config": {"classes": 3}}', '{"config": {"classes": [3]}}']
NO_RECORDS += ['{"config": {"cams": 3}}', '{"config": {}, "checkpoint": 3}', '{"config": {"classes": {"a": 1}}}']


@pytest.mark.parametrize("text", NO_RECORDS)
def test_what_is_no_record_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DamagedError, match=r"run\.json is not the record of a run"):
        record_of(tmp_path)
