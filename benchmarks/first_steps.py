"""Whether the first steps of a configuration are sound, where its network cannot be trained in full.

usage: python -m benchmarks.first_steps VOC2012 [--configs configs/voc/cam_resnet50.yaml ...] [--out FILE]

Each network starts from random weights and takes 50 steps on the tags of 64 photographs, as `tag2mask fit` with crops
of 160 pixels, once in float32 and once in bfloat16. A tile is a quarter of the crop and not enlarged, as at the crop of
512 that the configurations have. All tagged classes are compared: random weights find none. Recorded are all terms of
the loss at the first step, the mean of both classification losses over the first and over the last ten steps, and
whether every logged number was finite. The exit status is 1 where one was not finite, or where the classification
losses did not fall. (The whole loss need not fall: the weights of its terms grow.)
"""

import argparse
import csv
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.record import write_record
from tag2mask.data.datamodules import VOCDataModule

CONFIGS = ("configs/voc/cam_lite0.yaml", "configs/voc/cam_resnet50.yaml", "configs/voc/cam_resnest101.yaml")
PRECISIONS = ("32-true", "bf16-mixed")
PHOTOGRAPHS, BATCH = 64, 8


def first_steps(config: Path, root: str, precision: str, steps: int = 50, side: int = 160) -> dict[str, Any]:
    """Train one network so far, and return what its losses did."""
    share = min(1.0, PHOTOGRAPHS / len(VOCDataModule(root).photos("trainaug")))
    with tempfile.TemporaryDirectory() as folder:
        changed = {
            "trainer.default_root_dir": folder,
            "trainer.accelerator": "cpu",
            "trainer.precision": precision,
            "trainer.max_steps": steps,
            "trainer.max_epochs": -1,
            "trainer.limit_val_batches": 0,
            "trainer.log_every_n_steps": 1,
            "model.init_args.backbone.weights": "none",
            "model.init_args.tiles.min_side": 0,
            "model.init_args.tiles.tags": "all",
            "data.init_args.root": root,
            "data.init_args.subset": share,
            "data.init_args.batch_size": BATCH,
            "data.init_args.num_workers": 0,
            "data.init_args.preprocessing.long_side": f"[{side}, {side + side // 4}]",
            "data.init_args.preprocessing.crop_size": side,
        }
        options = [part for key, value in changed.items() for part in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "tag2mask", "fit", "--config", str(config), *options]
        subprocess.run(command, check=True, env={**os.environ, "WANDB_MODE": "disabled"})
        (log,) = Path(folder).rglob("metrics.csv")
        with log.open() as file:
            rows = [terms_of(row) for row in csv.DictReader(file) if row["train/loss"]]
    return judged(rows)


def judged(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return what the terms of all steps say; ``cfc_similarity`` is nan where no two photographs share a class."""
    sums = [row["loss_cls"] + row.get("loss_cls_tiled", 0.0) for row in rows]
    ends = max(1, min(10, len(rows) // 2))
    first, last = mean(sums[:ends]), mean(sums[-ends:])
    finite = all(math.isfinite(value) for row in rows for name, value in row.items() if name != "cfc_similarity")
    return {
        "steps": len(rows),
        "first_step": {name: round(value, 4) for name, value in rows[0].items()},
        "last_step": {name: round(value, 4) for name, value in rows[-1].items()},
        "classification_first": round(first, 4),
        "classification_last": round(last, 4),
        "finite": finite,
        "sound": finite and last < first,
    }


def terms_of(row: dict[str, str]) -> dict[str, float]:
    """Return the logged terms of one step."""
    return {name.removeprefix("train/"): float(x) for name, x in row.items() if name.startswith("train/") and x}


def main(given: list[str] | None = None) -> int:
    """Run, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="VOC2012 of the devkit, or a drawn set of its layout")
    parser.add_argument("--configs", type=Path, nargs="+", default=[Path(name) for name in CONFIGS])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--side", type=int, default=160, help="of the crops, in pixels")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/first_steps.json"))
    args = parser.parse_args(given)
    found: dict[str, dict[str, Any]] = {}
    for config in args.configs:
        for precision in args.precisions:
            found[f"{config} {precision}"] = steps = first_steps(config, args.root, precision, args.steps, args.side)
            print(config, precision, steps, flush=True)
            write_record(args.out, found)
    return 0 if all(one["sound"] for one in found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
