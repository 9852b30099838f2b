"""What a folder was made from: recorded, compared, and taken away."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.errors import DamagedError, MismatchError
from tag2mask.io import provenance
from tag2mask.io.cams import CAMs, write_cam
from tag2mask.io.records import write_run

LAST = provenance.LAST


def test_inputs_are_read_as_they_were_written(tmp_path: Path) -> None:
    inputs = {"a,b": 'cat;"dog", 5 bytes', "my cat": "untagged, no file", "ü\udcff": "no tags"}
    provenance.write_inputs(tmp_path, inputs)
    assert provenance.read_inputs(tmp_path) == inputs
    assert provenance.read_inputs(tmp_path / "none") is None
    (tmp_path / provenance.INPUTS_FILE).write_text("name\n")
    with pytest.raises(DamagedError, match="is damaged"):
        provenance.read_inputs(tmp_path)


def test_files_of_other_inputs_are_made_again(tmp_path: Path) -> None:
    now = {"a": "cat", "b": "dog", "c": "no tags"}
    assert provenance.redo(tmp_path, now, [], "masks") == (now, [], [])
    _, _, (unknown,) = provenance.redo(tmp_path, now, ["a"], "masks")
    assert unknown.startswith(f"1 masks in {tmp_path} do not say what they were made from")
    provenance.write_inputs(tmp_path, {"a": "cat", "b": "cat", "gone": "dog"})
    inputs, stale, messages = provenance.redo(tmp_path, now, ["a", "b", "c", "gone"], "masks")
    assert inputs == {"gone": "dog", **now}
    assert stale == ["b", "c"]
    assert [message.partition(f" masks in {tmp_path} ")[2] for message in messages] == [
        "had other inputs (b: cat, now dog): they are made again",
        "are not on the list, the first gone: they are kept",
    ]


def test_discard_keeps_what_no_stage_has_recorded(tmp_path: Path) -> None:
    ours = ("checkpoints/last.ckpt", "logs/a/metrics.csv", "report.html", "cams_evaluation.json", "masks/a.png")
    ours += (
        "masks/val_evaluation.json",
        "masks/val/a.png",
        "labels/a.png",
        "labels/steps/seed/a.png",
        "labels/rounds/0/a.png",
    )
    mine = ("report.txt", "labels/notes.txt", "drawn/a.png", "next/a.npz", "next/run.json")
    for name in (*ours, *mine):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for folder in ("masks", "masks/val", "labels"):
        write_run(tmp_path / folder, {"weights": "abc"})
    write_run(tmp_path / "next", {"model": {}})
    provenance.discard(tmp_path)
    assert all((tmp_path / name).is_file() for name in ours)  # no training has left its record
    write_run(tmp_path, {"model": {}})
    provenance.discard(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == set(mine)
    assert not (tmp_path / "masks").exists()


def test_a_training_is_new_unfinished_or_finished(tmp_path: Path) -> None:
    config, classes, inputs = {"root": Path("x"), "scales": (0.5, 1)}, ["cat", "dog"], {"a": "cat"}
    settings = (tmp_path, config, classes, inputs)
    assert provenance.training_state(*settings) == "new"
    write_run(tmp_path, config, classes=classes)
    assert provenance.training_state(*settings) == "new"  # it ended before its first checkpoint
    (tmp_path / LAST).parent.mkdir()
    (tmp_path / LAST).touch()
    assert provenance.training_state(*settings) == "unfinished"
    write_run(tmp_path, config, classes=classes, finished=True)
    assert provenance.training_state(*settings) == "finished"
    with pytest.raises(MismatchError, match=r"another configuration \(root: 'x', now 'y'\)"):
        provenance.training_state(tmp_path, config | {"root": "y"}, classes, inputs)
    assert provenance.training_state(tmp_path, {}, classes, inputs, overwrite=True) == "new"
    provenance.write_inputs(tmp_path, {})
    with pytest.raises(MismatchError, match="0 photographs, now 1"):
        provenance.training_state(*settings)


def test_the_first_difference_is_in_words() -> None:
    before = {"a": "cat", "b": "dog"}
    assert provenance.changed_input(before, dict(before)) is None
    assert (
        provenance.changed_input(before, {"a": "cat", "b": "cat"})
        == "1 of 2 photographs differ, the first b: dog, now cat"
    )
    assert provenance.changed_input(before, {"a": "cat", "c": "x"}) == (
        "2 photographs, now 2: 1 gone, the first b; 1 new, the first c"
    )
    assert provenance.changed_input(before, {"b": "dog", "a": "cat"}) == "the same photographs in another order"


def test_a_cam_file_is_known_by_its_content(tmp_path: Path) -> None:
    def write(name: str, value: float) -> str:
        cam = CAMs(torch.as_tensor(np.full((1, 4, 4), value)), torch.tensor([1]), (16, 16))
        write_cam(tmp_path / f"{name}.npz", cam)
        return provenance.of_cam(tmp_path / f"{name}.npz")

    assert write("a", 0.5) == write("b", 0.5)
    assert write("a", 0.5) != write("b", 0.25)
    (tmp_path / "a.npz").write_bytes(b"PK")
    assert provenance.of_cam(tmp_path / "a.npz") == "no whole CAM file"
