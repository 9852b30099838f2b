"""Write a trained network as one file: ONNX for images of any size, or small weights for tag2mask.

An ONNX file, of a segmentation or CAM network, runs without PyTorch; export needs onnx and
onnxruntime for it. A .safetensors file, of a segmentation network, is a quarter as large as the
checkpoint, and `segment` takes it as one. The file is compared with the network on the CPU.

reads   the checkpoint alone
writes  the file of --out. One that `tag2mask export` wrote before is replaced, nothing else ever
        is. The status is 1 where the two differ by more than rounding; the file stays then

Example:
  tag2mask export --checkpoint runs/folder/segmentation/checkpoints/last.ckpt --out cats.onnx
  tag2mask export --checkpoint runs/folder/segmentation/checkpoints/last.ckpt --out cats.safetensors
"""

import sys
from argparse import Namespace
from pathlib import Path

from tag2mask.cli.options import Parser
from tag2mask.inference import export as exporting
from tag2mask.inference.photographs import printable
from tag2mask.tasks import weights
from tag2mask.utils.progress import progress, warn


def export(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where the file does not do what the network does."""
    parser = Parser("tag2mask export", __doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of a segmentation or CAM network")
    parser.add_argument(
        "--out", type=Path, default=Path("model.onnx"), help="NAME.onnx or NAME.safetensors (model.onnx)"
    )
    args = parser.parse_args(words)
    small = args.out.suffix == weights.ENDING
    exporting.check_target(args.out, exporting.is_weights if small else exporting.is_onnx)
    from tag2mask.cli.lightning import quiet

    quiet()
    return _small(args) if small else _onnx(args)


def _small(args: Namespace) -> int:
    """Write small weights, and say how far they are from the network."""
    difference, names = exporting.write_weights(args.checkpoint, args.out)
    size = args.out.stat().st_size / 1e6
    print(f"written to {printable(args.out)}: {size:.1f} MB, half precision; {', '.join(names)}")
    print(f"largest difference from the checkpoint {difference:.1e} of the range of scores")
    return _verdict(args.out, difference, exporting.HALF_TOLERANCE, "half precision is too coarse for it")


def _onnx(args: Namespace) -> int:
    """Write ONNX, and compare it with the network; status 1 where it does something else."""
    network = exporting.load(args.checkpoint)
    print("writing the network as ONNX: seconds for EfficientNet-Lite0, longer for larger ones", file=sys.stderr)
    exporting.write(args.out, network)
    print(describe(args.out, network))
    sizes = exporting.check_sizes(network.stride)
    comparisons = exporting.differences(args.out, network, sizes)
    differences = list(progress(comparisons, 2 * len(sizes), "comparisons with PyTorch"))
    worst = next((value for value in differences if value != value), max(differences))  # not a number comes first
    where = " and ".join(f"{height} x {width}" for height, width in sizes)
    print(f"largest difference from PyTorch {worst:.1e} of the range of {network.output} ({where}, batches 1 and 2)")
    return _verdict(
        args.out, worst, exporting.TOLERANCE, "try the versions of torch and onnxruntime that requirements.txt has"
    )


def _verdict(path: Path, difference: float, tolerance: float, remedy: str) -> int:
    """Return the exit status: 1, with a warning, where a file differs by more than rounding."""
    if difference <= tolerance:
        return 0
    warn(f"{printable(path)} differs from the network by more than {tolerance:g} of the range; do not use it: {remedy}")
    return 1


def describe(path: Path, network: exporting.Exportable) -> str:
    """What the file takes and gives, in three lines."""
    prepared = network.preprocessing
    (mean, std), side = prepared.normalization, prepared.max_side
    shrunk = "" if side is None else f"; larger photographs shrunk to {side} pixels before"
    shape = "(B, G, H, W), before the softmax" if network.output == exporting.SCORES else "(B, C, h, w), before ReLU"
    return (
        f"written to {printable(path)}: {path.stat().st_size / 1e6:.1f} MB, ONNX operators {exporting.OPSET}\n"
        f"image (B, 3, H, W) float32: RGB / 255, minus {list(mean)}, over {list(std)}{shrunk}\n"
        f"{network.output} {shape}: {', '.join(network.class_names)}"
    )
