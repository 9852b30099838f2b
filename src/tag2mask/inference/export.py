"""Trained networks as files: ONNX, which runs without PyTorch, and small weights for `segment`."""

import importlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tag2mask import __version__
from tag2mask.classes import VOC
from tag2mask.data.transforms import Preprocessing
from tag2mask.errors import DamagedError, MismatchError, MissingError, OccupiedError
from tag2mask.inference.cams import CAMMaker
from tag2mask.inference.photographs import Segmenter
from tag2mask.io.files import atomic
from tag2mask.tasks import checkpoints, weights
from tag2mask.tasks.segmentation import SegmentationTask

MARK = "tag2mask"  # key in the metadata of our files; its value is our version
OPSET = 17  # of the ONNX operators; every onnxruntime since 1.13 has them
TOLERANCE = 1e-3  # a difference from PyTorch up to this share of the range of the scores is rounding
HALF_TOLERANCE = 1e-2  # the same for weights in half precision; 5e-4 was measured
SCORES, CAM = "scores", "cam"
AXES = {SCORES: {0: "batch", 2: "height", 3: "width"}, CAM: {0: "batch", 2: "map_height", 3: "map_width"}}
MEANING = {SCORES: "before the softmax, of each pixel", CAM: "before ReLU, one position a stride"}


@dataclass(frozen=True)
class Exportable:
    """A trained network for images (B, 3, H, W) of any size, on the CPU, and what its user must know."""

    net: nn.Module
    output: str  # ``scores`` (B, G, H, W) before the softmax, or ``cam`` (B, C, h, w) before ReLU, without background
    class_names: tuple[str, ...]
    stride: int
    preprocessing: Preprocessing


def packages() -> tuple[Any, Any]:
    """Return the modules onnx and onnxruntime; raises ``MissingError`` where they are not installed."""
    try:
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingError(f"export needs onnx and onnxruntime ({error}); run `pip install tag2mask[export]`") from None


def load(checkpoint: Path) -> Exportable:
    """Load the segmentation network or the CAM network of a checkpoint of ours; raises for one of another network."""
    task = checkpoints.check_file(checkpoint)["tag2mask"]["task"]
    if task == "segmentation":
        segmenter = Segmenter(checkpoint)
        names, stride = (VOC[0], *segmenter.class_names), segmenter.net.config.output_stride
        return Exportable(segmenter.net, SCORES, names, stride, segmenter.preprocessing)
    if task == "cam":
        maker = CAMMaker(checkpoint)
        if getattr(maker.task.net.backbone, "pos_embed", None) is not None:  # torch would print the whole graph first
            raise inexpressible("its positions are interpolated to the size of the image")
        return Exportable(maker.task, CAM, maker.class_names, maker.task.net.stride, maker.preprocessing)
    raise MismatchError(f"{checkpoint} is a checkpoint of the {task} network; give one of segmentation or of CAMs")


def inexpressible(reason: str) -> MismatchError:
    """Return the error that says why ONNX has no words for a network."""
    return MismatchError(f"this network cannot be written as ONNX ({reason}); use another backbone")


def write(path: Path, network: Exportable) -> None:
    """Write a network as ONNX for any batch, height and width; ``MismatchError`` where ONNX cannot express it."""
    onnx, _ = packages()
    traced, side = io.BytesIO(), 3 * network.stride + 1  # no multiple of the stride
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values fixed while tracing; `differences` tries other sizes
            torch.onnx.export(
                network.net,
                (torch.zeros(2, 3, side, side + network.stride),),
                traced,  # type: ignore[arg-type]  # the tracing exporter takes it
                dynamo=False,  # the newer exporter takes ten times as long, and does not end for EfficientNet-Lite
                opset_version=OPSET,
                input_names=["image"],
                output_names=[network.output],
                dynamic_axes={"image": AXES[SCORES], network.output: AXES[network.output]},
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise inexpressible(reason) from error
    model = onnx.load_model_from_string(traced.getvalue())
    facts = {
        MARK: __version__,
        "classes": json.dumps(network.class_names, ensure_ascii=False),
        **{name: json.dumps(getattr(network.preprocessing, name)) for name in ("mean", "std", "max_side")},
        "stride": json.dumps(network.stride),
        "input": "RGB / 255, minus mean, over std; larger photographs shrunk to max_side (null: not at all) before",
        "output": "class scores " + MEANING[network.output],
    }
    onnx.helper.set_model_props(model, facts)
    with atomic(path) as file:
        file.write(model.SerializeToString())


def write_weights(checkpoint: Path, path: Path) -> tuple[float, tuple[str, ...]]:
    """Write the segmentation network of a checkpoint as `weights.write` does; return its difference, and its classes.

    The difference of the scores on noise is a share of their range.
    """
    task = checkpoints.load(SegmentationTask, checkpoint)
    weights.write(path, task)
    images = torch.randn(
        2, 3, *check_sizes(task.net.config.output_stride)[1], generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        expected, written = task(images), checkpoints.load(SegmentationTask, path)(images)
    span = (expected.max() - expected.min()).clamp_min(1e-30)
    return ((written - expected).abs().max() / span).item(), task.class_names


def is_onnx(path: Path) -> bool:
    """Whether a file is an ONNX file of ours."""
    entries = packages()[0].load_model_from_string(path.read_bytes()).metadata_props
    return any(entry.key == MARK for entry in entries)


def is_weights(path: Path) -> bool:
    """Whether a file is one of `write_weights`."""
    return bool(weights.read(path))


def check_target(path: Path, is_ours: Callable[[Path], bool] = is_onnx) -> None:
    """Raise ``OccupiedError`` where ``path`` cannot be written, or is a folder or a file that is not of ours."""
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise OccupiedError(f"--out {path}: {parent} is a file, not a folder; name another place")
    try:
        ours = is_ours(path)
    except MissingError:  # of a package
        raise
    except Exception:  # protobuf and its implementations raise several kinds for anything else
        ours = False
    if path.exists() and not ours:
        raise OccupiedError(f"{path} is a folder, or a file not of `tag2mask export`; name another file with --out")


def check_sizes(stride: int) -> list[tuple[int, int]]:
    """Return two heights and widths to compare at, the second no multiples of the stride; none was traced."""
    return [(2 * stride, 3 * stride), (4 * stride + 1, 2 * stride + stride // 2)]


def differences(path: Path, network: Exportable, sizes: Sequence[tuple[int, int]]) -> Iterator[float]:
    """Run the file with onnxruntime on the CPU at each size, with batches of 1 and 2, on noise.

    Yields the largest difference from ``network``, as a share of the range of its output; infinite for another shape.
    """
    _, onnxruntime = packages()
    options, generator = onnxruntime.SessionOptions(), torch.Generator().manual_seed(0)
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        for shape in [(batch, 3, *size) for batch in (1, 2) for size in sizes]:
            images = torch.randn(shape, generator=generator)
            with torch.inference_mode():
                expected = network.net(images)
            output = torch.from_numpy(session.run(None, {"image": images.numpy()})[0])
            same, span = output.shape == expected.shape, (expected.max() - expected.min()).clamp_min(1e-30)
            yield ((output - expected).abs().max() / span).item() if same else float("inf")
    except Exception as error:  # of kinds that only onnxruntime's binary module names
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        reason = str(error).strip().splitlines()[0][:200]
        raise DamagedError(f"{path} is written, but onnxruntime cannot run it ({reason}); do not use it") from error
