"""The training step: ours through Lightning's trainer against a plain loop; images a second and memory."""

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from statistics import median
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks.ablation.settings import PUZZLE
from benchmarks.gpu import plain
from benchmarks.gpu.sizes import Setup, Size
from benchmarks.limit import TimeLimit
from tag2mask.classes import VOC
from tag2mask.errors import UnreachableError
from tag2mask.models.backbones import Backbone
from tag2mask.tasks.cam import CAMTask
from tag2mask.tasks.settings import Tiles

Result = TypeVar("Result")


class Held:
    """A loader that hands out one batch, which lies on the device, ``steps`` times; fewer where the time is over."""

    def __init__(self, batch: dict[str, Any], steps: int, least: int = 2, limit: TimeLimit = TimeLimit()) -> None:
        self.batch, self.steps, self.least, self.limit = batch, steps, least, limit
        self.batch_size = len(batch["image"])

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in range(self.steps):
            if step < self.least or not self.limit.reached():
                yield self.batch


class Clock(Callback):
    """Takes the time and the loss after each step of a training, once the device has done it."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the time of Lightning's step."""
        self.tick(outputs["loss"])

    def tick(self, loss: Tensor) -> None:
        """Take the time of a step."""
        if loss.is_cuda:
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.losses.append(loss.detach())

    def figures(self, images: int, warmup: int) -> dict[str, Any]:
        """Return the median step after the first ``warmup``, of so many images, and the losses of the first two."""
        seconds = [after - before for before, after in zip(self.ends, self.ends[1:], strict=False)][warmup - 1 :]
        return {
            "images_per_second": round(images / median(seconds), 2),
            "seconds_a_step": {"median": median(seconds), "low": min(seconds), "high": max(seconds)},
            "steps_timed": len(seconds),
            "first_losses": [loss.item() for loss in self.losses[:2]],
        }


def with_peak(device: torch.device, run: Callable[[], Result]) -> tuple[Result, float | None]:
    """Run; return the result, and the most memory that PyTorch held on a GPU meanwhile, in GB, None on a CPU."""
    if device.type != "cuda":
        return run(), None
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    result = run()
    torch.cuda.synchronize()
    return result, round(torch.cuda.max_memory_allocated() / 1e9, 2)


def trained(task: LightningModule, loader: Held, precision: str, accelerator: str) -> Clock:
    """Train a task of ours on a held batch, as `tag2mask fit` does but without loggers and checkpoints."""
    clock = Clock()
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=1,
        benchmark=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*no `val_dataloader`")
        trainer.fit(task, loader)
    return clock


@cache
def start(backbone: Backbone) -> tuple[dict[str, Tensor], str]:
    """Return the weights that all networks begin with: those of the hub where it is reached, else ``random`` ones."""
    torch.manual_seed(0)
    task = CAMTask(len(VOC) - 1, backbone=backbone, tiles=None)
    source = backbone.weights or "none"
    try:
        task.fill()
    except UnreachableError:
        source = "none"
    return task.net.state_dict(), "random" if source == "none" else source


def network(size: Size, tiles: Tiles | None) -> CAMTask:
    """Return a CAM network of VOC's classes with the weights of `start`."""
    task = CAMTask(len(VOC) - 1, VOC[1:], replace(size.backbone, weights="none"), tiles)
    task.net.load_state_dict(start(size.backbone)[0])
    return task


def batch_of(size: Size) -> dict[str, Any]:
    """Return random crops with two tags each, on the device."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(size.batch, 3, size.side, size.side, generator=generator)
    classes = torch.rand(size.batch, len(VOC) - 1, generator=generator).topk(2).indices
    label = torch.zeros(size.batch, len(VOC) - 1).scatter(1, classes, 1.0)
    names = [f"crop {number}" for number in range(size.batch)]
    return {"image": image.to(size.device), "label": label.to(size.device), "name": names}


def step(setup: Setup, precision: str) -> dict[str, Any]:
    """Measure a training step of each of our methods, and of the plain loop in both memory formats.

    Ours are a plain classifier, Puzzle-CAM with the full weight of its L1 term from the first step on, and the default:
    RSA and CFC. The loop starts from the same weights: its first losses are those of ``puzzle``, up to rounding.
    """
    size = setup.size
    default = replace(Tiles(), min_side=size.min_side)
    methods = {"plain CAM": None, "puzzle": replace(PUZZLE, ramp=0.0), "default": default}
    loader = Held(batch_of(size), size.steps, size.warmup + 3, setup.limit)
    found: dict[str, Any] = {"weights": start(size.backbone)[1]}
    for name, tiles in methods.items():
        task = network(size, tiles)
        found[name] = measured(size, partial(trained, task, loader, precision, size.accelerator))
    for name, memory in (("loop", torch.contiguous_format), ("loop, channels last", torch.channels_last)):
        found[name] = measured(size, partial(loop, size, loader, precision, memory))
    return found


def loop(size: Size, loader: Held, precision: str, memory: torch.memory_format) -> Clock:
    """Train the plain loop, from the weights of ours, in a memory format."""
    ours, clock = network(size, None).net, Clock()
    net = plain.PlainNet(size.backbone.name.split(".")[0], len(VOC) - 1)
    net.backbone.load_state_dict(ours.backbone.state_dict())
    net.classifier.load_state_dict(ours.classifier.state_dict())
    net.to(size.device, memory_format=memory)
    torch.backends.cudnn.benchmark = True
    plain.train(net, loader, len(loader), precision.startswith("bf16"), clock.tick)
    return clock


def measured(size: Size, run: Callable[[], Clock]) -> dict[str, Any]:
    """Return the figures of a training and its peak memory."""
    clock, peak = with_peak(size.device, run)
    return {**clock.figures(size.batch, size.warmup), "peak_gb": peak}
