"""Scores of labels after the random walk over features of a CAM network, over many settings, on few photographs.

usage: python -m benchmarks.feature_walk photographs runs/folder/cam [--layers blocks.4] [--scales unit] [--betas 10]
       [--steps 256] [--radii 5] [--alphas 2 4] [--thresholds 0.55 0.6] [--out benchmarks/out/feature_walk.json]

``photographs`` comes from benchmarks/forty.py; the masks lie in ``photographs_masks``. The run holds ``cams`` and
``checkpoints/last.ckpt``. Every combination of the lists is a row: mIoU, mFDR and mFNR, in percent, at the best of the
thresholds 0.05 to 0.90; with --alphas the background walks as well, as in AffinityNet, and no threshold is needed; with
--thresholds also after a dense CRF of ten steps. Without a layer the CAMs stay as they are: the rows to compare with.
"""

import argparse
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.record import write_record
from tag2mask.classes import BACKGROUND
from tag2mask.inference.cams import Features
from tag2mask.io.cams import read_cam
from tag2mask.io.images import read_image
from tag2mask.io.labels import read_label
from tag2mask.metrics.functional import at_each_threshold, at_full_size, confusion, histogram, scores
from tag2mask.refine.dense_crf import CRF
from tag2mask.refine.random_walk import feature_transition, random_walk
from tag2mask.refine.recipes import Seed, at_size

LABELS = 5
THRESHOLDS = torch.arange(1, 19) * 0.05
Setting = tuple[str, float, int, int, float | None]
"""Scale, beta, steps, radius, alpha."""


def scaled(features: Tensor, scale: str) -> Tensor:
    """Scale features (D, h, w): each position's (``unit``), all alike (``all``), or each channel's (``channel``)."""
    if scale == "unit":
        return features / features.square().mean(0).sqrt().clamp_min(1e-5)
    deviation = features.std() if scale == "all" else features.std((1, 2), keepdim=True)
    return features / deviation.clamp_min(1e-5)


class Draw:
    """Photographs, their masks, and the CAMs and the network of a run."""

    def __init__(self, photographs: Path, run: Path) -> None:
        images = sorted((photographs / "images").glob("*.jpg"))
        self.images = [read_image(path) for path in images]
        self.cams = [read_cam(run / "cams" / f"{path.stem}.npz") for path in images]
        masks = Path(f"{photographs}_masks")
        self.masks = [torch.from_numpy(read_label(masks / f"{path.stem}.png")).long() for path in images]
        self.checkpoint = run / "checkpoints" / "last.ckpt"

    def maps(self) -> list[Tensor]:
        """Return the CAMs as they are."""
        return [cam.cam.float() for cam in self.cams]

    def features(self, layer: str) -> list[Tensor]:
        """Return the features of every photograph."""
        network = Features(self.checkpoint, [layer])
        return [network(image) for image in self.images]

    def walked(self, features: list[Tensor], setting: Setting) -> list[Tensor]:
        """Return the CAMs after the walk; with an alpha the background's score before them."""
        scale, beta, steps, radius, alpha = setting
        walked = []
        for cam, of_photo in zip(self.maps(), features, strict=True):
            cam = at_size(cam, of_photo.shape[-2:])
            start = cam if alpha is None else Seed(None, alpha).scores(cam)
            spread = random_walk(start, feature_transition(scaled(of_photo, scale), radius, beta), steps)
            walked.append(spread / spread.max().clamp_min(1e-5) if alpha is None else spread)
        return walked

    def best(self, maps: list[Tensor]) -> dict[str, float]:
        """Score CAMs at the threshold that suits them best."""
        counts = torch.zeros(len(THRESHOLDS) + 1, LABELS, LABELS, dtype=torch.long)
        for cam, map_, mask in zip(self.cams, maps, self.masks, strict=True):
            counts += histogram(*at_full_size(map_, cam.classes.long(), cam.size), mask, THRESHOLDS, LABELS)
        matrices = at_each_threshold(counts)
        best = int(scores(matrices)["miou"].argmax())
        return {"threshold": round(THRESHOLDS[best].item(), 2), **percent(matrices[best])}

    def labelled(self, maps: list[Tensor], seed: Seed | None, crf: CRF | None) -> dict[str, float]:
        """Score the labels that seed and CRF make of maps; without a seed these begin with the background's score."""
        matrix = torch.zeros(LABELS, LABELS, dtype=torch.long)
        for image, cam, map_, mask in zip(self.images, self.cams, maps, self.masks, strict=True):
            full = at_size(map_, cam.size)
            full = full if seed is None else seed.scores(full)
            label = (full if crf is None else crf.from_scores(image, full)).argmax(0)
            matrix += confusion(torch.cat([torch.tensor([BACKGROUND]), cam.classes.long()])[label], mask, LABELS)
        return percent(matrix)


def percent(matrix: Tensor) -> dict[str, float]:
    """Return the three scores of a confusion matrix."""
    values = scores(matrix)
    return {key: round(100 * values[key].item(), 1) for key in ("miou", "mfdr", "mfnr")}


def report(table: dict[str, dict[str, float]], name: str, row: dict[str, float]) -> None:
    """Keep a row and print it."""
    table[name] = row
    print(f"{name:<60}", *(f"{key} {value:g}" for key, value in row.items()), flush=True)


def main() -> None:
    """Score every combination, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--layers", nargs="*", default=[])
    parser.add_argument("--scales", nargs="*", default=["unit"])
    for option, kind, default in (("betas", float, [10.0]), ("steps", int, [256]), ("radii", int, [5])):
        parser.add_argument(f"--{option}", nargs="*", type=kind, default=default)
    for option in ("alphas", "thresholds"):
        parser.add_argument(f"--{option}", nargs="*", type=float, default=[])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/feature_walk.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = Draw(options.photographs, options.run)
    table: dict[str, dict[str, float]] = {}
    settings = list(product(options.scales, options.betas, options.steps, options.radii, [None, *options.alphas]))
    for layer in options.layers or [None]:
        features = [] if layer is None else draw.features(layer)
        for scale, beta, steps, radius, alpha in settings if layer else [("", 0.0, 0, 0, None)]:
            name = f"{layer} {scale} beta {beta:g} steps {steps} radius {radius}" if layer else "CAM"
            maps = draw.walked(features, (scale, beta, steps, radius, alpha)) if layer else draw.maps()
            if alpha is not None:
                report(table, f"{name} background {alpha:g}", draw.labelled(maps, None, None))
                continue
            report(table, name, draw.best(maps))
            for threshold in options.thresholds:
                report(table, f"{name}, CRF at {threshold:g}", draw.labelled(maps, Seed(threshold), CRF()))
    write_record(options.out, {"photographs": len(draw.images), "rows": table})


if __name__ == "__main__":
    main()
