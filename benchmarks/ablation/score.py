"""Scores of a trained network's CAMs, at a threshold that other photographs chose, and curves while it trains."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils.data import Dataset, Subset

from tag2mask.metrics.functional import at_full_size, scores
from tag2mask.metrics.scores import ThresholdSweep
from tag2mask.tasks.cam import CAMTask
from tag2mask.tasks.settings import CAMInference

NAMES = ("miou", "mfdr", "mfnr")


class Swept(NamedTuple):
    """What the CAMs of some photographs came to.

    Attributes:
        counts: at all thresholds.
        entropy: mean of the attention that they were made with, in [0, 1]; None without.
    """

    counts: ThresholdSweep
    entropy: float | None


@torch.no_grad()
def sweep(task: CAMTask, samples: Dataset[dict[str, Any]], how: CAMInference) -> Swept:
    """Make and count the CAMs of ``samples`` (as `EvaluationSet` gives them, with masks)."""
    task.eval()
    counts, entropies = ThresholdSweep(task.num_classes + 1), []
    for index in range(len(samples)):  # type: ignore[arg-type]
        sample = samples[index]
        image = sample["image"][None].to(task.device)
        cams, _, entropy = task.cams(image, sample["label"][None].to(task.device), sample["size"][None], how)
        score, winner = at_full_size(cams.cam, cams.classes, sample["mask"].shape)
        counts.update(score.cpu(), winner.cpu(), sample["mask"])
        if entropy is not None:
            entropies.append(entropy.item())
    return Swept(counts, mean(entropies) if entropies else None)


def means(found: Mapping[str, Tensor], at: int, classes: Sequence[int]) -> dict[str, float]:
    """Return the threshold and mIoU, mFDR, mFNR at place ``at`` of a sweep, over ``classes`` (none: over all).

    With them comes the IoU of each class, ``iou_0`` and so on, and ``lowest``, the lowest of these: a mean can fall for
    one class that is lost.
    """
    over = list(classes) or list(range(found["iou"].shape[1]))
    scores = {name: found[name[1:]][at][over].nanmean().item() for name in NAMES}
    each = {f"iou_{index}": found["iou"][at][index].item() for index in over}
    each = {name: value for name, value in each.items() if value == value}  # without classes that no photograph has
    threshold = round(found["threshold"][at].item(), 2)
    return {"threshold": threshold, **scores, "lowest": min(each.values(), default=float("nan")), **each}


def best(found: Mapping[str, Tensor], classes: Sequence[int]) -> int:
    """Return the place of the threshold with the highest mIoU over ``classes``."""
    values = [means(found, at, classes)["miou"] for at in range(len(found["threshold"]))]
    return max(range(len(values)), key=values.__getitem__)


def scored(tune: ThresholdSweep, sets: Mapping[str, ThresholdSweep], classes: Sequence[int]) -> dict[str, Any]:
    """Return, for each of ``sets`` and all of them together, ``fixed``: scores at the threshold best on ``tune``.

    ``best`` are those at the best threshold of the set itself, an upper bound.
    """
    confusions = {name: one.confusion() for name, one in sets.items()}
    confusions |= {"all": sum(confusions.values(), torch.zeros(())).long(), "tune": tune.confusion()}
    at = best(_found(tune, confusions["tune"]), classes)
    result = {}
    for name, confusion in confusions.items():
        found = _found(tune, confusion)
        result[name] = {"fixed": means(found, at, classes), "best": means(found, best(found, classes), classes)}
    return result


def _found(like: ThresholdSweep, confusion: Tensor) -> dict[str, Tensor]:
    """Scores of the confusion matrices of a sweep with the thresholds of ``like``."""
    return {"threshold": like.thresholds, **scores(confusion)}


class Curve(Callback):
    """Scores a few times during training, with the mean of each loss term since the time before.

    Attributes:
        points: one a time: ``step``, scores of ``part`` at the threshold that is best on ``tune``, and the terms.
        seen: the last value of each term: it counts again in a step that lacks the term, as CFC's where no photographs
            share a class.
        terms: of each step since the last point.
        number: among the curves of a training.
    """

    def __init__(
        self, points: int, tune: Dataset[Any], part: Dataset[Any], how: CAMInference, classes: Sequence[int]
    ) -> None:
        """Score ``points`` times, the last time at the end."""
        self.count, self.tune, self.part, self.how, self.classes = points, tune, part, how, classes
        self.points: list[dict[str, Any]] = []
        self.seen: dict[str, float] = {}
        self.terms: list[dict[str, float]] = []
        self.number = 0

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint."""
        return f"Curve {self.number}"

    def state_dict(self) -> dict[str, Any]:
        """Return what a training that goes on needs."""
        return {"points": self.points, "seen": self.seen, "terms": self.terms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the points of a training that goes on."""
        self.points, self.seen, self.terms = (state_dict[name] for name in ("points", "seen", "terms"))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        """Note the terms, and score where it is time."""
        logged = trainer.callback_metrics.items()
        self.seen = self.seen | {name.removeprefix("train/"): float(value) for name, value in logged}
        self.terms.append(self.seen)
        step, steps = int(trainer.global_step), int(pl_module.total_steps)
        if step * self.count // steps == (step - 1) * self.count // steps:
            return
        tune, part = (sweep(pl_module, samples, self.how).counts for samples in (self.tune, self.part))
        pl_module.train()
        means_of_terms = {name: sum(t[name] for t in self.terms) / len(self.terms) for name in self.terms[0]}
        scores = scored(tune, {"part": part}, self.classes)["part"]["fixed"]
        self.points.append({"step": step, **scores, **means_of_terms})
        self.terms = []


def part_of(samples: Dataset[Any], count: int) -> Dataset[Any]:
    """Return ``count`` samples, evenly spread; all where there are fewer."""
    return Subset(samples, evenly(len(samples), count))  # type: ignore[arg-type]


def evenly(total: int, count: int) -> list[int]:
    """Return ``count`` of the places 0 to ``total`` - 1, evenly spread; all where there are fewer."""
    count = min(count, total)
    return [index * total // count for index in range(count)]
