"""Trained networks as ONNX files, which run without PyTorch.

Shape letters in this file: B images, G classes with the background, C without it, H x W the image, h x w its map.
"""

import importlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from tag2mask import __version__
from tag2mask.classes import VOC
from tag2mask.data.transforms import Preprocessing
from tag2mask.errors import InputError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.files import atomic
from tag2mask.tasks import checkpoints
from tag2mask.tasks.cam import CAMTask

MARK = "tag2mask"
"""Key in the metadata of our files; its value is our version."""
OPSET = 17
"""Of ONNX operators; every onnxruntime since 1.13 has them."""
TOLERANCE = 1e-3
"""Difference from eager mode that is still rounding, as a share of the range of the scores."""
SCORES, CAM = "scores", "cam"
AXES = {
    SCORES: {0: "batch", 2: "height", 3: "width"},
    CAM: {0: "batch", 2: "map_height", 3: "map_width"},
}


@dataclass(frozen=True)
class Exportable:
    """A trained network and what its user must know.

    Attributes:
        net: gives ``output`` for images (B, 3, H, W) of any size; in evaluation mode, on the CPU.
        output: ``scores`` (B, G, H, W), before the softmax, or ``cam`` (B, C, h, w), before ReLU.
        class_names: of the output's channels.
        stride: pixels to which images are padded within the network.
        how: normalisation, and the longer side to which larger photographs are shrunk.
    """

    net: nn.Module
    output: str
    class_names: tuple[str, ...]
    stride: int
    how: Preprocessing


def packages() -> tuple[Any, Any]:
    """Return the modules onnx and onnxruntime; ``InputError`` where they are not installed."""
    try:
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InputError(f"export needs onnx and onnxruntime ({error}); run `pip install tag2mask[export]`") from None


def load(checkpoint: Path) -> Exportable:
    """Load the segmentation network or the CAM network of a checkpoint of ours.

    Raises:
        InputError: it is of another network, or does not say how images are normalised.
    """
    task = checkpoints.check_file(checkpoint)["tag2mask"]["task"]
    if task == "segmentation":
        found = Segmenter(checkpoint)
        stride = found.net.config.output_stride
        return Exportable(found.net, SCORES, (VOC[0], *found.class_names), stride, found.how)
    if task != "cam":
        raise InputError(
            f"{checkpoint} is a checkpoint of the {task} network; expected one of the segmentation or the CAM network"
        )
    cam = checkpoints.load(CAMTask, checkpoint)
    return Exportable(cam, CAM, cam.class_names, cam.net.stride, Preprocessing(**cam.preprocessing))


def facts(network: Exportable) -> dict[str, str]:
    """Return what an ONNX file says of itself: classes, normalisation and scaling, lists and numbers as JSON."""
    how = network.how
    return {
        MARK: __version__,
        "classes": json.dumps(network.class_names, ensure_ascii=False),
        "mean": json.dumps(how.mean),
        "std": json.dumps(how.std),
        "max_side": json.dumps(how.max_side),
        "stride": json.dumps(network.stride),
        "input": "RGB / 255, minus mean, over std; larger photographs shrunk to max_side (null: not at all) before",
        "output": "class scores before the softmax, of each pixel"
        if network.output == SCORES
        else "class scores before ReLU, one position a stride",
    }


def to_onnx(network: Exportable) -> bytes:
    """Return the content of an ONNX file, weights and `facts` within, for any batch, height and width.

    It comes from the tracing exporter: the newer one, which reasons about sizes as symbols, does not come to an end in
    minutes for EfficientNet-Lite, whose padding depends on the size in every layer, and takes ten times as long for
    the others.

    Raises:
        InputError: the network does something that ONNX cannot express.
    """
    onnx, _ = packages()
    try:
        with warnings.catch_warnings(), TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")  # about values fixed while tracing; `differences` tries other sizes
            _trace(network, Path(folder) / "model.onnx")
            model = onnx.load(Path(folder) / "model.onnx")
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"this network cannot be written as ONNX ({reason}); use another backbone") from error
    onnx.helper.set_model_props(model, facts(network))
    content: bytes = model.SerializeToString()
    return content


def _trace(network: Exportable, path: Path) -> None:
    """Write the network alone, from a run on images whose sides are no multiples of the stride."""
    side = 3 * network.stride + 1
    torch.onnx.export(
        network.net,
        (torch.zeros(2, 3, side, side + network.stride),),
        path,
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=[network.output],
        dynamic_axes={"image": AXES[SCORES], network.output: AXES[network.output]},
    )


def check_target(path: Path) -> None:
    """Raise ``InputError`` where ``path`` cannot be written, or holds something that is not of ours."""
    if path.is_dir():
        raise InputError(f"--out {path} is a folder; name a file, such as {path / 'model.onnx'}")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise InputError(f"--out {path}: {parent} is a file, not a folder; name another place")
    if path.exists() and not _ours(path):
        raise InputError(f"{path} was not written by `tag2mask export`; name another file with --out")


def _ours(path: Path) -> bool:
    onnx, _ = packages()
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception:  # protobuf and its implementations raise several kinds for anything else
        return False
    return any(entry.key == MARK for entry in model.metadata_props)


def write(path: Path, network: Exportable) -> None:
    """Write ``network`` as an ONNX file."""
    content = to_onnx(network)
    with atomic(path) as file:
        file.write(content)


def check_sizes(stride: int) -> list[tuple[int, int]]:
    """Return two heights and widths to compare at, the second no multiples of the stride; none was traced."""
    return [(2 * stride, 3 * stride), (4 * stride + 1, 2 * stride + stride // 2)]


def differences(path: Path, network: Exportable, sizes: Sequence[tuple[int, int]]) -> Iterator[float]:
    """Run the file with onnxruntime on the CPU at each size, with batches of 1 and 2, on noise.

    Yields:
        The largest difference from ``network``, as a share of the range of its output; infinite where the shapes
        differ.

    Raises:
        InputError: onnxruntime cannot run the file.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        session = _session(path)
        for batch in (1, 2):
            for size in sizes:
                images = torch.randn(batch, 3, *size, generator=generator)
                with torch.inference_mode():
                    expected = network.net(images)
                yield _difference(expected, torch.from_numpy(session.run(None, {"image": images.numpy()})[0]))
    except Exception as error:  # of kinds that only onnxruntime's binary module names
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"{path} is written, but onnxruntime cannot run it ({reason}); do not use it") from error


def _session(path: Path) -> Any:
    _, onnxruntime = packages()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def _difference(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        return float("inf")
    span = (expected.max() - expected.min()).clamp_min(torch.finfo(expected.dtype).tiny)
    return ((found - expected).abs().max() / span).item()
