"""What `tag2mask report` gathers, prints and writes as JSON and Markdown."""

import json
from pathlib import Path
from typing import Any

import pytest

from tag2mask.cli.main import main
from tag2mask.errors import DamagedError, InputError, MissingError, SettingError
from tag2mask.io.files import atomic, write_json
from tag2mask.io.records import write_run
from tag2mask.report.logs import read_log
from tag2mask.report.page import scores as written
from tag2mask.report.runs import read_runs
from tag2mask.report.summary import Summary
from tests.commands import fault

CAM = {"miou": 0.5, "mfdr": 0.25, "mfnr": 0.125, "threshold": 0.3}


def scores(number: float) -> dict[str, float]:
    return {"miou": number, "mfdr": number / 2, "mfnr": number / 4}


MASKS = "data/VOC2012/SegmentationClassAug"


def gathered(folder: Path) -> dict[str, dict[str, Any]]:
    return Summary(read_runs(folder)).json()


def network(run: Path, number: float, labels: str | None = None, made_with: str | None = None, **more: Any) -> None:
    """Write a scored segmentation network, whose record has ``made_with`` where tag2mask made its labels."""
    write_json(run / "masks_evaluation.json", {"images": 4, "best": scores(number), **more})
    made = {} if made_with is None else {"labels_made_with": made_with}
    write_run(run, {"data": {"init_args": {"labels": labels}}, **made})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_json(tmp_path / "plain" / "cams_evaluation.json", {"images": 4, "best": CAM})
    fixed = {"images": 4, "best": CAM, "fixed": CAM | {"miou": 0.4}}
    write_json(tmp_path / "full" / "cams_evaluation.json", fixed)
    return tmp_path


@pytest.fixture
def steps(runs: Path) -> dict[str, dict[str, float]]:
    """Scores of the labels of ``full``, step by step."""
    found = {"seed": scores(0.5), "walk": scores(0.6), "crf": scores(0.7)}
    write_json(runs / "full" / "labels_evaluation.json", {"images": 4, "best": scores(0.7), "steps": found})
    return found


def test_each_run_has_its_cams_at_the_given_threshold_where_there_is_one(runs: Path) -> None:
    assert main(["report", str(runs)]) == 0
    report = json.loads((runs / "report.json").read_text())
    assert report["plain"]["cam_miou"] == 0.5
    assert report["plain"]["threshold_chosen"] == "on the scored images"
    assert report["full"]["cam_miou"] == 0.4
    assert report["full"]["threshold_chosen"] == "on other images"
    assert "labels" not in report
    assert "segmentation" not in report


def test_labels_and_the_steps_to_them_are_reported(
    runs: Path, steps: dict[str, dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_further_labels_are_kept_beside_the_best(runs: Path, steps: dict[str, dict[str, float]]) -> None:
    write_json(runs / "plain" / "labels_evaluation.json", {"images": 4, "best": scores(0.6)})
    labels = gathered(runs)["labels"]
    assert labels["run"] == "full"
    assert labels["others"]["plain"]["labels_miou"] == 0.6


@pytest.mark.parametrize(
    ("name", "labels", "reason"),
    [
        ("deeplab_full", MASKS, "its labels are SegmentationClassAug"),
        ("upper", "data/sample/masks", "its labels are masks"),
        ("upper", "data/coco/masks/train2014", "its labels are masks/train2014"),
    ],
)
def test_the_ratio_is_to_the_network_trained_on_true_masks(runs: Path, name: str, labels: str, reason: str) -> None:
    network(runs / "deeplab", 0.6, "runs/demo/full/labels", made_with="abc")
    network(runs / name, 0.8, labels, made_with="painted" if "2014" in labels else None)
    found = gathered(runs)["segmentation"]
    assert found["run"] == "deeplab"
    assert found["trained_on"] == "pseudo-labels"
    assert found["ratio"] == pytest.approx(0.75)
    assert found["full"]["segmentation_miou"] == 0.8
    assert found["full"]["trained_on"] == f"true masks: {reason}"


@pytest.mark.parametrize(
    ("labels", "made_with"),
    [("runs/x/labels", "abc"), ("runs/x/masks", "abc"), ("elsewhere/labels", None), (None, None)],
)
def test_a_name_alone_makes_no_upper_bound(runs: Path, labels: str | None, made_with: str | None) -> None:
    network(runs / "deeplab", 0.8, "runs/demo/full/labels", made_with="abc")
    network(runs / "deeplab_full", 0.6, labels, made_with)
    found = gathered(runs)["segmentation"]
    assert found["ratio_missing"] == "no scored segmentation network trained on true masks"
    assert found["others"]["deeplab_full"]["trained_on"] == "pseudo-labels"


def test_the_twin_on_true_masks_is_the_upper_bound_before_a_better_one(runs: Path) -> None:
    for name, number, labels in (("net", 0.6, "x/labels"), ("net_full", 0.8, MASKS), ("other", 0.9, MASKS)):
        network(runs / name, number, labels)
    assert gathered(runs)["segmentation"]["full"]["run"] == "net_full"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"images": 9}, "scored on different images (4 and 9)"),
        ({"images_digest": "b"}, "scored on different images (4 and 4)"),
        ({"config": {"masks": "a/other"}}, "scored on different images (4 and 4)"),
    ],
)
def test_there_is_no_ratio_over_different_images(runs: Path, more: dict[str, Any], why: str) -> None:
    network(runs / "deeplab", 0.6, images_digest="a", config={"masks": "a/masks"})
    network(runs / "deeplab_full", 0.8, MASKS, **{"images_digest": "a", "config": {"masks": "b/masks"}} | more)
    found = gathered(runs)["segmentation"]
    assert found["ratio"] is None
    assert found["ratio_missing"] == why


def test_the_chain_goes_back_from_the_network_to_the_labels_it_learnt_from(
    runs: Path, steps: dict[str, dict[str, float]]
) -> None:
    write_json(runs / "plain" / "labels_evaluation.json", {"images": 4, "best": scores(0.1)})
    network(runs / "deeplab", 0.6, "elsewhere/plain/labels")
    found = Summary(read_runs(runs)).chain
    assert (found["labels"].run.name, found["cams"].run.name) == ("plain", "plain")


def test_masks_in_a_folder_of_a_split_count_as_the_masks(runs: Path) -> None:
    write_json(runs / "deeplab" / "masks" / "val_evaluation.json", {"images": 4, "best": scores(0.6)})
    write_run(runs / "deeplab", {})
    assert gathered(runs)["segmentation"]["segmentation_miou"] == 0.6


def test_the_folder_may_be_one_run(runs: Path, steps: dict[str, dict[str, float]]) -> None:
    found = gathered(runs / "full")
    assert found["full"]["cam_miou"] == 0.4
    assert found["labels"]["run"] == "full"
    assert "plain" not in found


def test_markdown_holds_the_numbers_of_the_json(runs: Path, steps: dict[str, dict[str, float]]) -> None:
    network(runs / "deeplab", 0.6)
    network(runs / "deeplab_full", 0.8, MASKS)
    assert main(["report", str(runs)]) == 0
    report = json.loads((runs / "report.json").read_text())
    text = (runs / "report.md").read_text()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("|")]
    rows = {(run, stage): numbers[:3] for run, stage, *numbers in cells[2:]}
    expected = {
        ("full", "CAM"): [report["full"][f"cam_{key}"] for key in ("miou", "mfdr", "mfnr")],
        ("plain", "CAM"): [report["plain"][f"cam_{key}"] for key in ("miou", "mfdr", "mfnr")],
        **{("full", step): list(score.values()) for step, score in report["labels"]["steps"].items()},
        ("deeplab", "segmentation"): list(scores(0.6).values()),
        (r"deeplab\_full", "segmentation, true masks"): list(scores(0.8).values()),
    }
    assert rows == {key: [f"{100 * value:.1f}" for value in values] for key, values in expected.items()}
    assert "Weak / full supervision: 75.0 %." in text


def test_markdown_says_what_is_missing_and_escapes_names(runs: Path) -> None:
    write_json(runs / "a|b <i>*" / "cams_evaluation.json", {"images": 4, "best": CAM | {"miou": None}})
    text = written(Summary(read_runs(runs)), "md")
    assert r"| a\|b \<i\>\* | CAM | - | 25.0 |" in text
    assert "No scores of the stage labels" in text
    assert "No scores of the stage segmentation" in text


def test_a_folder_without_scores_is_refused(tmp_path: Path) -> None:
    error = fault(["report", str(tmp_path)])
    assert isinstance(error, MissingError)
    assert str(tmp_path) in str(error)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("{", "JSON"),
        ("[]", "as an evaluation"),
        ('{"images": 4}', "'best' is missing"),
        ('{"images": 4, "best": {"miou": "much", "mfdr": 0, "mfnr": 0}}', "'much'"),
        ('{"images": 4, "best": {"miou": 1, "mfdr": 0, "mfnr": 0}, "steps": 3}', "as an evaluation"),
    ],
)
def test_a_damaged_evaluation_is_named_and_leaves_the_old_report(runs: Path, content: str, fact: str) -> None:
    assert main(["report", str(runs)]) == 0
    before = {path.name: path.read_bytes() for path in runs.glob("report.*")}
    path = runs / "plain" / "cams_evaluation.json"
    path.write_text(content)
    error = fault(["report", str(runs)])
    assert isinstance(error, InputError)
    assert str(path) in str(error)
    assert fact in str(error)
    assert "\n" not in str(error)
    assert {path.name: path.read_bytes() for path in runs.glob("report.*")} == before
    assert len(before) == 3


def test_a_run_may_not_be_called_like_a_key_of_the_report(runs: Path) -> None:
    (runs / "plain").rename(runs / "labels")
    error = fault(["report", str(runs)])
    assert isinstance(error, SettingError)
    assert "'labels'" in str(error)


def log(run: Path, version: int, text: str) -> None:
    with atomic(run / "logs" / f"version_{version}" / "metrics.csv") as file:
        file.write(text.encode())


def test_logs_of_a_resumed_run_are_joined_by_iteration(tmp_path: Path) -> None:
    log(tmp_path, 2, "step,train/loss\n4,0.4\n6,0.3\n")
    log(tmp_path, 10, "step,train/loss,val/cam_miou\n6,0.25,\n6,,0.5\n")  # version 10 comes after 2
    log(tmp_path, 0, "step,train/loss\n0,1\n2,0.9\n4,0.8\n5,0.7\n")  # 5 was done again from the checkpoint at 4
    log(tmp_path, 3, "")
    found = read_log(tmp_path)
    assert found.series == {"train/loss": [(0, 1.0), (2, 0.9), (4, 0.4), (6, 0.25)], "val/cam_miou": [(6, 0.5)]}
    assert found.parts == 3


def test_a_cut_last_line_and_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    log(tmp_path, 0, "step,train/loss\n0,1\n1,nan\n2,inf\n3,0.5\n4,0.")
    found = read_log(tmp_path)
    assert found.series == {"train/loss": [(0, 1.0), (3, 0.5)]}
    assert found.dropped == 2


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("step,train/loss\n0,1\nx,2\n", "line 3"),
        ("step,train/loss\n0,1,2\n", "line 2"),
        ("step,train/loss\n,1\n", "line 2"),
        ("a,b\n0,1\n", "column step"),
        ("step,train/loss\n0,\x00\n", "line 2"),
    ],
)
def test_a_damaged_log_is_named_and_leaves_the_old_report(runs: Path, text: str, fact: str) -> None:
    assert main(["report", str(runs)]) == 0
    before = (runs / "report.html").read_bytes()
    log(runs / "plain", 0, text)
    error = fault(["report", str(runs)])
    assert isinstance(error, DamagedError)
    assert str(runs / "plain" / "logs" / "version_0" / "metrics.csv") in str(error)
    assert fact in str(error)
    assert "\n" not in str(error)
    assert (runs / "report.html").read_bytes() == before
