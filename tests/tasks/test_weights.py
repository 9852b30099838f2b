"""Networks as small files: what they hold, and that a damaged one is not believed."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tag2mask.cli.main import main
from tag2mask.errors import DamagedError, InputError, MismatchError, OccupiedError
from tag2mask.io.labels import read_label
from tag2mask.tasks import checkpoints, weights
from tag2mask.tasks.affinity import AffinityTask
from tag2mask.tasks.segmentation import SegmentationTask
from tests.commands import fault


@pytest.fixture(scope="module")
def small(segmentation_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    assert main(["export", "--checkpoint", str(segmentation_checkpoint), "--out", str(path)]) == 0
    return path


def facts(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_small_weights_are_the_network(small: Path, segmentation_checkpoint: Path) -> None:
    whole, written = (checkpoints.load(SegmentationTask, path) for path in (segmentation_checkpoint, small))
    assert small.stat().st_size < segmentation_checkpoint.stat().st_size / 3
    assert written.class_names == whole.class_names
    assert written.preprocessing == json.loads(json.dumps(whole.preprocessing))
    assert written.inference == whole.inference
    assert not written.training
    images = torch.randn(2, 3, 65, 40, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, made = whole(images), written(images)
    assert (made - expected).abs().max() < 0.01 * (expected.max() - expected.min())
    for name, value in load_file(small).items():
        assert value.dtype == (torch.float16 if value.ndim > 1 else whole.state_dict()[name].dtype)


def test_segment_takes_small_weights_as_a_checkpoint(
    small: Path, segmentation_checkpoint: Path, sample: Path, tmp_path: Path
) -> None:
    photo = sample / "images" / "scene_0000.jpg"
    for path in (small, segmentation_checkpoint):
        words = ["segment", str(photo), "--checkpoint", str(path), "--device", "cpu"]
        assert main([*words, "--out", str(tmp_path / path.suffix)]) == 0
    one, other = (read_label(tmp_path / path.suffix / "scene_0000.png") for path in (small, segmentation_checkpoint))
    assert (one == other).mean() > 0.99


def test_weights_that_half_precision_spoils_are_told(
    segmentation_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--checkpoint", str(segmentation_checkpoint), "--out", str(tmp_path / "x.safetensors")]
    monkeypatch.setattr("tag2mask.inference.export.HALF_TOLERANCE", 1e-9)
    assert main(words) == 1
    assert "half precision is too coarse" in capsys.readouterr().err


def test_a_file_of_somebody_else_is_not_replaced(small: Path, segmentation_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    before = path.read_bytes()
    words = ["export", "--checkpoint", str(segmentation_checkpoint), "--out", str(path)]
    assert isinstance(fault(words), OccupiedError)
    assert path.read_bytes() == before
    shutil.copy(small, path)
    assert main(words) == 0


def test_only_segmentation_networks_have_small_weights(edge_checkpoint: Path, small: Path, tmp_path: Path) -> None:
    words = ["export", "--checkpoint", str(edge_checkpoint), "--out", str(tmp_path / "x.safetensors")]
    assert "affinity" in str(fault(words))
    with pytest.raises(MismatchError, match="segmentation network"):
        checkpoints.load(AffinityTask, small)


@pytest.mark.parametrize("wrong", ["no facts", "no JSON", "other classes", "not finite", "other backbone", "missing"])
def test_small_weights_that_say_something_wrong_are_refused(small: Path, tmp_path: Path, wrong: str) -> None:
    state, said, path = load_file(small), facts(small), tmp_path / "wrong.safetensors"
    content = json.loads(said[weights.MARK])
    if wrong == "no facts":
        said = {}
    elif wrong == "no JSON":
        said[weights.MARK] = "[" * 100_000
    elif wrong == "other classes":
        said[weights.MARK] = json.dumps(content | {"classes": ["cat"]})
    elif wrong == "other backbone":
        said[weights.MARK] = json.dumps(content | {"backbone": content["backbone"] | {"name": "resnet34"}})
    elif wrong == "not finite":
        next(value for value in state.values() if value.ndim > 1)[0] = torch.inf
    else:
        state.popitem()
    save_file(state, path, said)
    with pytest.raises(DamagedError, match=str(path)):
        checkpoints.load(SegmentationTask, path)


def test_damaged_small_weights_end_in_one_line(small: Path, tmp_path: Path) -> None:
    generator, whole, messages = random.Random(0), small.read_bytes(), []
    header = 8 + int.from_bytes(whole[:8], "little")
    for mutant in range(30):
        content = bytearray(whole[: generator.randrange(len(whole))] if mutant % 3 == 0 else whole)
        if mutant % 3:
            content[generator.randrange(8 if mutant % 3 == 1 else header)] ^= 1 << generator.randrange(8)
        path = tmp_path / "mutant.safetensors"
        path.write_bytes(content)
        try:
            checkpoints.load(SegmentationTask, path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 15
    assert all(str(path) in message and "\n" not in message for message in messages)
