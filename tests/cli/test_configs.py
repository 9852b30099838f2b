"""Configurations that come with the package: listed, copied, and given by name in any folder."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tag2mask.cli.configs import with_paths
from tag2mask.cli.main import main
from tag2mask.errors import MissingError, OccupiedError
from tests.commands import fault

TOP = Path.cwd()
SHIPPED = sorted(path.relative_to("configs") for path in Path("configs").rglob("*.yaml"))


def given(value: str) -> Path:
    """The file that ``--config value`` takes, however it is written."""
    _, apart = with_paths(["--config", value])
    assert with_paths([f"--config={value}", "--overwrite"]) == [f"--config={apart}", "--overwrite"]
    assert with_paths(["-c", value]) == ["-c", apart]
    return Path(apart)


@pytest.mark.parametrize("value", ["voc/cam_resnet50", "voc/cam_resnet50.yaml", "configs/voc/cam_resnet50.yaml"])
def test_a_name_is_taken_in_any_folder_and_a_file_of_that_path_wins(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert given(value).read_bytes() == (TOP / "configs/voc/cam_resnet50.yaml").read_bytes()
    own = tmp_path / value
    own.parent.mkdir(parents=True)
    own.write_text("seed_everything: 7")
    assert given(value).read_text() == "seed_everything: 7"
    assert given(str(own)) == own


def test_a_verb_runs_with_the_name_of_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for verb, name, fact in (("fit", "demo/cam_plain", "runs/demo/plain"), ("labels", "demo/labels", "EdgeWalk")):
        with pytest.raises(SystemExit) as end:
            main([verb, "--config", name, "--print_config"])
        assert end.value.code == 0
        assert fact in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["fit", "labels", "configs"])
def test_a_name_that_is_nearly_right_names_the_right_one(verb: str) -> None:
    error = fault([verb, *(["--config"] if verb != "configs" else []), "voc/cam_resnt50"])
    assert isinstance(error, MissingError)
    assert "no configuration voc/cam_resnt50; did you mean 'voc/cam_resnet50'?" in str(error)


def test_all_are_listed_with_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(path.with_suffix("")) for path in SHIPPED]
    assert all(40 < len(line) <= 100 for line in lines)
    plain = next(line for line in lines if line.startswith("demo/cam_plain"))
    assert "Plain CAM classifier on the drawn sample set" in plain


def test_a_copy_is_the_same_file_and_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, file in ((["folder/labels"], "labels.yaml"), (["folder/labels", "--out", "mine.yaml"], "mine.yaml")):
        assert main(["configs", *words]) == 0
        assert Path(file).read_bytes() == (TOP / "configs/folder/labels.yaml").read_bytes()
        Path(file).write_text("edited")
        assert isinstance(fault(["configs", *words]), OccupiedError)
        assert Path(file).read_text() == "edited"


def test_the_wheel_carries_every_configuration_and_the_network(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(name, tmp_path)
    for name in ("src", "configs", "weights"):
        shutil.copytree(name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    with ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        files = wheel.namelist()
    held = {name.removeprefix("tag2mask/configs/") for name in files if name.endswith(".yaml")}
    assert held == set(map(str, SHIPPED))
    assert "tag2mask/weights/animals_lite0.safetensors" in files
