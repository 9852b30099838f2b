"""What a user gets to read: one line, and an exit status."""

import functools
import gc
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from PIL import Image

from tag2mask.cli import main as cli
from tag2mask.cli.main import main
from tag2mask.io.cams import CAMs, read_cam, write_cam
from tag2mask.io.labels import read_label, write_label
from tests.commands import SMALL_NET, line, words

CONFIG = "configs/demo/cam_plain.yaml"


def fit_words(root: Path, run: Path, **settings: str) -> list[str]:
    over = {
        "trainer__max_epochs": "1",
        "trainer__check_val_every_n_epoch": "1",
        "trainer__limit_train_batches": "1",
        "trainer__limit_val_batches": "1",
    }
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    return [*words("fit", CONFIG, root, run, **(over | settings)), *small]


@pytest.fixture
def own(sample: Path, tmp_path: Path) -> Path:
    """A copy of the sample set that a test may spoil."""
    return Path(shutil.copytree(sample, tmp_path / "own"))


@pytest.fixture(scope="module")
def run(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a trained network."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(fit_words(sample, folder)) == 0
    return folder


def test_help_lists_the_verbs_and_status_is_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in ("prepare", "fit", "predict", "evaluate", "report"))


def test_a_wrong_verb_names_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predikt"]) == 2
    assert "did you mean 'predict'?" in line(capsys)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("data.init_args.root", "/nowhere/at/all", "/nowhere/at/all"),
        ("data.init_args.train_split", "nosuch", "nosuch"),
        ("model.init_args.backbone.name", "resnet5", "resnet50"),
        ("model.init_args.backbone.weights", "/nowhere/weights.pth", "/nowhere/weights.pth"),
        ("ckpt_path", "/nowhere/last.ckpt", "/nowhere/last.ckpt"),
        ("data.init_args.subset", "0", "subset is 0"),
        ("trainer.devices", "0", "devices"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, told: str
) -> None:
    command = words("fit", "configs/voc/cam_lite0_plain.yaml", voc, tmp_path, trainer__logger="false")
    assert main([*command, f"--{option}", value]) == 2
    assert told in line(capsys)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: {class_path: tag2mask.tasks.cam.CAMTask, init_args: {tilse: null}}", "tilse"),
        ("model: {class_path: tag2mask.tasks.cam.CamTask}", "CamTask"),
        ("trainer: {max_epoch: 3}", "max_epoch"),
        ("trainer: [", "config.yaml"),
    ],
)
def test_a_wrong_configuration_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 2
    assert told in line(capsys)


def test_a_damaged_photograph_is_named_also_from_a_loader_process(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (own / "images").iterdir():
        path.write_bytes(path.read_bytes()[:2000])
    for workers in ("0", "1"):
        assert main(fit_words(own, tmp_path / f"run{workers}", data__init_args__num_workers=workers)) == 2
        message = line(capsys)
        assert "scene_00" in message
        assert "cannot be read as a photograph" in message


def test_grey_cmyk_and_thin_photographs_train_and_predict(own: Path, tmp_path: Path) -> None:
    paths = sorted((own / "images").iterdir())
    for path, mode in zip(paths, ("L", "CMYK", "L", "CMYK"), strict=False):
        Image.open(path).convert(mode).save(path)
    Image.new("RGB", (1, 90)).save(paths[8])  # in val.txt
    write_label(own / "masks" / f"{paths[8].stem}.png", np.zeros((90, 1), np.uint8))
    folder = tmp_path / "run"
    assert main(fit_words(own, folder, trainer__limit_train_batches="1.0", trainer__limit_val_batches="1.0")) == 0
    assert main(["predict", *fit_words(own, folder)[1:]]) == 0
    assert read_cam(folder / "cams" / f"{paths[8].stem}.npz").cam.shape[1:] == (23, 1)


def test_photographs_without_masks_or_lists_train_and_get_cams(own: Path, tmp_path: Path) -> None:
    shutil.rmtree(own / "masks")
    for name in ("train.txt", "val.txt", "classes.txt"):
        (own / name).unlink()
    assert main(fit_words(own, tmp_path)) == 0
    assert main(["predict", *fit_words(own, tmp_path, data__init_args__predict_split="all")[1:]]) == 0
    assert len(list((tmp_path / "cams").glob("*.npz"))) == 12


def test_a_mask_of_another_size_is_named(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (own / "masks").iterdir():
        write_label(path, np.zeros((7, 9), np.uint8))
    assert main(fit_words(own, tmp_path / "run")) == 2
    assert "9 x 7 pixels" in line(capsys)


def test_an_unknown_tag_names_the_near_class(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "tags.csv").write_text("name,tags\nscene_0000,crosss\n")
    assert main(fit_words(own, tmp_path / "run")) == 2
    assert "did you mean 'cross'" in line(capsys)


def test_a_checkpoint_that_is_cut_short_or_of_another_project_is_refused(
    sample: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (run / "checkpoints/last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    for name, told in (("cut.ckpt", "cannot be read as a checkpoint"), ("other.ckpt", "not a checkpoint of tag2mask")):
        assert main([*fit_words(sample, tmp_path / "new"), "--ckpt_path", str(tmp_path / name)]) == 2
        assert told in line(capsys)


def test_a_checkpoint_with_other_classes_is_refused(
    own: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, names, told in (
        ("predict", "cross\ndots\nring\nstripes\ntriangle\nsixth\n", "stripes, triangle, sixth (6)"),
        (
            "predict",
            "dots\ncross\nring\nstripes\ntriangle\n",
            "cross, dots, ring, stripes, ... (5), the data dots, cross",
        ),
        ("validate", "dots\ncross\nring\nstripes\ntriangle\n", "names and order must be the same"),
        ("fit", "dots\ncross\nring\nstripes\ntriangle\n", "names and order must be the same"),
    ):
        (own / "classes.txt").write_text(names)
        command = [verb, *fit_words(own, tmp_path / "new")[1:], "--ckpt_path", str(run / "checkpoints/last.ckpt")]
        assert main(command) == 2
        assert told in line(capsys)


def test_predict_without_a_trained_network_says_so(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *fit_words(sample, tmp_path)[1:]]) == 2
    assert "run `tag2mask fit`" in line(capsys)


def test_a_run_folder_that_cannot_be_written_is_one_line(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(fit_words(sample, tmp_path / "file" / "run")) == 2
    assert str(tmp_path / "file") in line(capsys)


def test_predictions_are_written_and_not_gathered_in_memory(
    own: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered: list[object] = []
    predict = Trainer.predict

    @functools.wraps(predict)
    def spy(*words: Any, **named: Any) -> None:
        gathered.append(predict(*words, **named))

    monkeypatch.setattr(Trainer, "predict", spy)
    command = ["predict", *fit_words(own, tmp_path)[1:], "--ckpt_path", str(run / "checkpoints/last.ckpt")]
    assert main(command) == 0
    assert gathered == [None]
    assert list((tmp_path / "cams").glob("*.npz"))


def test_predict_takes_tags_from_the_data_else_predicts_them_and_goes_on_where_it_stopped(
    own: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = (own / "tags.csv").read_text().splitlines()
    (own / "tags.csv").write_text("\n".join(tags[:-2]) + "\n")  # the last two photographs have none now
    folder = tmp_path / "new"
    command = ["predict", *fit_words(own, folder)[1:], "--ckpt_path", str(run / "checkpoints/last.ckpt")]
    assert main(command) == 0
    cams = sorted((folder / "cams").glob("*.npz"))
    assert [path.stem for path in cams] == (own / "val.txt").read_text().split()
    listed = (folder / "cams" / "predicted_tags.csv").read_text()
    assert [line.split(",")[0] for line in listed.splitlines()] == [line.split(",")[0] for line in tags[-2:]]
    tagged = read_cam(cams[0])
    assert len(tagged.classes) == len(tags[9].split(",")[1].split())
    assert tagged.cam.dtype == torch.float16
    assert 0 <= tagged.cam.min() <= tagged.cam.max() <= 1
    assert tuple(tagged.size) == read_label(own / "masks" / f"{cams[0].stem}.png").shape
    kept, again = cams[0].stat().st_mtime_ns, cams[1].read_bytes()
    cams[1].unlink()
    assert main(command) == 0
    assert cams[0].stat().st_mtime_ns == kept
    assert cams[1].read_bytes() == again
    capsys.readouterr()
    assert main([*command, "--model.init_args.inference.stride", "8"]) == 2
    assert "inference.stride: 4, now 8" in line(capsys)
    assert main([*command, "--model.init_args.inference.stride", "8", "--overwrite"]) == 0
    assert cams[1].read_bytes() != again


def test_evaluate_scores_cams_and_a_perfect_label_folder(
    sample: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *fit_words(sample, run)[1:]]) == 0
    listed = ["--masks", str(sample / "masks"), "--list", str(sample / "val.txt")]
    assert main(["evaluate", str(run / "cams"), *listed, "--mean-over", "cross,dots"]) == 0
    found = json.loads((run / "cams_evaluation.json").read_text())
    assert len(found["sweep"]) == 15
    assert found["images"] == 4
    assert set(found["best"]["iou"]) == {"background", "cross", "dots", "ring", "stripes", "triangle"}
    assert found["best"]["miou"] == max(row["miou"] for row in found["sweep"])
    given = ["--threshold", str(run / "cams_evaluation.json"), "--out", str(tmp_path / "fixed.json")]
    assert main(["evaluate", str(run / "cams"), *listed, *given]) == 0
    fixed = json.loads((tmp_path / "fixed.json").read_text())["fixed"]
    assert fixed["miou"] == pytest.approx(found["best"]["miou"])
    classes = ["--classes", str(sample / "classes.txt"), "--out", str(tmp_path / "labels.json")]
    assert main(["evaluate", str(sample / "masks"), *listed, *classes]) == 0
    perfect = json.loads((tmp_path / "labels.json").read_text())["best"]
    assert perfect["miou"] == 1
    assert perfect["mfdr"] == perfect["mfnr_foreground"] == 0
    assert main(["report", str(run.parent)]) == 0
    report = json.loads((run.parent / "report.json").read_text())["run"]
    assert {"cam_miou", "cam_mfdr", "cam_mfnr"} <= set(report)


@pytest.mark.parametrize("spoil", ["missing", "damaged", "size", "value", "empty list", "no folder"])
def test_evaluate_refuses_what_it_cannot_score(
    own: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: str
) -> None:
    names = (own / "val.txt").read_text().split()
    cams = tmp_path / "cams"
    for name in names:
        size = read_label(own / "masks" / f"{name}.png").shape
        write_cam(cams / f"{name}.npz", CAMs(torch.ones(1, 4, 4), torch.tensor([1]), size))
    path = cams / f"{names[1]}.npz"
    if spoil == "missing":
        path.unlink()
    elif spoil == "damaged":
        path.write_bytes(path.read_bytes()[:100])
    elif spoil == "size":
        write_cam(path, CAMs(torch.ones(1, 4, 4), torch.tensor([1]), (3, 5)))
    elif spoil == "value":
        size = read_label(own / "masks" / f"{names[1]}.png").shape
        write_cam(path, CAMs(torch.ones(1, 4, 4), torch.tensor([77]), size))
    elif spoil == "empty list":
        (own / "val.txt").write_text("\n")
    else:
        shutil.rmtree(cams)
    listed = ["--masks", str(own / "masks"), "--list", str(own / "val.txt"), "--classes", str(own / "classes.txt")]
    assert main(["evaluate", str(cams), *listed]) == 2
    message = line(capsys)
    assert (names[1] if spoil in ("missing", "damaged", "size", "value") else str(tmp_path)) in message
    assert not (tmp_path / "cams_evaluation.json").exists()


def test_masks_of_0_and_255_are_no_labels(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (own / "masks").iterdir():
        write_label(path, np.where(read_label(path) > 0, 255, 0))
    command = words("fit", "configs/demo/segmentation.yaml", own, tmp_path / "run")
    assert main([*command, "--data.init_args.labels", str(own / "masks")]) == 2
    assert "hold only 0 and 255" in line(capsys)
    assert not (tmp_path / "run").exists()


def test_masks_in_another_order_than_the_classes_stop_a_training_before_it_begins(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "classes.txt").write_text("triangle\nstripes\nring\ndots\ncross\n")
    for path in sorted((own / "masks").iterdir())[:-4]:
        path.unlink()  # those of val.txt are left
    assert main(fit_words(own, tmp_path / "run")) == 2
    assert "show a class that their photograph's tags lack" in line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_listed_name_without_a_mask_stops_a_training_before_it_begins(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (name, *_) = (own / "val.txt").read_text().split()
    (own / "masks" / f"{name}.png").unlink()
    assert main(fit_words(own, tmp_path / "run")) == 2
    assert f"{name} has no mask and cannot be scored" in line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], 0), (["--seed_everything", "3"], 3), (["--seed_everything", "3", "--data.init_args.seed", "5"], 5)],
)
def test_order_and_crops_follow_the_seed_unless_they_have_their_own(
    sample: Path, tmp_path: Path, given: list[str], expected: int
) -> None:
    assert main([*fit_words(sample, tmp_path, trainer__limit_val_batches="0"), *given]) == 0
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["data"]["init_args"]["seed"] == expected


def test_no_garbage_is_looked_for_while_a_verb_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    collecting: list[bool] = []

    def imported(name: str) -> None:
        collecting.append(gc.isenabled())
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(cli, "import_module", imported)
    with pytest.raises(ModuleNotFoundError):
        cli._loaded("tag2mask.cli.nothing")
    assert collecting == [False]
    assert gc.isenabled()
