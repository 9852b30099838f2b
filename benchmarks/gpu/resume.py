"""A training that is killed and goes on by the same command, against one that is never broken."""

import csv
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks.gpu.sizes import Setup
from tag2mask.data.sample import write_sample
from tag2mask.io.files import atomic
from tag2mask.io.provenance import LAST
from tag2mask.io.records import record_of
from tag2mask.tasks.checkpoints import check_file

CONFIG = Path("configs/voc/cam_lite0.yaml")
"""Its network: RSA, CFC and the equivariance loss on EfficientNet-Lite0, whose weights a package holds."""
BATCHES = 8
"""In a pass through the drawn scenes."""


def resume(setup: Setup, precision: str) -> dict[str, Any]:
    """Train on drawn scenes unbroken; kill the same training after its first checkpoint; go on by the same command.

    Where the weights of both differ, which on a GPU they may by the order of sums, another unbroken training says how
    much two of these differ: ``unbroken_twice``.
    """
    root = setup.out / "resume" / precision
    shutil.rmtree(root, ignore_errors=True)
    config = root / "config.yaml"
    with atomic(config) as file:
        file.write(yaml.safe_dump(settings(setup, precision), sort_keys=False).encode())
    folders = {name: root / name for name in ("unbroken", "killed", "twice")}
    commands = {name: command(config, folder) for name, folder in folders.items()}
    run(commands["unbroken"])
    killed_at = kill(commands["killed"], folders["killed"])
    run(commands["killed"])
    (losses,), (*_, again) = (losses_of(folders[name]) for name in ("unbroken", "killed"))
    found = {
        "steps": record_of(folders["killed"])["steps"],
        "killed_at_step": killed_at,
        "steps_after": len(again),
        "losses_finite": all(map(math.isfinite, [*losses, *again])),
        "last_loss": {"unbroken": losses[-1], "killed": again[-1]},
        "weights": difference(folders["unbroken"], folders["killed"]),
    }
    if found["weights"]["largest"]:
        run(commands["twice"])
        found["unbroken_twice"] = difference(folders["unbroken"], folders["twice"])
    return found


def sample_of(setup: Setup) -> Path:
    """Draw the scenes where they are missing; return their folder."""
    root = setup.out / "sample"
    write_sample(root, *setup.size.scenes)
    return root


def settings(setup: Setup, precision: str) -> dict[str, Any]:
    """Return the configuration: the network of `CONFIG` on the drawn scenes, deterministic where torch can."""
    size = setup.size
    model = size.with_tiles(yaml.safe_load(CONFIG.read_text())["model"])
    if size.backbone.weights == "none":
        model["init_args"]["backbone"]["weights"] = "none"
    batch = (size.scenes[0] - size.scenes[1]) // BATCHES
    side = size.resumed_side
    crops = {"long_side": [side, side + side // 3], "crop_size": side}
    trainer = {
        "accelerator": size.accelerator, "devices": 1, "precision": precision, "max_epochs": size.resumed_epochs,
        "deterministic": "warn", "logger": False, "limit_val_batches": 0, "log_every_n_steps": 1,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    data = {
        "root": str(sample_of(setup)), "train_split": "train", "val_split": "val", "batch_size": batch,
        "num_workers": 0, "preprocessing": crops,
    }  # fmt: skip
    return {
        "seed_everything": 0,
        "trainer": trainer,
        "checkpoint": {"every_n_train_steps": 5},
        "model": model,
        "data": {"class_path": "tag2mask.data.datamodules.FolderDataModule", "init_args": data},
    }


def command(config: Path, folder: Path) -> list[str]:
    """Return the command that trains in a run folder."""
    words = ["fit", "--config", str(config), "--trainer.default_root_dir", str(folder)]
    return [sys.executable, "-m", "tag2mask", *words]


def run(words: Sequence[str]) -> None:
    """Run a command to its end; ``RuntimeError`` with its last line where it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["nothing was said"])[-1]
        raise RuntimeError(f"tag2mask fit ended with status {done.returncode}: {last}")


def kill(words: Sequence[str], folder: Path) -> int:
    """Start a training, kill it once it has written a checkpoint, and return the step of that."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (folder / LAST).is_file():
        time.sleep(0.02)
    process.kill()
    process.wait()
    if not (folder / LAST).is_file() or record_of(folder)["finished"]:
        raise RuntimeError(f"the training in {folder} ended before it was killed: status {process.returncode}")
    return int(check_file(folder / LAST)["global_step"])


def losses_of(folder: Path) -> list[list[float]]:
    """Return the loss of each step in each log of a run, one log for each time that it was started."""
    logs = []
    for path in sorted(folder.glob("logs/version_*/metrics.csv")):
        with open(path, newline="") as file:
            logs.append([float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]])
    return logs


def difference(one: Path, other: Path) -> dict[str, float]:
    """Return how far the weights of two runs are apart: the ``largest`` difference, and that ``relative`` to a weight.

    ``relative`` is the norm of all differences over the norm of all weights.
    """
    first, second = (vector(check_file(folder / LAST)["state_dict"]) for folder in (one, other))
    apart = (first - second).abs()
    return {"largest": apart.max().item(), "relative": (apart.norm() / first.norm()).item()}


def vector(state: dict[str, Tensor]) -> Tensor:
    """Return all weights in a row, in double precision."""
    return torch.cat([value.flatten().double() for value in state.values()])
