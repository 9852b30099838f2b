"""One row of the ablation, from photographs to its record."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import Dataset

from benchmarks.ablation.cache import CachedPhotographs, CachedSet, Upper, Views, cached
from benchmarks.ablation.score import Curve, part_of, scored, sweep
from benchmarks.ablation.settings import Run
from benchmarks.limit import OutOfTime, TimeLimit
from tag2mask.callbacks.runs import LastCheckpoint
from tag2mask.data.datamodules import FolderDataModule, VOCDataModule, WSSSDataModule
from tag2mask.data.datasets import EvaluationSet, Photo, ResumableLoader, SeededSampler, TrainingSet
from tag2mask.data.transforms import EvaluationTransform, TrainingTransform
from tag2mask.models.attention import Attention
from tag2mask.models.cam import TwoSteps, merged
from tag2mask.models.tiling import enlargement
from tag2mask.tasks.cam import CAMTask
from tag2mask.tasks.settings import CAMInference, Tiles


class CachedTask(CAMTask):
    """A `CAMTask` whose images are the maps below its trained stages."""

    def cut(self, trained: int) -> "CachedTask":
        """Fill the network with pretrained weights and leave its last ``trained`` blocks and head."""
        self.net.load_pretrained()
        self.filled = True
        self.net.backbone = Upper(self.net, trained)
        self.net.config = replace(self.net.config, output_stride=1, frozen=())
        self.net.train()
        return self

    def branches(self, tiles: Tiles, batch: dict[str, Any]) -> TwoSteps:
        """Run both branches from the cached maps of the whole image and of its tiles."""
        maps = {name.split("/")[1]: batch[name] for name in batch if name.startswith("tiles")}
        maps = {name: value.transpose(0, 1).flatten(0, 1) for name, value in maps.items()}  # in the order of `tile`
        cam, features = self.net(maps["below"])
        layer = tiles.attention.layer if tiles.attention is not None else None
        guide = features if layer is None else maps[layer]
        whole = self.net(batch["image"])
        factor = tiles.grid * cam.shape[-1] // whole[0].shape[-1]
        return merged(whole, (cam, features, guide), tiles.grid, tiles.attention, factor, tiles.refined)


def data_module(root: Path) -> WSSSDataModule:
    """Return the data module that lists the photographs of ``root``: VOC's layout, or a folder with tags."""
    return VOCDataModule(str(root)) if (root / "JPEGImages").is_dir() else FolderDataModule(str(root))


def drawn(photos: list[Photo], count: int) -> tuple[list[Photo], list[Photo]]:
    """Draw ``count`` photographs with seed 0 (0: all); return them and the others."""
    order = np.random.default_rng(0).permutation(len(photos))
    chosen = set(order[: count or len(photos)].tolist())
    return [p for i, p in enumerate(photos) if i in chosen], [p for i, p in enumerate(photos) if i not in chosen]


def train(
    runs: Sequence[Run], root: Path, cache: Path, checkpoint: Path, limit: TimeLimit
) -> tuple[CAMTask, list[dict[str, Any]]]:
    """Train a row and score it, in each of several ways of making CAMs.

    Args:
        runs: its settings, which differ in nothing but `Run.inference`.
        root: folder of the data set.
        cache: folder of cached features.
        checkpoint: file of a training that was stopped; where it is there, this one goes on with it.
        limit: the time of this call. Scoring cannot stop half-way: it begins where half of the time is left.

    Returns:
        The trained network, and for each of ``runs`` a record: ``scores``, ``curve``, ``seconds`` of training and
        scoring.

    Raises:
        OutOfTime: there was too little time to train and to score.
    """
    run = runs[0]
    data = data_module(root)
    train_photos, _ = drawn(data.photos(run.train_split), run.photos)
    loader = ResumableLoader(
        source := training_set(run, train_photos, data.num_classes, cache),
        batch_size=run.batch_size,
        sampler=SeededSampler(source, run.seed),
        num_workers=run.workers,
        drop_last=len(train_photos) >= run.batch_size,
    )
    examiners = [Examiner(one, data, cache) for one in runs]
    seed_everything(run.seed, verbose=False)
    task = network(run, data)
    keeper = Checkpoint(checkpoint, limit)
    fit(run, task, loader, [one.curve for one in examiners], keeper)
    if limit.reached(0.5):
        raise OutOfTime(f"trained, not yet scored: {checkpoint}")
    return task, [one.record(task, keeper.seconds) for one in examiners]


def network(run: Run, data: WSSSDataModule) -> CAMTask:
    """Return the network of a row as it begins: pretrained, without its frozen part where features are cached."""
    settings: dict[str, Any] = {
        "backbone": run.backbone, "tiles": run.tiles, "optimizer": run.optimizer, "inference": run.inference,
    }  # fmt: skip
    if run.trained is None:
        return CAMTask(data.num_classes, data.class_names, **settings)
    return CachedTask(data.num_classes, data.class_names, **settings).cut(run.trained)


class Examiner:
    """Scores a network in the way of one run: a few times while it trains (``curve``), and at the end.

    Attributes:
        how: the way its CAMs are made.
        scored: the split whose photographs are scored, all of them.
        samples: photographs with masks: ``tune``, which choose the threshold, and those that are scored.
        curve: the callback that scores while training.
    """

    def __init__(self, run: Run, data: WSSSDataModule, cache: Path) -> None:
        """Draw the photographs; their features are cached where that is missing."""
        tune, rest = drawn(data.photos(run.tune_split), run.tune)
        sets = {"tune": tune, run.scored: data.photos(run.scored), f"rest of {run.tune_split}": rest}
        self.samples = {name: evaluated(run, photos, data.num_classes, cache) for name, photos in sets.items()}
        self.how, self.scored = inference(run), run.scored
        self.classes = [("background", *data.class_names).index(name) for name in run.mean_over]
        part = part_of(self.samples[run.scored], run.tune)
        self.curve = Curve(run.points, self.samples["tune"], part, self.how, self.classes)

    def record(self, task: CAMTask, trained_in: float) -> dict[str, Any]:
        """Return the record of a network that took ``trained_in`` seconds to train."""
        begun = time.monotonic()
        swept = {name: sweep(task, one, self.how) for name, one in self.samples.items()}
        counts = {name: one.counts for name, one in swept.items()}
        return {
            "scores": scored(counts.pop("tune"), counts, self.classes),
            "attention_entropy": swept[self.scored].entropy,
            "curve": self.curve.points,
            "steps": int(task.global_step),
            "seconds": {"training": round(trained_in, 1), "all": round(trained_in + time.monotonic() - begun, 1)},
        }


class Checkpoint(LastCheckpoint):
    """Keeps the state of a training in one file; stops where the time is over, to go on from there.

    Lightning's `Timer` counts the time of earlier calls too: a training that goes on would stop at once.

    Attributes:
        path: the file, written every 250 steps, before a stop, and when the training ends.
        limit: the time of this call.
        seconds: that the training has taken, earlier calls included.
    """

    def __init__(self, path: Path, limit: TimeLimit) -> None:
        super().__init__(str(path.parent))
        self.path, self.limit = path, limit
        self.CHECKPOINT_NAME_LAST = path.stem
        self.seconds, self.before, self.since = 0.0, 0.0, time.monotonic()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        """Write the file where it is time, and stop."""
        self.seconds = self.before + time.monotonic() - self.since
        super().on_train_batch_end(trainer, pl_module, *rest)
        if self.limit.reached() and trainer.global_step < pl_module.total_steps:
            self._save_last_checkpoint(trainer, {})
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the trained network; a training that was stopped keeps the state of its last step."""
        if trainer.global_step >= pl_module.total_steps:
            super().on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds, too."""
        return {**super().state_dict(), "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from the seconds of earlier calls."""
        super().load_state_dict(state_dict)
        self.seconds = self.before = state_dict["seconds"]


def fit(run: Run, task: CAMTask, loader: ResumableLoader, curves: list[Curve], checkpoint: Checkpoint) -> None:
    """Train with Lightning, without logger; a row that was stopped or killed goes on from its checkpoint."""
    for number, curve in enumerate(curves):
        curve.number = number
    trainer = Trainer(
        accelerator=run.accelerator,
        devices=1,
        precision=run.precision,  # type: ignore[arg-type]
        max_epochs=run.epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*curves, checkpoint],
    )
    there = checkpoint.path.is_file()
    if there:
        print(f"going on with {checkpoint.path}", flush=True)
    trainer.fit(task, loader, ckpt_path=str(checkpoint.path) if there else None)
    if trainer.global_step < task.total_steps:
        steps = f"step {trainer.global_step} of {task.total_steps} after {checkpoint.seconds:.0f} s"
        raise OutOfTime(f"{steps}: {checkpoint.path}")
    if run.accelerator == "gpu":
        task.cuda()


def training_views(run: Run) -> Views:
    """Return what must be cached to train: the mirror images and the tiles too."""
    assert run.trained is not None
    if run.tiles is None:
        return Views(run.trained, run.side, run.mirror)
    view = f"tiles{run.tiles.grid}x{enlargement((run.side, run.side), run.tiles.grid, run.tiles.min_side)}"
    return Views(run.trained, run.side, run.mirror, view, _layers(run.tiles.attention))


def _layers(attention: Attention | None) -> tuple[str, ...]:
    return () if attention is None or attention.layer is None else (attention.layer,)


def inference(run: Run) -> CAMInference:
    """Return how CAMs are made; with cached features the map of a lower layer passes through `Upper.guide`."""
    if run.trained is None or not _layers(run.inference.attention):
        return run.inference
    return replace(run.inference, attention=replace(run.inference.attention, layer="guide"))  # type: ignore[type-var]


def training_set(run: Run, photos: list[Photo], num_classes: int, cache: Path) -> Dataset[Any]:
    """Crops, or cached features of the squeezed photographs."""
    if run.trained is None:
        return TrainingSet(photos, num_classes, TrainingTransform(run.preprocessing))
    return CachedSet(photos, cached(photos, run.backbone, training_views(run), run.preprocessing, cache), num_classes)


def evaluated(run: Run, photos: list[Photo], num_classes: int, cache: Path) -> Dataset[Any]:
    """Whole photographs with masks, or the cached features of the squeezed ones."""
    if run.trained is None:
        return EvaluationSet(photos, num_classes, EvaluationTransform(run.preprocessing), masks=True)
    views = Views(run.trained, run.side, full_layers=_layers(run.inference.attention))
    features = cached(photos, run.backbone, views, run.preprocessing, cache)
    return CachedPhotographs(photos, features, num_classes)
