"""A table of the classes after each validation."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from tag2mask import files
from tag2mask.classes import VOC

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
        files.write_json(path, {"columns": COLUMNS, "data": rows})
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                logger.log_table("table/classes", columns=COLUMNS, data=rows, step=trainer.global_step)


def _number(value: Any) -> float | None:
    """A score as a number; None for nan."""
    number = float(value)
    return number if number == number else None
