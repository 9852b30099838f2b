"""Agreement and seconds of the two dense CRFs, pydensecrf and our own, on photographs with masks.

usage: python -m benchmarks.dense_crf VOC2012 [--images 30] [--size 0] [--device cpu] [--out FILE.json]

The start is what a CAM would give: the masks of the image's classes at stride 16 with noise, scaled up bilinearly; as
labels of certainty 0.7 (sxy 50, srgb 5) and as probabilities (sxy 80, srgb 13), 10 steps each, Gaussian sxy 3, as in
IRN and Puzzle-CAM. One thread. --size scales the long side to so many pixels; --device cuda runs our own on a GPU.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.record import write_record
from tag2mask.classes import BACKGROUND, IGNORE
from tag2mask.refine.dense_crf import (
    Bilateral,
    Gaussian,
    dense_crf,
    unary_from_labels,
    unary_from_probabilities,
)

BILATERAL = {"labels": Bilateral(50, 5, 10), "probabilities": Bilateral(80, 13, 10)}
GAUSSIAN = Gaussian(3, 3)


def load(root: Path, name: str, size: int) -> tuple[np.ndarray, Tensor]:
    """Return the photograph, (H, W, 3), and its mask with labels numbered from 0, (H, W)."""
    image = Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB")
    mask = Image.open(root / "SegmentationClassAug" / f"{name}.png").copy()
    if size:
        scale = size / max(image.size)
        wanted = round(image.width * scale), round(image.height * scale)
        image, mask = image.resize(wanted), mask.resize(wanted, Image.Resampling.NEAREST)
    label = torch.as_tensor(np.array(mask)).long()
    _, label = label.where(label != IGNORE, BACKGROUND).unique(return_inverse=True)
    return np.array(image), label


def like_a_cam(label: Tensor, seed: int) -> Tensor:
    """Blur a mask, (H, W), into probabilities, (L, H, W)."""
    rng = torch.Generator().manual_seed(seed)
    each = F.one_hot(label).permute(2, 0, 1)[None].float()
    coarse = F.interpolate(each, size=[-(-side // 16) for side in label.shape], mode="area")
    coarse = (coarse + 0.3 * torch.randn(coarse.shape, generator=rng)).clamp(0.02)
    scores = F.interpolate(coarse, size=label.shape, mode="bilinear")[0]
    return scores / scores.sum(0)


def starts(label: Tensor, seed: int) -> dict[str, Tensor]:
    """Return the unary of each form, (L, H, W)."""
    probabilities = like_a_cam(label, seed)
    return {
        "labels": unary_from_labels(probabilities.argmax(0), len(probabilities)),
        "probabilities": unary_from_probabilities(probabilities),
    }


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Return what ``run`` returns, on the CPU, and the seconds that it takes; the better of two runs."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        marginals = run().cpu()
        seconds.append(time.perf_counter() - start)
    return marginals, min(seconds)


def compare(image: np.ndarray, unary: Tensor, kernel: Bilateral, device: str) -> dict[str, float]:
    """Run both on one photograph."""
    there = unary.to(device)
    ours, our_seconds = timed(lambda: dense_crf(image, there, GAUSSIAN, kernel, backend="torch"))
    theirs, their_seconds = timed(lambda: dense_crf(image, unary, GAUSSIAN, kernel, backend="pydensecrf"))
    return {
        "same_label": (ours.argmax(0) == theirs.argmax(0)).double().mean().item(),
        "moved": (theirs.argmax(0) != unary.argmin(0)).double().mean().item(),
        "mean_difference": (ours - theirs).abs().double().mean().item(),
        "largest_difference": (ours - theirs).abs().max().item(),
        "torch_seconds": our_seconds,
        "pydensecrf_seconds": their_seconds,
    }


def measure(root: Path, names: list[str], size: int, device: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return what each form gave on each photograph."""
    rows: dict[str, dict[str, dict[str, float]]] = {form: {} for form in BILATERAL}
    for seed, name in enumerate(names):
        image, label = load(root, name, size)
        for form, unary in starts(label, seed).items():
            rows[form][name] = compare(image, unary, BILATERAL[form], device)
    return rows


def summary(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Worst agreement and median seconds of one form."""
    table = {key: [row[key] for row in rows.values()] for key in next(iter(rows.values()))}
    return {
        "same_label_min": min(table["same_label"]),
        "same_label_mean": float(np.mean(table["same_label"])),
        "moved_mean": float(np.mean(table["moved"])),
        "mean_difference_max": max(table["mean_difference"]),
        "largest_difference": max(table["largest_difference"]),
        "torch_seconds": float(np.median(table["torch_seconds"])),
        "pydensecrf_seconds": float(np.median(table["pydensecrf_seconds"])),
    }


def main() -> None:
    """Measure, write JSON and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/dense_crf.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = sorted(path.stem for path in (given.root / "SegmentationClassAug").glob("*.png"))
    names = names[:: max(len(names) // given.images, 1)][: given.images]
    rows = measure(given.root, names, given.size, given.device)
    forms = {form: summary(of_form) for form, of_form in rows.items()}
    figures = {
        "images": len(names),
        "size": given.size,
        "device": given.device,
        "forms": forms,
        "rows": rows,
    }
    write_record(given.out, figures)
    for form, row in forms.items():
        print(form, *(f"{key} {value:.3g}" for key, value in row.items()), sep="\n  ")


if __name__ == "__main__":
    main()
