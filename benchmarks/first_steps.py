"""Whether the first steps of a configuration are sound, where the network itself cannot be trained.

usage: python -m benchmarks.first_steps VOC2012 [--configs configs/voc/cam_resnet50.yaml ...] [--out FILE]

Each network starts from random weights and takes 50 steps on the tags of 64 photographs, scaled to 160 pixels, once in
float32 and once in bfloat16. Recorded are the terms of the loss at the first step, the mean loss of the first and of
the last ten steps, and whether all were finite. The exit status is 1 where a loss was not finite or did not fall.
"""

import argparse
import math
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from benchmarks.memory import task_of
from benchmarks.record import write_record
from tag2mask.data.datamodules import VOCDataModule
from tag2mask.data.transforms import Preprocessing

CONFIGS = ("configs/voc/cam_lite0.yaml", "configs/voc/cam_resnet50.yaml", "configs/voc/cam_resnest101.yaml")
SMALL = Preprocessing(long_side=(160, 200), crop_size=160)
STEPS, PHOTOGRAPHS, BATCH = 50, 64, 8


class Terms(Callback):
    """Keeps every logged term of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Note the terms of a step."""
        logged = trainer.callback_metrics.items()
        self.steps.append({name.removeprefix("train/"): float(value) for name, value in logged})


def first_steps(config: Path, root: str, precision: str) -> dict[str, Any]:
    """Take the steps of one network, and return what its loss did."""
    seed_everything(0, verbose=False)
    task = task_of(yaml.safe_load(config.read_text()))
    data = VOCDataModule(
        root,
        subset=PHOTOGRAPHS / len(VOCDataModule(root).photos("trainaug")),
        batch_size=BATCH,
        num_workers=0,
        preprocessing=SMALL,
    )
    terms = Terms()
    trainer = Trainer(
        accelerator="cpu", precision=precision, max_steps=STEPS, limit_val_batches=0, logger=False, callbacks=[terms],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, data)
    loss = [step["loss"] for step in terms.steps]
    return {
        "first": {name: round(value, 4) for name, value in terms.steps[0].items()},
        "loss_of_the_first_ten": round(mean(loss[:10]), 4),
        "loss_of_the_last_ten": round(mean(loss[-10:]), 4),
        "finite": all(math.isfinite(value) for step in terms.steps for value in step.values()),
    }


def main() -> None:
    """Run, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="VOC2012 of the devkit")
    parser.add_argument("--configs", type=Path, nargs="+", default=[Path(name) for name in CONFIGS])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/first_steps.json"))
    given = parser.parse_args()
    found = {}
    for config in given.configs:
        for precision in ("32-true", "bf16-mixed"):
            found[f"{config} {precision}"] = steps = first_steps(config, given.root, precision)
            print(config, precision, steps, flush=True)
    write_record(given.out, found)
    falls = [one["loss_of_the_last_ten"] < one["loss_of_the_first_ten"] and one["finite"] for one in found.values()]
    raise SystemExit(0 if all(falls) else 1)


if __name__ == "__main__":
    main()
