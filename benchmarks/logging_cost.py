"""What pictures, tables and W&B cost a training.

usage: python -m benchmarks.logging_cost [--root data/sample] [--out benchmarks/out/logging_cost.json]

- demo: the training of configs/demo/cam_tuned.yaml on the sample set, to its end, with W&B offline beside the CSV log.
  The time in hooks of callbacks and in W&B's logger is added up; its share is of the fit, validations included.
- voc: the hooks of `CAMPictures` alone, on made-up CAMs of VOC's size: 1,449 photographs of 375 x 500, 20 classes, 1 to
  3 of them in each, at stride 4, on the CPU. On a GPU the photographs are scored there. No network is run.

Seconds are of the clock, and of the processor in the training's own process. W&B's service is a process of its own:
what it takes from the processor is in the clock alone. That of other processes, loaders above all, is counted apart.
"""

import argparse
import contextlib
import functools
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import wandb
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger

from benchmarks.record import write_record
from tag2mask.callbacks.pictures import CAMPictures, MaskPictures
from tag2mask.callbacks.runs import RunRecord
from tag2mask.callbacks.scores import ClassTable
from tag2mask.callbacks.throughput import Throughput
from tag2mask.classes import IGNORE, VOC
from tag2mask.cli.main import main as main_of_tag2mask
from tag2mask.data.transforms import Preprocessing
from tag2mask.io.cams import CAMs

WANDB = "[{class_path: lightning.pytorch.loggers.WandbLogger, init_args: {project: benchmark}}]"
TIMED = {
    "pictures": [(MaskPictures, "on_validation_batch_end"), (MaskPictures, "on_validation_epoch_end")],
    "table": [(ClassTable, "on_validation_end")],
    "throughput": [(Throughput, "on_train_batch_end")],
    "start of W&B": [(wandb, "init")],
    "run.json and settings": [(RunRecord, "on_fit_start")],
    "scalars to W&B": [(WandbLogger, "log_metrics")],
    "fit": [(Trainer, "fit")],
}
MEDIA = ("pictures", "table")
PHOTOS, HEIGHT, WIDTH = 1449, 375, 500


class Clock:
    """Adds up seconds by what they are spent on; what is inside of something else that is timed counts there alone.

    Attributes:
        wall: seconds of the clock.
        cpu: seconds of the processor, of this process.
    """

    def __init__(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self.open: list[str] = []

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the time of a block to ``name``."""
        if self.open and self.open[-1] != "fit":
            yield
            return
        self.open.append(name)
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.open.pop()
            self.wall[name] += time.perf_counter() - wall
            self.cpu[name] += time.process_time() - cpu

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Time every call of a method of a class, or of a function of a module."""
        plain: Callable[..., Any] = getattr(owner, method)

        @functools.wraps(plain)  # the command line reads the signature of Trainer.fit
        def timed(*words: Any, **named: Any) -> Any:
            with self.time(name):
                return plain(*words, **named)

        setattr(owner, method, timed)

    def figures(self) -> dict[str, Any]:
        """Return seconds by name, and the share of the media in the fit."""
        rows = {
            name: {"wall_seconds": round(self.wall[name], 3), "cpu_seconds": round(self.cpu[name], 3)} for name in TIMED
        }
        wall, cpu = (sum(kind[name] for name in MEDIA) / kind["fit"] for kind in (self.wall, self.cpu))
        return {"seconds": rows, "share_of_media": {"wall": round(wall, 5), "cpu": round(cpu, 5)}}


def demo(root: Path) -> dict[str, Any]:
    """Train the demo's CAM network with W&B, and return what logging took."""
    clock = Clock()
    for name, methods in TIMED.items():
        for owner, method in methods:
            clock.watch(owner, method, name)
    with tempfile.TemporaryDirectory() as run:
        command = ["fit", "--config", "configs/demo/cam_tuned.yaml", "--data.init_args.root", str(root)]
        command += ["--trainer.default_root_dir", f"{run}/demo", "--trainer.logger", WANDB]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        main_of_tag2mask([*command, "--trainer.enable_progress_bar", "false"])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        validations = len(list(Path(run).glob("demo/pictures/step_*")))
        drawn = len(list(Path(run).rglob("demo/pictures/**/*.png")))
    children = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "validations": validations,
        "pictures": drawn,
        **clock.figures(),
        "cpu_seconds_of_children": round(children, 1),
    }


def photograph(number: int, rng: np.random.Generator) -> tuple[CAMs, dict[str, Any]]:
    """Make up the CAMs of a photograph, and the batch that holds it."""
    classes = torch.from_numpy(rng.choice(np.arange(1, len(VOC)), size=rng.integers(1, 4), replace=False))
    cam = torch.from_numpy(rng.random((len(classes), -(-HEIGHT // 4), -(-WIDTH // 4)), np.float32))
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.long)
    mask[:, 100:250, 100:300], mask[:, 95:100, 100:300] = int(classes[0]), IGNORE
    image = torch.from_numpy(rng.random((1, 3, HEIGHT // 5, WIDTH // 5), np.float32)).repeat_interleave(5, 2)
    batch = {"image": image.repeat_interleave(5, 3), "mask": mask, "size": torch.tensor([[HEIGHT, WIDTH]])}
    return CAMs(cam, classes, (HEIGHT, WIDTH)), {**batch, "name": [f"2007_{number:06d}"]}


def voc(photos: int) -> dict[str, Any]:
    """Show a validation of VOC's size to `CAMPictures`, and return what that took."""
    clock, pictures, rng = Clock(), CAMPictures(), np.random.default_rng(0)
    module: Any = SimpleNamespace(num_classes=len(VOC) - 1, class_names=VOC[1:])
    with tempfile.TemporaryDirectory() as run:
        logger = WandbLogger(project="benchmark", save_dir=run)
        data = SimpleNamespace(preprocessing=Preprocessing())
        facts = {"sanity_checking": False, "is_global_zero": True, "default_root_dir": run, "global_step": 1}
        trainer: Any = SimpleNamespace(loggers=[logger], datamodule=data, **facts)
        logger.experiment.log({"started": 1})
        pictures.on_validation_epoch_start(trainer, module)
        for number in range(photos):
            outputs, batch = photograph(number, rng)
            with clock.time("the panel" if number < pictures.count else "the others"):
                pictures.on_validation_batch_end(trainer, module, outputs, batch, number)
        with clock.time("the worst"):
            pictures.on_validation_epoch_end(trainer, module)
        logger.experiment.finish()
    seconds = {name: round(value, 3) for name, value in clock.cpu.items()}
    whole = sum(clock.cpu.values())
    return {
        "photographs": photos,
        "cpu_seconds": {**seconds, "validation": round(whole, 2)},
        "training_seconds_a_validation_for_2_percent": round(whole / 0.02),
    }


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/sample"), help="of `tag2mask prepare sample`")
    parser.add_argument("--photos", type=int, default=PHOTOS, help="of the validation of VOC's size")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/logging_cost.json"))
    given = parser.parse_args()
    figures = {"voc": voc(given.photos), "demo": demo(given.root)}
    print(write_record(given.out, figures))


if __name__ == "__main__":
    main()
