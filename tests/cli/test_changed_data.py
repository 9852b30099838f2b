"""What every verb says and does when data, labels, CAM files or settings have changed since."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.cli.main import main
from tag2mask.errors import MismatchError, MissingError
from tag2mask.io import provenance
from tag2mask.io.cams import read_cam
from tag2mask.io.files import read_json, write_json
from tag2mask.io.labels import read_label, write_label
from tests.commands import SMALL_NET, fault, line, words

pytestmark = pytest.mark.slow

LAST = Path("checkpoints/last.ckpt")
SMALL = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]


CONFIGS = Path("configs/demo").resolve()
SCORED = ["--masks", "data/masks", "--list", "data/train.txt"]


def fit(run: Path | str = "run", config: str = "cam_plain", **settings: str) -> list[str]:
    over = {"trainer__max_epochs": "1", "trainer__limit_val_batches": "0", "checkpoint__every_n_train_steps": "2"}
    return [*words("fit", CONFIGS / f"{config}.yaml", ROOT, Path(run), **(over | settings)), *SMALL]


def fit_on(labels: str, run: str = "seg") -> list[str]:
    return fit(run, "segmentation", data__init_args__labels=labels)


def predict() -> list[str]:
    return ["predict", *fit(data__init_args__predict_split="train")[1:]]


def labels(*more: str, cams: str = "run/cams", seed: str = "{}") -> list[str]:
    recipe = f"{{class_path: PseudoLabels, init_args: {{crf: null, seed: {seed}}}}}"
    return ["labels", "--recipe", recipe, "--cams", cams, "--out", "run/labels", *more]


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes and the moment when it was written."""
    return {
        str(path.relative_to(folder)): path.read_bytes() + str(path.stat().st_mtime_ns).encode()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def swap_tags(name: str = "scene_0003") -> None:
    """Tag one photograph otherwise."""
    lines = (ROOT / "tags.csv").read_text().splitlines()
    lines = [f"{name},stripes" if row.startswith(f"{name},") and row != f"{name},stripes" else row for row in lines]
    (ROOT / "tags.csv").write_text("\n".join([*lines, ""]))


def change_cams() -> None:
    """Let the record of the CAM files say that they were made from other inputs, as if they had been made anew."""
    inputs = provenance.read_inputs(RUN / "cams")
    assert inputs is not None
    provenance.write_inputs(RUN / "cams", inputs | {"scene_0003": "stripes, 5 bytes"})


@contextmanager
def within(folder: Path) -> Iterator[None]:
    """Work in a folder: records hold the paths that were given, so that relative ones let a run be copied."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


ROOT, RUN = Path("data"), Path("run")


@pytest.fixture(scope="module")
def trained(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample set ``data`` and a run ``run`` on it, with CAMs of its training photographs, labels and scores."""
    folder = tmp_path_factory.mktemp("trained")
    with within(folder):
        shutil.copytree(sample, ROOT)
        assert main(fit()) == 0
        assert main(predict()) == 0
        assert main(labels()) == 0
        assert main(["evaluate", "run/cams", "run/labels", *SCORED]) == 0
    return folder


@pytest.fixture
def spoilt(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of `trained`, to work in and to spoil."""
    shutil.copytree(trained, tmp_path / "copy")
    with within(tmp_path / "copy"):
        yield tmp_path / "copy"


def test_a_finished_run_is_left_untouched_byte_for_byte(spoilt: Path, caplog: pytest.LogCaptureFixture) -> None:
    """4 steps with a checkpoint every 2: the last step is a multiple, whose checkpoint was written twice."""
    before = content(RUN)
    for more in ([], ["--ckpt_path", "last"]):
        caplog.clear()
        assert main([*fit(), *more]) == 0
        assert content(RUN) == before
        assert "nothing to do" in caplog.text


def take_another_photograph() -> None:
    shutil.copy(ROOT / "images/scene_0001.jpg", ROOT / "images/scene_0002.jpg")


def list_two_photographs() -> None:
    (ROOT / "train.txt").write_text("scene_0000\nscene_0001\n")


def list_in_another_order() -> None:
    (ROOT / "train.txt").write_text("".join(f"scene_000{i}\n" for i in range(7, -1, -1)))


def name_classes_in_another_order() -> None:
    (ROOT / "classes.txt").write_text("dots\ncross\nring\nstripes\ntriangle\n")


@pytest.mark.parametrize(
    ("change", "difference", "finished"),
    [
        (swap_tags, "1 of 8 photographs differ, the first scene_0003: ", True),
        (swap_tags, "1 of 8 photographs differ, the first scene_0003: ", False),
        (list_two_photographs, "8 photographs, now 2: 6 gone", True),
        (take_another_photograph, "the first scene_0002: ", True),
        (name_classes_in_another_order, "other classes (cross, dots, ", True),
        (list_in_another_order, "the same photographs in another order", False),
    ],
)
def test_other_data_stops_a_training_and_nothing_is_written(
    spoilt: Path, change: Callable[[], None], difference: str, finished: bool
) -> None:
    write_json(RUN / "run.json", {**read_json(RUN / "run.json"), "finished": finished})
    before = content(RUN)
    change()
    error = fault(fit())
    assert isinstance(error, MismatchError)
    assert difference in str(error)
    assert "--overwrite" in str(error)
    assert content(RUN) == before


def test_other_labels_in_the_same_files_stop_a_training(spoilt: Path) -> None:
    """True masks, which no record accompanies."""
    assert main(fit_on("data/masks")) == 0
    assert main(fit_on("data/masks")) == 0
    label = read_label(ROOT / "masks/scene_0004.png")
    write_label(ROOT / "masks/scene_0004.png", np.where(label == 0, 0, 1))
    assert "the first scene_0004: label " in str(fault(fit_on("data/masks")))


def test_changed_masks_of_validation_are_named_but_stop_nothing(spoilt: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = content(RUN)
    (name, *_) = (ROOT / "val.txt").read_text().split()
    path = ROOT / "masks" / f"{name}.png"
    write_label(path, np.zeros_like(read_label(path)))
    assert main(fit()) == 0
    assert "masks of the validation split have changed" in caplog.text
    assert content(RUN) == before


def test_corrected_tags_make_their_cams_and_labels_again_and_no_others(
    spoilt: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = content(RUN / "cams")
    swap_tags()
    assert main(predict()) == 0
    assert "1 CAM files" in caplog.text
    assert "scene_0003: " in caplog.text
    assert read_cam(RUN / "cams/scene_0003.npz").classes.tolist() == [4]
    after = content(RUN / "cams")
    assert {name for name in before if name.endswith(".npz") and before[name] != after[name]} == {"scene_0003.npz"}
    before = content(RUN / "labels")
    assert main(labels()) == 0
    assert "1 labels were made from other CAM files than now, the first scene_0003" in capsys.readouterr().out
    after = content(RUN / "labels")
    assert {name for name in before if name.endswith(".png") and before[name] != after[name]} == {"scene_0003.png"}


def test_overwrite_discards_all_that_came_of_the_old_network(spoilt: Path) -> None:
    (RUN / "notes.txt").write_text("mine")
    (RUN / "pictures").mkdir()
    (RUN / "pictures/old.png").write_text("")
    assert main(["report", "run"]) == 0
    assert main([*fit(model__init_args__optimizer__lr="0.02"), "--overwrite"]) == 0
    left = {path.name for path in RUN.iterdir()}
    assert left == {"checkpoints", "config.yaml", "inputs.csv", "logs", "notes.txt", "run.json"}
    assert [path.name for path in (RUN / "logs").iterdir()] == ["version_0"]
    assert main(labels()) == 2  # no CAM files


@pytest.mark.parametrize(
    "words",
    [
        ["--model.init_args.backbone", "{name: resnet18, weights: /nowhere/weights.pth}"],
        ["--data.init_args.root", "nowhere"],
        ["--ckpt_path", "last"],
    ],
)
def test_an_overwrite_that_cannot_begin_keeps_what_is_there(spoilt: Path, words: list[str]) -> None:
    before = content(RUN)
    assert main([*fit(), "--overwrite", *words]) == 2
    assert content(RUN) == before


def test_a_folder_that_no_training_has_recorded_is_not_cleaned(spoilt: Path) -> None:
    for name in ("logs", "pictures", "cams"):
        (spoilt / "mine" / name).mkdir(parents=True)
        (spoilt / "mine" / name / "mine.npz").write_text("mine")
    assert main([*fit("mine"), "--overwrite"]) == 0
    assert all((spoilt / "mine" / name / "mine.npz").is_file() for name in ("logs", "pictures", "cams"))


def test_cams_elsewhere_of_an_earlier_network_are_refused(spoilt: Path) -> None:
    shutil.move(RUN / "cams", "elsewhere")
    write_json(RUN / "run.json", {**read_json(RUN / "run.json"), "weights": "of the next network"})
    error = fault(labels(cams="elsewhere"))
    assert isinstance(error, MismatchError)
    assert "elsewhere is out of date: it was made with an earlier network than the one that run holds now" in str(error)


def test_labels_of_cams_that_have_changed_are_not_trained_on(spoilt: Path) -> None:
    assert provenance.outdated(RUN / "labels") is None
    swap_tags()
    assert main(predict()) == 0
    error = fault(fit_on("run/labels"))
    assert isinstance(error, MismatchError)
    assert "run/labels is out of date: it was made from other CAM files than run/cams holds now" in str(error)
    assert main(labels()) == 0
    assert provenance.outdated(RUN / "labels") is None


def test_labels_are_out_of_date_with_their_cams(spoilt: Path) -> None:
    write_json(RUN / "run.json", {**read_json(RUN / "run.json"), "weights": "of the next network"})
    reason = provenance.outdated(RUN / "labels")
    assert reason is not None
    assert reason.startswith("its CAM files in run/cams are out of date too: it was made with an earlier network")
    shutil.rmtree(RUN / "cams")
    assert provenance.outdated(RUN / "labels") is None  # nothing is left to compare with


def test_labels_of_other_classes_are_not_trained_on(spoilt: Path) -> None:
    name_classes_in_another_order()
    error = fault(fit_on("run/labels"))
    assert "the classes cross, dots, ring, stripes, ... (5), the data has dots, cross" in str(error)


def test_cams_of_other_classes_make_no_labels(spoilt: Path) -> None:
    name_classes_in_another_order()
    assert "run/cams was made for the classes cross, dots, " in str(fault(labels("--photos", "data")))


def test_scores_of_outdated_labels_come_with_a_warning(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_cams()
    assert main(["evaluate", "run/labels", *SCORED]) == 0
    assert "run/labels is out of date: it was made from other CAM files" in capsys.readouterr().err


def test_evaluate_refuses_classes_that_are_not_those_of_the_folder(spoilt: Path) -> None:
    name_classes_in_another_order()
    error = fault(["evaluate", "run/cams", *SCORED, "--classes", "data/classes.txt"])
    assert "a mask value would stand for another class" in str(error)


def test_the_report_leaves_out_scores_of_files_that_were_made_anew(
    spoilt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "run"]) == 0
    assert "run: CAM" in capsys.readouterr().out
    change_cams()
    assert main(["report", "run"]) == 0
    printed = capsys.readouterr().out
    assert "run: CAM" not in printed
    assert "note: the scores of run/cams are of files that have been made anew since" in printed
    assert "labels is out of date: it was made from other CAM files than" in printed
    assert "made anew since" in (RUN / "report.html").read_text()
    assert "made anew since" in (RUN / "report.md").read_text()


def test_a_longer_training_goes_on_at_the_rate_of_its_length(spoilt: Path) -> None:
    """3 epochs after 1: from step 5 on the rates are those of an unbroken run of 3, and 12 steps are made, not 13."""
    longer = {"trainer__max_epochs": "3", "trainer__log_every_n_steps": "1"}
    assert "--ckpt_path last" in str(fault(fit(**longer)))
    assert main([*fit(**longer), "--ckpt_path", "last"]) == 0
    assert main(fit("unbroken", **longer)) == 0
    ours, unbroken = learning_rates(RUN), learning_rates(spoilt / "unbroken")
    assert len(unbroken) == 12
    assert ours == pytest.approx(unbroken[4:])
    record = read_json(RUN / "run.json")
    assert (record["steps"], record["finished"]) == (12, True)
    assert len(record["changes"]) == 1
    assert record["changes"][0].startswith("went on after 4 steps from another configuration (trainer.")
    before = content(RUN)
    assert main(fit(**longer)) == 0
    assert content(RUN) == before


def learning_rates(run: Path) -> list[float]:
    """The rate of the new layers at each step that the last training of a run has logged."""
    path = sorted(run.glob("logs/*/metrics.csv"))[-1]
    head, *rows = (row.split(",") for row in path.read_text().splitlines())
    column = next(i for i, name in enumerate(head) if name.startswith("lr") and name.endswith("new"))
    return [float(row[column]) for row in rows if row[column]]


def test_settings_of_the_optimiser_are_those_given_now_not_the_checkpoints(spoilt: Path) -> None:
    optimizer = "{lr: 0.003, momentum: 0.5, weight_decay: 0.01}"
    more = {"trainer__max_epochs": "2", "model__init_args__optimizer": optimizer}
    assert main([*fit(**more), "--ckpt_path", "last"]) == 0
    group = torch.load(RUN / LAST, weights_only=True)["optimizer_states"][0]["param_groups"][0]
    assert (group["initial_lr"], group["momentum"], group["weight_decay"]) == (0.003, 0.5, 0.01)


def test_the_newest_checkpoint_of_slurm_is_gone_on_with(spoilt: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main([*fit("other"), "--ckpt_path", "hpc"]) == 0  # none is there: the training begins
    for number in (2, 10):
        shutil.copy(RUN / LAST, RUN / f"hpc_ckpt_{number}.ckpt")
    caplog.set_level("INFO")
    assert main([*fit(trainer__max_epochs="2"), "--ckpt_path", "hpc"]) == 0
    assert f"going on with {RUN / 'hpc_ckpt_10.ckpt'}" in caplog.text


def test_the_best_checkpoint_is_not_asked_for(spoilt: Path) -> None:
    assert "no score chooses a checkpoint here" in str(fault([*fit(), "--ckpt_path", "best"]))


def test_a_finished_run_without_its_checkpoint_is_not_begun_anew(spoilt: Path) -> None:
    (RUN / LAST).unlink()
    error = fault(fit())
    assert isinstance(error, MissingError)
    assert "last.ckpt is gone" in str(error)
    assert (RUN / "cams").is_dir()


def test_vanished_tags_are_counted_by_class_and_shown(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    high = labels(seed="{threshold: 0.9999}")
    assert main([*high, "--overwrite"]) == 0
    last_line = line(capsys)
    record = read_json(RUN / "labels/run.json")
    tags = [read_cam(path).classes.tolist() for path in sorted((RUN / "cams").glob("*.npz"))]
    assert sum(record["vanished"].values()) == sum(map(len, tags))
    assert record["empty"] == record["lacking"] == 8
    assert "in 8 of 8 labels a tag has no pixel" in last_line
    assert "8 of them have no class at all" in last_line
    assert main(high) == 0  # kept labels count too
    assert "in 8 of 8 labels" in line(capsys)
    assert main(["report", "run"]) == 0
    assert "in 8 of 8 labels a tag has no pixel" in (RUN / "report.html").read_text()
