"""How far from the best threshold are thresholds that are chosen without a mask?

usage: python -m benchmarks.thresholds CAMS MASKS [--list FILE] [--mean-over 0,8,10,12,13,15,17]
       [--out benchmarks/out/thresholds.json]

CAMS holds CAM files (also `labels --soft true` writes some), MASKS the label PNGs of the same photographs. The best of
the thresholds 0.02 to 0.98 has the highest mean IoU over these mask values. Each line below it is a statistic of the
highest CAM at each position: the threshold that it gives, and the points of mean IoU that this threshold costs.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.record import write_record
from tag2mask.classes import IGNORE
from tag2mask.io.cams import CAMs, read_cam
from tag2mask.io.folders import read_list
from tag2mask.io.labels import read_label
from tag2mask.metrics.functional import at_each_threshold, at_full_size, histogram, scores

THRESHOLDS = torch.arange(1, 50) * 0.02
VALUES = 40_000  # of a sample, drawn with seed 0


def curve(cams: dict[str, CAMs], masks: Path, mean_over: list[int]) -> np.ndarray:
    """Return the mean IoU, in percent, at each threshold."""
    counts = torch.zeros(())
    for name, cam in cams.items():
        truth = torch.from_numpy(read_label(masks / f"{name}.png")).long()
        score, winner = at_full_size(cam.cam, cam.classes, cam.size)
        counts = counts + histogram(score, winner, truth, THRESHOLDS, IGNORE)
    ious = torch.stack([scores(each)["iou"] for each in at_each_threshold(counts)])
    return 100 * ious[:, mean_over].nan_to_num().mean(1).numpy()


def power_mean(exponent: float) -> Callable[[np.ndarray], float]:
    """Return the power mean of values in [0, 1]."""
    return lambda values: float((values**exponent).mean() ** (1 / exponent))


def otsu(values: np.ndarray) -> float:
    """Return the threshold of Otsu 1979, of 256 grey values."""
    grey = (values * 255).astype(np.uint8).reshape(1, -1)
    return cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0] / 255


def gaussians(count: int, below: int, least: float = 0.0) -> Callable[[np.ndarray], float]:
    """Return where the upper of ``count`` Gaussians become more probable than the lowest ``below`` (CoSA has three)."""

    def threshold(values: np.ndarray) -> float:
        values = values[values >= least]
        mean, spread = np.quantile(values, np.linspace(0.1, 0.95, count)), np.full(count, values.std() / count)
        weight = np.full(count, 1 / count)
        for _ in range(200):  # expectation and maximisation
            density = np.exp(-((values[:, None] - mean) ** 2) / (2 * spread**2)) / spread * weight
            share = density / density.sum(1, keepdims=True)
            total = share.sum(0)
            mean = (share * values[:, None]).sum(0) / total
            spread = np.sqrt((share * (values[:, None] - mean) ** 2).sum(0) / total) + 1e-3
            weight = total / len(values)
        grid, order = np.linspace(0, 1, 1001), mean.argsort()
        density = (np.exp(-((grid[:, None] - mean) ** 2) / (2 * spread**2)) / spread * weight)[:, order]
        upper = (density[:, below:].sum(1) > density[:, :below].sum(1)) & (grid > mean[order][below - 1])
        return float(grid[upper][0]) if upper.any() else float("nan")

    return threshold


STATISTICS = {
    "mean": power_mean(1),
    "power mean 1.5": power_mean(1.5),
    "root mean square": power_mean(2),
    "Otsu": otsu,
    "3 Gaussians, highest against others": gaussians(3, 2),
    "3 Gaussians above 0.01, others against lowest": gaussians(3, 1, 0.01),
    "4 Gaussians, two against two": gaussians(4, 2),
    "4 Gaussians above 0.01, two against two": gaussians(4, 2, 0.01),
}


def main() -> None:
    """Read, score, print a line for each statistic, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cams", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("--list", type=Path)
    parser.add_argument("--mean-over", type=lambda text: [int(value) for value in text.split(",")])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/thresholds.json"))
    options = parser.parse_args()
    names = read_list(options.list) if options.list else sorted(path.stem for path in options.cams.glob("*.npz"))
    cams = {name: read_cam(options.cams / f"{name}.npz") for name in names}
    present = sorted({0, *(value for cam in cams.values() for value in cam.classes.tolist())})
    found = curve(cams, options.masks, options.mean_over or present)
    values = np.concatenate([cam.cam.float().amax(0).flatten().numpy() for cam in cams.values() if len(cam.classes)])
    values = np.random.default_rng(0).choice(values, min(VALUES, len(values)))
    best = found.argmax()
    rows = {"best": {"threshold": THRESHOLDS[best].item(), "miou": float(found[best])}}
    print(f"{'best of the sweep':<48} {THRESHOLDS[best]:.2f} {found[best]:6.1f}")
    for name, statistic in STATISTICS.items():
        threshold = statistic(values)
        cost = float(np.interp(threshold, THRESHOLDS.numpy(), found) - found[best])
        rows[name] = {"threshold": threshold, "cost": cost}
        print(f"{name:<48} {threshold:.2f} {cost:6.1f}")
    write_record(options.out, {"cams": str(options.cams), "photographs": len(cams), "rows": rows})


if __name__ == "__main__":
    main()
