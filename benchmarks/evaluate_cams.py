"""CPU seconds of scoring CAM files: 200 photographs of 375 x 500 at 15 thresholds.

usage: python -m benchmarks.evaluate_cams [--images 200] [--out benchmarks/out/evaluate_cams.json]

The files hold smooth random maps of 1 to 3 classes at stride 4, the masks smooth random regions. Puzzle-CAM's
evaluate.py took 76.6 CPU seconds for as much work on two cores.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.record import peak_mb, write_record
from tag2mask.classes import IGNORE, VOC
from tag2mask.cli.main import main as main_of_tag2mask
from tag2mask.io.cams import CAMs, write_cam
from tag2mask.io.labels import write_label
from tag2mask.metrics.functional import THRESHOLDS

SIZE = 375, 500


def smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a smooth random map in [0, 1]."""
    coarse = Image.fromarray(rng.random((8, 10), np.float32))
    return np.clip(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)


def write(folder: Path, images: int) -> None:
    """Write CAM files and masks."""
    for number in range(images):
        name = f"image_{number:04d}"
        rng = np.random.default_rng(number)
        classes = rng.choice(np.arange(1, len(VOC)), size=rng.integers(1, 4), replace=False)
        cam = np.stack([smooth(rng, -(-SIZE[0] // 4), -(-SIZE[1] // 4)) for _ in classes])
        write_cam(folder / "cams" / f"{name}.npz", CAMs(torch.as_tensor(cam), torch.as_tensor(classes), SIZE))
        label = np.where(smooth(rng, *SIZE) > 0.5, classes[0], 0)
        label[smooth(rng, *SIZE) > 0.9] = IGNORE
        write_label(folder / "masks" / f"{name}.png", label)


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/evaluate_cams.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, given.images)
        wall, cpu = time.perf_counter(), time.process_time()
        main_of_tag2mask(["evaluate", str(folder / "cams"), "--masks", str(folder / "masks"), "--classes", "voc"])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    figures = {
        "images": given.images,
        "thresholds": len(THRESHOLDS),
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "peak_mb": peak_mb(),
    }
    print(write_record(given.out, figures))


if __name__ == "__main__":
    main()
