"""How much the pieces measure: ``full`` on a GPU, ``tiny`` in the tests on a CPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.limit import TimeLimit
from benchmarks.random_walk import CASES
from tag2mask.models.backbones import Backbone
from tag2mask.tasks.settings import Tiles


@dataclass(frozen=True)
class Size:
    """What settles the figures of all pieces.

    Attributes:
        accelerator: Lightning's word for the device.
        backbone: of the training steps and the CAMs; its weights do not change how long they take.
        side: of a crop, in pixels.
        min_side: of its tiles, of the methods that enlarge small ones.
        batch: crops in a training step.
        steps: training steps, of which the first ``warmup`` are not timed.
        warmup: see ``steps``.
        precisions: of training steps and CAMs, in Lightning's words.
        photo: height and width of a photograph, for CAMs and CRF.
        photos: how many of them.
        maps: classes, height and width of the maps of the random walk.
        crops: batches whose memory is measured.
        resumed: precisions in which a training is killed and goes on.
        scenes: drawn scenes of that training, and how many of them are for validation.
        resumed_side: of its crops.
        resumed_epochs: its passes through the scenes, of eight steps each.
        preset: of the ablation.
        rows: of the ablation; those that differ only in how CAMs are made share a training.
        seeds: of the ablation.
        options: of the ablation, KEY=VALUE.
    """

    accelerator: str
    backbone: Backbone
    side: int
    min_side: int
    batch: int
    steps: int
    warmup: int
    precisions: tuple[str, ...]
    photo: tuple[int, int]
    photos: int
    maps: tuple[tuple[int, int, int], ...]
    crops: tuple[int, ...]
    resumed: tuple[str, ...]
    scenes: tuple[int, int]
    resumed_side: int
    resumed_epochs: int
    preset: str
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    options: tuple[str, ...] = ()

    def with_tiles(self, model: dict[str, Any]) -> dict[str, Any]:
        """Return the ``model`` of a configuration with tiles of this size, where it has any."""
        if model["init_args"].get("tiles"):
            model["init_args"]["tiles"]["min_side"] = self.min_side
        return model

    @property
    def device(self) -> torch.device:
        """The device of torch."""
        return torch.device("cuda" if self.accelerator == "gpu" else "cpu")


SIZES = {
    "full": Size(
        accelerator="gpu",
        backbone=Backbone("resnet50.tv_in1k", dilate=False),
        side=512,
        min_side=Tiles().min_side,
        batch=32,
        steps=25,
        warmup=5,
        precisions=("bf16-mixed", "32-true"),
        photo=(375, 500),
        photos=20,
        maps=CASES,
        crops=(4, 16, 32),
        resumed=("16-mixed", "bf16-mixed"),
        scenes=(160, 40),
        resumed_side=192,
        resumed_epochs=6,
        preset="voc-full",
        rows=("plain", "puzzle", "both-printed", "paper", "paper-attended"),  # those of docs/results.md
        seeds=(0, 1, 2),
    ),
    "tiny": Size(
        accelerator="cpu",
        backbone=Backbone("resnet18", dilate=False, weights="none"),
        side=64,
        min_side=0,
        batch=2,
        steps=3,
        warmup=1,
        precisions=("bf16-mixed", "32-true"),
        photo=(48, 64),
        photos=2,
        maps=((2, 12, 16),),
        crops=(2,),
        resumed=("bf16-mixed",),
        scenes=(12, 4),
        resumed_side=64,
        resumed_epochs=2,
        preset="smoke",
        rows=("tiles", "rsa"),
        seeds=(0, 1),
        options=("backbone.weights=none",),
    ),
}


@dataclass(frozen=True)
class Setup:
    """What a piece is given.

    Attributes:
        size: how much it measures.
        out: folder of its files.
        data: folder of photographs with tags and masks; None where there are none.
        limit: the time that it may take.
    """

    size: Size
    out: Path
    data: Path | None
    limit: TimeLimit
