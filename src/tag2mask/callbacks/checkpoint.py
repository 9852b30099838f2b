"""Checkpoints that a killed process cannot spoil."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from tag2mask.io.files import atomic


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place, then move it over the old one.

    Lightning writes to the system's folder for temporary files. Where that is another disk, the move from there is a
    copy, which can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``."""
        with atomic(Path(path)) as file:
            torch.save(checkpoint, file)


class LastCheckpoint(ModelCheckpoint):
    """Keep ``last.ckpt``, written every few steps and when training ends. No score chooses a checkpoint."""

    def __init__(self, dirpath: str | None = None, every_n_train_steps: int = 250) -> None:
        """Write into ``dirpath`` every ``every_n_train_steps`` steps."""
        every = every_n_train_steps
        super().__init__(dirpath, save_last=True, save_top_k=0, every_n_train_steps=every, enable_version_counter=False)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the trainer write atomically."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the trained network, with the state of a training that has come to its end."""
        if not trainer.fast_dev_run:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_last_checkpoint(self, trainer: Any, monitor_candidates: dict[str, Any]) -> None:
        """Write ``last.ckpt``, and before it the lines that loggers hold back: a run that goes on needs both."""
        for logger in trainer.loggers:
            logger.save()
        super()._save_last_checkpoint(trainer, monitor_candidates)
