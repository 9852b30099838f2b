"""What the doctor finds in installations that are whole and in such that are not."""

from importlib import metadata
from pathlib import Path

import pytest

from tag2mask.cli import doctor
from tag2mask.cli.main import main


def told(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert main(["doctor", *words]) == status
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return " ".join(f"{out}{err}".split())


def installed(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> None:
    """Pretend that packages have other versions, or are not there (None)."""
    real = metadata.version

    def version(name: str) -> str:
        number = changed.get(name.replace("-", "_"), real(name) if name.replace("-", "_") not in changed else None)
        if number is None:
            raise metadata.PackageNotFoundError(name)
        return number

    monkeypatch.setattr(metadata, "version", version)


def test_a_whole_installation_is_ready_and_its_data_sets_are_counted(
    sample: Path, voc: Path, coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, str(sample), str(voc), str(coco), "/nowhere")
    assert f"torch {metadata.version('torch')}" in text
    assert "12 photographs in images, 12 masks in masks, tags tags.csv, lists classes, train, val" in text
    assert "12 photographs in JPEGImages, 12 masks in SegmentationClass, 12 masks in SegmentationClassAug" in text
    assert "8 photographs in train2014, 4 photographs in val2014, 8 masks in masks/train2014" in text
    assert "/nowhere: no such folder" in text
    assert "ready: training" in text


def test_missing_optional_parts_are_named_with_what_they_disable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(monkeypatch, onnx=None, pydensecrf2=None)
    text = told(capsys)
    assert "onnx is missing: no `tag2mask export`; pip install onnx" in text
    assert "pydensecrf2 is missing: the dense CRF is ours" in text


@pytest.mark.parametrize(
    ("package", "number", "message"),
    [
        ("lightning", "2.6.3", "lightning 2.6.3 carried malware; remove it at once"),
        ("torch", "2.1.0", "torch 2.1.0 is not in the range >=2.11"),
        ("timm", None, "the package timm is missing"),
    ],
)
def test_what_main_work_needs_is_named_and_the_status_is_one(
    package: str,
    number: str | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installed(monkeypatch, **{package: number})
    assert message in told(capsys, status=1)


def test_a_pair_of_torch_and_torchvision_that_does_not_import_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str) -> None:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "import_module", broken)
    text = told(capsys, status=1)
    assert "torchvision cannot be imported" in text
    assert "nms does not exist); the two are a pair" in text


def test_a_part_that_cannot_be_looked_at_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise OSError("libcuda is not what it seems")

    monkeypatch.setattr("torch.cuda.is_available", broken)
    assert "GPU cannot be looked at (OSError: libcuda is not what it seems)" in told(capsys, status=1)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WANDB_MODE": "disabled"}, "WANDB_MODE is disabled"),
        ({"WANDB_API_KEY": "x"}, "W&B logged in"),
        ({"NETRC": "/nowhere"}, "W&B not logged in"),
    ],
)
def test_where_runs_of_wandb_go(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert message in told(capsys)
