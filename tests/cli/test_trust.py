"""Nobody runs code but the user: what configurations, checkpoints and archives of strangers may not do."""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tag2mask.cli.main import main
from tests.commands import SMALL_NET, line, words

CALL = "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.LambdaCallback, init_args: {setup: %s}}]}"
ATTACKS = {
    "os.system": "{class_path: os.system, init_args: {command: touch HIT}}",
    "subprocess.Popen": "{class_path: subprocess.Popen, init_args: {args: [touch, HIT]}}",
    "torch.hub.load": "{class_path: torch.hub.load, init_args: {repo_or_dir: ., model: hit, source: local}}",
    "torch.distributed.launcher.elastic_launch": (
        "{class_path: torch.distributed.launcher.api.elastic_launch, init_args: {entrypoint: touch, config: "
        "{class_path: torch.distributed.launcher.api.LaunchConfig, init_args: {min_nodes: 1, max_nodes: 1, "
        "nproc_per_node: 1}}}}"
    ),
    "torch.serialization.load": "torch.load",
    "hit.Callback": "hit.Callback",
}
"""Object -> a value of a setting that calls it; ``hit.py`` and ``hubconf.py`` of the working folder write ``HIT``."""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with modules that write the file ``HIT``; ``sample`` must be named by its whole path there."""
    code = "from lightning.pytorch.callbacks import Callback as C; open('HIT', 'w')\nclass Callback(C): pass\n"
    for name in ("hit", "hubconf"):
        (tmp_path / f"{name}.py").write_text(code + "hit = Callback\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", ["fit", "predict", "validate"])
@pytest.mark.parametrize("path", ATTACKS)
def test_a_configuration_runs_nothing(
    path: str, verb: str, stranger: Path, sample: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    config = stranger / "evil.yaml"
    config.write_text(CALL % ATTACKS[path])
    command = words(verb, Path("configs/demo/cam_plain.yaml").absolute(), sample, stranger / "run")
    monkeypatch.chdir(stranger)
    assert main([*command, "--config", str(config)]) == 2
    assert not Path("HIT").exists()
    assert f"a configuration may not name {path}: a function, or what is not of tag2mask, torch" in line(capsys)


def test_the_recipe_of_labels_runs_nothing(
    stranger: Path, cams: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (stranger / "evil.yaml").write_text("recipe: {class_path: hit.Callback}")
    monkeypatch.chdir(stranger)
    assert main(["labels", "--config", "evil.yaml", "--cams", str(cams), "--out", "out"]) == 2
    assert not Path("HIT").exists()
    assert "give --trust hit on the command line" in line(capsys)


def test_a_spec_where_anything_may_stand_builds_nothing(
    stranger: Path, sample: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = "{class_path: hit.Callback}"
    logger = f"{{class_path: lightning.pytorch.loggers.WandbLogger, init_args: {{dict_kwargs: {{settings: {spec}}}}}}}"
    (stranger / "evil.yaml").write_text(f"trainer: {{logger: {logger}}}")
    command = words("fit", Path("configs/demo/cam_plain.yaml").absolute(), sample, stranger / "run")
    monkeypatch.chdir(stranger)
    assert main([*command, "--config", "evil.yaml"]) == 2
    assert not Path("HIT").exists()
    line(capsys)


@pytest.mark.parametrize("option", [["--trust", "hit"], ["--trust=hit"]])
def test_the_command_line_may_trust_a_module(
    option: list[str], stranger: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = words("fit", Path("configs/demo/cam_plain.yaml").absolute(), sample, stranger / "run")
    (stranger / "mine.yaml").write_text("trainer: {callbacks: [{class_path: hit.Callback}], fast_dev_run: true}")
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    monkeypatch.chdir(stranger)
    assert main([*command, "--config", "mine.yaml", *small, *option]) == 0
    assert Path("HIT").exists()
    sys.modules.pop("hit")


@pytest.mark.parametrize("name", ["", "a.b", "*"])
def test_only_a_module_is_trusted(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "configs/demo/cam_plain.yaml", "--trust", *([name] if name else [])]) == 2
    assert "expected the name of a module or package" in line(capsys)


def test_a_configuration_cannot_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evil.yaml").write_text("trust: os")
    assert main(["fit", "--config", str(tmp_path / "evil.yaml")]) == 2
    assert "no setting 'trust'" in line(capsys)


class Payload:
    """A pickle of this makes a folder where it is loaded."""

    def __init__(self, hit: Path) -> None:
        self.hit = hit

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.hit),)


@pytest.mark.parametrize("verb", ["fit", "predict", "validate", "test"])
@pytest.mark.parametrize(("word", "file"), [("last", "checkpoints/last.ckpt"), ("hpc", "hpc_ckpt_1.ckpt")])
def test_the_checkpoint_that_a_word_stands_for_runs_nothing(
    word: str, file: str, verb: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run" / file
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": {}, "evil": Payload(tmp_path / "hit")}, path, pickle_module=pickle)
    command = words(verb, "configs/demo/cam_plain.yaml", sample, tmp_path / "run", ckpt_path=word)
    assert main(command) == 2
    assert not (tmp_path / "hit").exists()
    assert f"{path} cannot be read as a checkpoint" in line(capsys)


@pytest.mark.parametrize("verb", ["fit", "predict"])
def test_pickles_cannot_be_asked_for(
    verb: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil.yaml").write_text("weights_only: false\nckpt_path: last")
    command = words(verb, "configs/demo/cam_plain.yaml", sample, tmp_path / "run")
    assert main([*command, "--config", str(tmp_path / "evil.yaml")]) == 2
    assert "weights_only is false; a checkpoint could then run any code" in line(capsys)


def test_a_checkpoint_that_slurm_left_runs_nothing(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning takes it by itself, without a word."""
    (tmp_path / "run").mkdir()
    torch.save({"state_dict": {}, "evil": Payload(tmp_path / "hit")}, tmp_path / "run" / "hpc_ckpt_1.ckpt")
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    command = words("fit", "configs/demo/cam_plain.yaml", sample, tmp_path / "run", trainer__max_steps="1")
    assert main([*command, *small, "--trainer.num_nodes", "1"]) == 2
    assert not (tmp_path / "hit").exists()
    assert "hpc_ckpt_1.ckpt cannot be read as a checkpoint" in line(capsys)
