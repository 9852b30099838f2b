"""Write a trained segmentation or CAM network as one ONNX file for images of any size.

The file is compared with PyTorch on the CPU. Needs onnx and onnxruntime.

reads   the checkpoint alone
writes  the file of --out. One that `tag2mask export` wrote before is replaced, nothing else ever
        is. The status is 1 where the two differ by more than rounding; the file stays then

Example:
  tag2mask export --checkpoint runs/folder/segmentation/checkpoints/last.ckpt --out cats.onnx
"""

import sys
from pathlib import Path

from tag2mask.cli.options import Parser
from tag2mask.inference import export as exporting
from tag2mask.inference.photographs import printable
from tag2mask.utils.progress import progress, warn


def export(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where the file does not do what the network does."""
    parser = Parser("tag2mask export", __doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of a segmentation or CAM network")
    parser.add_argument("--out", type=Path, default=Path("model.onnx"), help="file to write (model.onnx)")
    args = parser.parse_args(words)
    exporting.packages()
    exporting.check_target(args.out)
    from tag2mask.cli.lightning import quiet

    quiet()
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
    if worst <= exporting.TOLERANCE:
        return 0
    remedy = "do not use it: try the versions of torch and onnxruntime that requirements.txt has"
    warn(f"{printable(args.out)} differs from the network by more than {exporting.TOLERANCE:g} of the range; {remedy}")
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
