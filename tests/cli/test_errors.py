"""How a command ends: which errors are the user's to mend, Ctrl-C, a reader that has gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tag2mask.cli import main as cli
from tag2mask.cli.main import main
from tag2mask.errors import InputError
from tag2mask.io.labels import read_label, write_label
from tests.commands import SMALL_NET, hear_ctrl_c, line, words

TAG2MASK = [sys.executable, "-m", "tag2mask"]


def fault_of_ours() -> None:
    try:
        Path("/nowhere/at/all").read_bytes()
    except FileNotFoundError:
        {}["ours"]


def wrapped() -> None:
    try:
        raise InputError("the list is empty; write one")
    except InputError as error:
        raise RuntimeError("within a loader") from error


def ending(monkeypatch: pytest.MonkeyPatch, function: Callable[[], None]) -> None:
    monkeypatch.setattr(cli, "dispatch", lambda words: function())


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, fault_of_ours)
    with pytest.raises(KeyError, match="ours"):
        main(["report"])


def test_the_cause_of_an_error_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ending(monkeypatch, wrapped)
    assert main(["report"]) == 2
    assert line(capsys) == "tag2mask: the list is empty; write one"


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_a_traceback_is_shown_where_it_is_asked_for(
    value: str, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(monkeypatch, wrapped)
    monkeypatch.setenv("TAG2MASK_TRACEBACK", value)
    assert main(["report"]) == 2
    told = capsys.readouterr().err
    assert ("in wrapped" in told) is shown
    assert told.endswith("tag2mask: the list is empty; write one\n")


@pytest.mark.parametrize(
    ("config", "option", "value", "told"),
    [
        ("segmentation_lite0", "model.init_args.inference.scales", "[9.0]", "scales are [9.0]"),
        ("cam_lite0", "model.init_args.inference.floor", "2", "floor is 2"),
        ("cam_lite0", "model.init_args.tiles.contrast.least", "2", "least is 2"),
        ("cam_lite0", "model.init_args.backbone.output_stride", "7", "output stride 7"),
        ("cam_lite0", "data.init_args.val_split", "nosuch", "nosuch"),
    ],
)
def test_what_settings_classes_find_is_one_line(
    config: str, option: str, value: str, told: str, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = words("fit", f"configs/voc/{config}.yaml", voc, tmp_path, trainer__logger="false")
    assert main([*command, f"--{option}", value]) == 2
    assert told in line(capsys)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(("verb", "option"), [("fit", "--config"), ("labels", "--config"), ("fit", "--trainer")])
def test_a_configuration_of_other_bytes_is_one_line(
    verb: str, option: str, joined: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes("trainer: {max_epochs: 3} # für".encode("latin-1"))
    assert main([verb, f"{option}={path}"] if joined else [verb, option, str(path)]) == 2
    assert f"{path} is not UTF-8 text (invalid start byte at byte 28); save it as UTF-8" in line(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_in_fit_says_how_to_go_on(workers: str, sample: Path, tmp_path: Path) -> None:
    over = {"trainer__max_epochs": "1000", "trainer__limit_val_batches": "0", "trainer__logger": "false"}
    over |= {"data__init_args__num_workers": workers}
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    command = [*TAG2MASK, *words("fit", "configs/demo/cam_plain.yaml", sample, tmp_path, **over), *small]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, start_new_session=True, preexec_fn=hear_ctrl_c) as process:
        try:
            end = time.monotonic() + 120
            while not (tmp_path / "checkpoints" / "last.ckpt").exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the loaders too
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in told
    assert told.strip().endswith("tag2mask: interrupted; the same command goes on where it stopped")


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("given", [["--help"], ["report", "--help"], ["fit", "--help"], ["doctor"], ["report", "RUNS"]])
def test_a_reader_that_has_gone_ends_a_command_in_silence(
    given: list[str], unbuffered: bool, tmp_path: Path, runs: Path
) -> None:
    given = [str(runs) if word == "RUNS" else word for word in given]
    command = [sys.executable, *(["-u"] if unbuffered else []), "-m", "tag2mask", *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
    assert process.returncode in (0, 141)  # argparse takes no notice, and has nothing more to say
    assert told == ""


def test_evaluate_writes_its_scores_also_where_nobody_reads_them(sample: Path, tmp_path: Path) -> None:
    given = [str(sample / "masks"), "--masks", str(sample / "masks"), "--out", str(tmp_path / "scores.json")]
    command = [sys.executable, "-u", "-m", "tag2mask", "evaluate", *given, "--classes", str(sample / "classes.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "pipe" not in process.stderr.read().lower()
    assert process.returncode == 141
    assert (tmp_path / "scores.json").is_file()


@pytest.mark.parametrize("what", ["labels --list", "voc split", "coco split", "evaluate --classes", "archive --list"])
def test_a_list_of_other_bytes_is_one_line(
    what: str, cams: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("ImageSets/Segmentation/mine.txt" if what == "voc split" else "mine.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("straße".encode("latin-1"))
    (tmp_path / "JPEGImages").mkdir()
    masks, over = str(sample / "masks"), {"trainer__logger": "false", "data__init_args__train_split": "mine"}
    seeds = ["labels", "--config", "configs/demo/seeds.yaml", "--photos", str(sample), "--cams", str(cams)]
    command = {
        "labels --list": [*seeds, "--out", str(tmp_path / "out"), "--list", str(path)],
        "voc split": words("fit", "configs/voc/cam_lite0_plain.yaml", tmp_path, tmp_path / "run", **over),
        "coco split": words("fit", "configs/coco/cam_lite0.yaml", tmp_path, tmp_path / "run", **over),
        "evaluate --classes": ["evaluate", masks, "--masks", masks, "--classes", str(path)],
        "archive --list": ["archive", "write", masks, "--out", str(tmp_path / "a.tgz"), "--list", str(path)],
    }[what]
    assert main(command) == 2
    assert f"{path} is not UTF-8 text (invalid" in line(capsys)


def test_evaluate_says_where_sides_are_exchanged(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = read_label(sample / "masks" / "scene_0000.png")[:30]
    for folder, array in (("found", label), ("masks", label.T)):
        write_label(tmp_path / folder / "a.png", array)
    assert main(["evaluate", str(tmp_path / "found"), "--masks", str(tmp_path / "masks")]) == 2
    assert "turned by its EXIF orientation and one of them is not" in line(capsys)


def test_labels_name_the_near_photograph(
    sample: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "scene_0000.heic").touch()
    (tmp_path / "list.txt").write_text("scene_0000\n")
    given = {"cams": cams, "photos": tmp_path / "photos", "out": tmp_path / "out", "list": tmp_path / "list.txt"}
    options = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    assert main(["labels", "--config", "configs/demo/seeds.yaml", "--workers", "1", *options]) == 1
    assert "scene_0000.heic is there, but .heic is not read" in capsys.readouterr().err


def test_segment_names_the_near_photograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Cat.jpg").touch()
    assert main(["segment", str(tmp_path / "cat.jpg"), "--checkpoint", "x.ckpt"]) == 2
    assert line(capsys).endswith("Cat.jpg is there: rename one as the other")


def test_another_broken_pipe_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def lost() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    ending(monkeypatch, lost)
    assert main(["report"]) == 2
    assert line(capsys) == "tag2mask: Broken pipe"


def test_a_checkpoint_of_another_backbone_is_one_line(
    sample: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = str(runs / "plain" / "checkpoints" / "last.ckpt")
    assert main([*words("predict", "configs/demo/cam_plain.yaml", sample, tmp_path), "--ckpt_path", trained]) == 2
    assert "is of another network than the configuration's" in line(capsys)
    assert not list(tmp_path.rglob("*.npz"))
