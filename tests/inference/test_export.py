"""The verb ``export``: networks as ONNX, compared with PyTorch."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tag2mask.cli.export import describe
from tag2mask.cli.main import main
from tag2mask.data.transforms import Preprocessing
from tag2mask.errors import DamagedError, InputError, MismatchError, MissingError, OccupiedError
from tag2mask.inference import export
from tag2mask.inference.export import CAM, SCORES, Exportable
from tag2mask.models.backbones import Backbone
from tag2mask.models.segmentation import SegmentationNet
from tag2mask.tasks.cam import CAMTask
from tests.commands import fault

PREPROCESSING = Preprocessing(mean=(0.498, 0.5, 0.51), std=(0.502, 0.25, 0.2), max_side=640)
SIZES = [(1, 64, 64), (2, 65, 41), (3, 30, 7), (1, 1, 1), (1, 128, 83)]
SMALL = Backbone("resnet18", weights=None)


def settle(network: nn.Module) -> nn.Module:
    """Give batch-norm layers statistics of some images, so that the scores have a range as of a trained network."""
    network.train()
    with torch.no_grad():
        for _ in range(8):
            network(torch.randn(2, 3, 64, 64))
    return network.eval()


def segmentation(name: str, stride: int = 16) -> Exportable:
    torch.manual_seed(0)
    network = settle(SegmentationNet(4, Backbone(name, output_stride=stride, weights=None)))
    return Exportable(network, SCORES, ("background", "cat", "dog", "crème brûlée"), stride, PREPROCESSING)


def cam(backbone: Backbone = SMALL) -> Exportable:
    torch.manual_seed(0)
    task = CAMTask(3, backbone=backbone, tiles=None)
    return Exportable(settle(task), CAM, ("cat", "dog", "sofa"), 16, PREPROCESSING)


class Spoiled(nn.Module):
    """Scores that are wrong by a share of their range in one pixel."""

    def __init__(self, net: nn.Module, share: float) -> None:
        super().__init__()
        self.net, self.share = net, share

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.net(images).clone()
        scores[0, 0, 0, 0] += self.share * (scores.max() - scores.min())
        return scores


class NoExport(nn.Module):
    """Something that ONNX has no operator for."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.eigvals(images).real


@pytest.fixture(scope="module")
def small() -> Exportable:
    return segmentation("resnet18")


@pytest.fixture(scope="module")
def small_file(small: Exportable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "model.onnx"
    export.write(path, small)
    return path


def run(checkpoint: Path, out: Path) -> int:
    return main(["export", "--checkpoint", str(checkpoint), "--out", str(out)])


def refused(checkpoint: Path, out: Path) -> InputError:
    return fault(["export", "--checkpoint", str(checkpoint), "--out", str(out)])


def gives(content: bytes, images: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, {"image": images.numpy()})[0]
    return output


# networks


@pytest.mark.parametrize(
    "network",
    [
        lambda: segmentation("resnet18"),
        lambda: segmentation("tf_efficientnet_lite0"),
        lambda: segmentation("tf_efficientnet_lite0", 8),
        lambda: segmentation("convnext_atto"),
        cam,
        pytest.param(lambda: cam(Backbone("vit_small_patch16_dinov3.lvd1689m", weights=None)), marks=pytest.mark.slow),
    ],
    ids=["resnet18", "efficientnet", "efficientnet stride 8", "convnext", "cam", "dinov3"],
)
def test_the_file_gives_what_the_network_gives_at_any_size(network: Any, tmp_path: Path) -> None:
    made = network()
    export.write(tmp_path / "model.onnx", made)
    content = (tmp_path / "model.onnx").read_bytes()
    for batch, height, width in SIZES:
        images = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            expected = made.net(images).numpy()
        span = np.ptp(expected)
        assert span > 0
        np.testing.assert_allclose(gives(content, images), expected, rtol=0, atol=1e-4 * span)


def test_one_file_with_named_axes(small_file: Path) -> None:
    assert [path.name for path in small_file.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(small_file, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert axes == {"image": ["batch", 3, "height", "width"], "scores": ["batch", 4, "height", "width"]}


def test_the_file_says_how_to_use_it(small_file: Path) -> None:
    metadata = onnxruntime.InferenceSession(small_file).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["background", "cat", "dog", "crème brûlée"]
    assert json.loads(metadata["mean"]) == [0.498, 0.5, 0.51]
    assert json.loads(metadata["std"]) == [0.502, 0.25, 0.2]
    assert json.loads(metadata["max_side"]) == 640
    assert json.loads(metadata["stride"]) == 16


# comparison


def test_sizes_of_the_comparison_are_and_are_not_multiples() -> None:
    for stride in (8, 16, 32):
        even, odd = export.check_sizes(stride)
        assert [side % stride for side in even] == [0, 0]
        assert all(side % stride for side in odd)


def test_the_comparison_measures_a_known_difference(small: Exportable, small_file: Path) -> None:
    spoiled = replace(small, net=Spoiled(small.net, 0.25))
    measured = list(export.differences(small_file, spoiled, [(32, 48), (65, 40)]))
    assert len(measured) == 4
    assert measured == pytest.approx([0.25] * 4, rel=0.3)  # the spoiled pixel may widen the range
    assert max(export.differences(small_file, small, [(32, 48), (65, 40)])) < 1e-5


def test_other_shapes_are_no_agreement(small: Exportable, small_file: Path) -> None:
    cut = replace(small, net=nn.Sequential(small.net, nn.AvgPool2d(2)))
    assert list(export.differences(small_file, cut, [(32, 32)])) == [float("inf")] * 2


@pytest.mark.parametrize(("values", "status"), [([0.0, 9e-4], 0), ([2e-3, 0.0], 1), ([0.0, float("nan"), 0.0], 1)])
def test_a_difference_above_rounding_is_told_and_the_file_stays(
    values: list[float],
    status: int,
    segmentation_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export, "differences", lambda *_: iter(values))
    assert run(segmentation_checkpoint, tmp_path / "model.onnx") == status
    output = capsys.readouterr()
    assert ("differs from the network by more than 0.001" in output.err) == bool(status)
    assert ("nan" in output.out) == any(value != value for value in values)
    assert (tmp_path / "model.onnx").is_file()


def test_a_file_that_onnxruntime_cannot_run_is_told(small: Exportable, small_file: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(small_file.read_bytes()[:-1000])
    with pytest.raises(DamagedError, match=re.escape(str(tmp_path / "model.onnx"))):
        list(export.differences(tmp_path / "model.onnx", small, [(32, 32)]))


# the verb


def test_a_checkpoint_becomes_a_file(
    segmentation_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new folder" / "model.onnx"
    assert run(segmentation_checkpoint, out) == 0
    output = capsys.readouterr()
    writing, comparing = output.err.splitlines()
    assert writing.startswith("writing the network as ONNX")
    assert comparing.startswith("4 of 4 comparisons with PyTorch, ")
    written, takes, gives_line, compared = output.out.splitlines()
    assert written.startswith(f"written to {out}: ")
    assert "minus [0.485, 0.456, 0.406], over [0.229, 0.224, 0.225]; larger photographs shrunk to 80 pixels" in takes
    assert gives_line.endswith(": background, cross, dots, ring, stripes, triangle")
    assert float(compared.split()[4]) < 1e-4
    network = export.load(segmentation_checkpoint)
    images = torch.randn(1, 3, 37, 50)
    with torch.no_grad():
        expected = network.net(images).numpy()
    np.testing.assert_allclose(gives(out.read_bytes(), images), expected, rtol=0, atol=1e-4 * np.ptp(expected))
    assert run(segmentation_checkpoint, out) == 0  # a file of ours is replaced
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]


def test_a_checkpoint_of_a_cam_network(tmp_path: Path) -> None:
    task = CAMTask(2, ("cat", "dog"), backbone=SMALL)
    content: dict[str, Any] = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    content["pytorch-lightning_version"] = "2.6.0"
    task.preprocessing = vars(PREPROCESSING)
    task.on_save_checkpoint(content)
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    assert run(path, tmp_path / "cam.onnx") == 0
    images = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        expected = task.eval()(images).numpy()
    np.testing.assert_allclose(
        gives((tmp_path / "cam.onnx").read_bytes(), images), expected, rtol=0, atol=1e-4 * np.ptp(expected)
    )
    content["tag2mask"]["preprocessing"] = {}
    torch.save(content, path)
    with pytest.raises(InputError, match="last.ckpt"):
        export.load(path)


# what can go wrong


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages_are_named_at_once(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    error = refused(tmp_path / "no.ckpt", tmp_path / "model.onnx")
    assert isinstance(error, MissingError)
    assert f"import of {package} " in str(error)
    assert "pip install tag2mask[export]" in str(error)


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    assert "no.ckpt" in str(refused(tmp_path / "no.ckpt", tmp_path / "model.onnx"))
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_an_edge_network_is_refused(edge_checkpoint: Path, tmp_path: Path) -> None:
    error = refused(edge_checkpoint, tmp_path / "model.onnx")
    assert isinstance(error, MismatchError)
    assert all(fact in str(error) for fact in (str(edge_checkpoint), "affinity", "segmentation", "CAM"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["folder", "notes.txt/model.onnx", "notes.txt"])
def test_a_target_that_cannot_be_written(out: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    error = refused(tmp_path / "no.ckpt", tmp_path / out)
    assert isinstance(error, OccupiedError)
    assert str(tmp_path / out) in str(error)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.rglob("*"))) == 2


def test_a_model_of_somebody_else_is_not_replaced(small_file: Path, tmp_path: Path) -> None:
    model = onnx.load(small_file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(OccupiedError, match="theirs.onnx"):
        export.check_target(tmp_path / "theirs.onnx")
    export.check_target(small_file)


def test_a_full_disk_leaves_the_old_file(small: Exportable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "model.onnx").write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        export.write(tmp_path / "model.onnx", small)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_network_that_onnx_cannot_express(small: Exportable, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="eigvals|ONNX"):
        export.write(tmp_path / "model.onnx", replace(small, net=NoExport()))
    assert not list(tmp_path.iterdir())


def test_positions_that_are_interpolated_cannot_be_expressed(vit_checkpoint: Path) -> None:
    with pytest.raises(MismatchError, match="cannot be written as ONNX .its positions are interpolated to the size"):
        export.load(vit_checkpoint)


def test_the_description_of_a_cam_network_that_keeps_sizes(small: Exportable, small_file: Path) -> None:
    plain = Exportable(small.net, CAM, ("cat",), 16, Preprocessing())
    text = describe(small_file, plain)
    assert "shrunk" not in text
    assert text.endswith("cam (B, C, h, w), before ReLU: cat")
