"""Scores of label maps and of CAMs over photographs and ranks; the shape letters are those of `metrics.functional`."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from tag2mask.metrics.functional import THRESHOLDS, at_each_threshold, confusion, histogram, scores


def by_class(scores: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Name the `scores` of one matrix for a logger: ``val_iou/cat``, ``val_fdr/cat``, ``val_fnr/cat``, by ``names``."""
    rates = {rate: scores[rate].float() for rate in ("iou", "fdr", "fnr")}
    return {f"val_{rate}/{name}": x for rate, values in rates.items() for name, x in zip(names, values, strict=True)}


class SegmentationScores(Metric):
    """mIoU, mFDR and mFNR of label maps; see `scores`. ``num_classes`` has the background; ``IGNORE`` is left out."""

    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add label maps (..., H, W)."""
        self.confusion += confusion(predicted, target, self.num_classes)

    def compute(self) -> dict[str, Tensor]:
        """Return what `scores` returns."""
        return scores(self.confusion)


class ThresholdSweep(Metric):
    """Scores of CAMs at many background ``thresholds``, (N,), in one pass; ``num_classes`` has the background."""

    counts: Tensor
    thresholds: Tensor

    def __init__(self, num_classes: int, thresholds: Sequence[float] = THRESHOLDS) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("thresholds", torch.tensor(sorted(thresholds), dtype=torch.float32))
        counts = torch.zeros(len(thresholds) + 1, num_classes, num_classes, dtype=torch.long)
        self.add_state("counts", counts, dist_reduce_fx="sum")

    def update(self, score: Tensor, winner: Tensor, target: Tensor) -> None:
        """Add photographs, as `histogram` takes them."""
        self.counts += histogram(score, winner, target, self.thresholds, self.num_classes)

    def confusion(self) -> Tensor:
        """Return the confusion matrix of each threshold, (N, G, G) int64."""
        return at_each_threshold(self.counts)

    def compute(self) -> dict[str, Tensor]:
        """Return what `scores` returns, each with a leading axis of thresholds, and ``threshold``, (N,)."""
        return {"threshold": self.thresholds, **scores(self.confusion())}
