"""What `tag2mask report` gathers and prints."""

import json
from pathlib import Path

import pytest

from tag2mask import files
from tag2mask.cli import main

CAM = {"miou": 0.5, "mfdr": 0.25, "mfnr": 0.125, "threshold": 0.3}


def scores(number: float) -> dict[str, float]:
    return {"miou": number, "mfdr": number / 2, "mfnr": number / 4}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    files.write_json(tmp_path / "plain" / "cams_evaluation.json", {"images": 4, "best": CAM})
    fixed = {"images": 4, "best": CAM, "fixed": CAM | {"miou": 0.4}}
    files.write_json(tmp_path / "full" / "cams_evaluation.json", fixed)
    return tmp_path


def test_each_run_has_its_cams_at_the_given_threshold_where_there_is_one(runs: Path) -> None:
    assert main(["report", str(runs)]) == 0
    report = json.loads((runs / "report.json").read_text())
    assert report["plain"]["cam_miou"] == 0.5
    assert report["plain"]["threshold_chosen"] == "on the scored images"
    assert report["full"]["cam_miou"] == 0.4
    assert "labels" not in report


def test_labels_and_the_steps_to_them_are_reported(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = {"seed": scores(0.5), "walk": scores(0.6), "crf": scores(0.7)}
    files.write_json(runs / "full" / "labels_evaluation.json", {"images": 4, "best": scores(0.7), "steps": steps})
    assert main(["report", str(runs)]) == 0
    labels = json.loads((runs / "report.json").read_text())["labels"]
    assert labels == {
        "labels_miou": 0.7,
        "labels_mfdr": 0.35,
        "labels_mfnr": 0.175,
        "run": "full",
        "images": 4,
        "steps": steps,
    }
    table = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert table[2] == ["plain:", "CAM", "50.0", "25.0", "12.5", "0.30"]
    assert table[5] == ["full:", "crf", "70.0", "35.0", "17.5"]


def test_a_folder_without_scores_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "run `tag2mask evaluate` first" in capsys.readouterr().err
