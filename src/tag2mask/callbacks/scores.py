"""Scores of the CAMs after each validation, and a table of the classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from tag2mask.classes import VOC
from tag2mask.io.files import write_json
from tag2mask.metrics.functional import THRESHOLDS, at_full_size
from tag2mask.metrics.scores import ThresholdSweep, by_class


class ClassTable(Callback):
    """Keep IoU, FDR and FNR of each scored class, as fractions or empty where there is none, in a table.

    It is ``scores/step_<n>.json`` in the run folder, and ``table/classes`` of every logger that has ``log_table``.
    """

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Gather the logged scores of the classes."""
        logged, rates = trainer.callback_metrics, ("iou", "fdr", "fnr")
        scored = [name for name in (VOC[0], *pl_module.class_names) if f"val_iou/{name}" in logged]
        if trainer.sanity_checking or not trainer.is_global_zero or not scored:
            return
        values = {name: [float(logged[f"val_{rate}/{name}"]) for rate in rates] for name in scored}
        rows = [[name, *(None if value != value else value for value in row)] for name, row in values.items()]
        table: dict[str, Any] = {"columns": ["class", *rates], "data": rows}
        write_json(Path(trainer.default_root_dir) / "scores" / f"step_{trainer.global_step:06d}.json", table)
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                logger.log_table("table/classes", **table, step=trainer.global_step)


class CAMScores(Callback):
    """Log mIoU, mFDR and mFNR of the CAMs on every photograph of the validation split, at full size.

    ``val/cam_miou``, ``val/cam_mfdr`` and ``val/cam_mfnr``, over all classes with the background, are those at the best
    threshold of the sweep, ``val/cam_threshold``: upper bounds, as the scored photographs choose it. At it are also
    ``val_iou/<class>``, ``val_fdr/<class>``, ``val_fnr/<class>``. ``threshold`` adds ``val/cam_miou_fixed`` and so on.
    """

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS, threshold: float | None = None) -> None:
        self.threshold = threshold
        self.thresholds = sorted({*thresholds, *([] if threshold is None else [threshold])})

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start counting."""
        self.sweep = ThresholdSweep(int(pl_module.num_classes) + 1, self.thresholds).to(pl_module.device)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Count one photograph; only classes that have a CAM may win."""
        mask = batch["mask"][0]
        self.sweep.update(*at_full_size(outputs.cam, outputs.classes, mask.shape), mask)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the scores."""
        scores = self.sweep.compute()
        best = int(scores["miou"].nan_to_num(nan=-1).argmax())
        logged = {f"val/cam_{name}": scores[name][best].item() for name in ("miou", "mfdr", "mfnr", "threshold")}
        if self.threshold is not None:
            fixed = self.thresholds.index(self.threshold)
            logged |= {f"val/cam_{name}_fixed": scores[name][fixed].item() for name in ("miou", "mfdr", "mfnr")}
        pl_module.log_dict(logged)
        at_best = {name: value[best] for name, value in scores.items()}
        pl_module.log_dict(by_class(at_best, (VOC[0], *pl_module.class_names)))
