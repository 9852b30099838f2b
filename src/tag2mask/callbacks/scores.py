"""Scores of the CAMs after each validation, and a table of the classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from tag2mask.classes import VOC
from tag2mask.io.files import write_json
from tag2mask.metrics.functional import THRESHOLDS, at_full_size
from tag2mask.metrics.scores import ThresholdSweep, by_class

SCORES = ("iou", "fdr", "fnr")
COLUMNS = ["class", *SCORES]


class ClassTable(Callback):
    """Keep IoU, FDR and FNR of each class, as fractions, in a table; the cell of a class that has none is empty.

    It is ``scores/step_<n>.json`` in the run folder, and ``table/classes`` of every logger that has ``log_table``.
    Nothing is kept where the classes are not scored.
    """

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Gather the scores of the classes from what was logged."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        logged = trainer.callback_metrics
        names = [name for name in (VOC[0], *pl_module.class_names) if f"val_iou/{name}" in logged]
        rows: list[list[Any]] = [[name, *(_number(logged[f"val_{key}/{name}"]) for key in SCORES)] for name in names]
        if not rows:
            return
        path = Path(trainer.default_root_dir) / "scores" / f"step_{trainer.global_step:06d}.json"
        write_json(path, {"columns": COLUMNS, "data": rows})
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                logger.log_table("table/classes", columns=COLUMNS, data=rows, step=trainer.global_step)


def _number(value: Any) -> float | None:
    """A score as a number; None for nan."""
    number = float(value)
    return number if number == number else None


class CAMScores(Callback):
    """Log mIoU, mFDR and mFNR of the CAMs on every photograph of the validation split, at full size.

    ``val/cam_miou``, ``val/cam_mfdr``, ``val/cam_mfnr`` are those of the best threshold of the sweep, which is
    ``val/cam_threshold``: it is chosen on the scored photographs, so they are upper bounds. With ``threshold`` they are
    also logged at that one, as ``val/cam_miou_fixed`` and so on. Means are over all classes with the background.
    Those of each class, at the best threshold, are ``val_iou/<class>``, ``val_fdr/<class>`` and ``val_fnr/<class>``.
    """

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS, threshold: float | None = None) -> None:
        """Score at each of ``thresholds``, and at ``threshold`` if there is one."""
        self.threshold = threshold
        self.thresholds = sorted({*thresholds, *([] if threshold is None else [threshold])})
        self.sweep: ThresholdSweep | None = None

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start counting."""
        self.sweep = ThresholdSweep(int(pl_module.num_classes) + 1, self.thresholds).to(pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count one photograph; only its tagged classes may win."""
        assert self.sweep is not None
        mask = batch["mask"][0]
        score, winner = at_full_size(outputs.cam, outputs.classes, mask.shape)
        self.sweep.update(score, winner, mask)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the scores."""
        assert self.sweep is not None
        found = self.sweep.compute()
        best = int(torch.nan_to_num(found["miou"], nan=-1).argmax())
        scores = {f"val/cam_{name}": found[name][best].item() for name in ("miou", "mfdr", "mfnr")}
        scores["val/cam_threshold"] = found["threshold"][best].item()
        if self.threshold is not None:
            fixed = self.thresholds.index(self.threshold)
            scores |= {f"val/cam_{name}_fixed": found[name][fixed].item() for name in ("miou", "mfdr", "mfnr")}
        pl_module.log_dict(scores, prog_bar=False)
        one = {name: value[best] for name, value in found.items()}
        pl_module.log_dict(by_class(one, (VOC[0], *pl_module.class_names)))
        self.sweep = None
