"""Progress of Lightning's verbs where their bar would fill a file with every state that it has had."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from tag2mask.utils.progress import Lines


class ProgressLines(Callback):
    """Say on standard error now and then how far the first process is, how fast, and how long the rest will take.

    The time left of a training counts its validations in as often as they have been so far.
    """

    def __init__(self, seconds: float = 30) -> None:
        """Leave ``seconds`` between two lines; the last step is always told."""
        self.seconds = seconds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count, after what an interrupted run has done."""
        total = int(trainer.estimated_stepping_batches)
        self.steps = Lines(total, "steps", self.seconds, before=trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Tell the step, with epoch and loss."""
        if not trainer.is_global_zero:
            return

        def note() -> str:
            metrics = trainer.progress_bar_metrics.items()
            values = "".join(f", {name} {value:.3g}" for name, value in metrics if isinstance(value, float))
            return f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}{values}"

        self.steps.tell(trainer.global_step, note)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count photographs."""
        self._begin(trainer, trainer.num_val_batches, "scored")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise."""
        self._begin(trainer, trainer.num_test_batches, "scored")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise."""
        self._begin(trainer, trainer.num_predict_batches, "predicted")

    def _begin(self, trainer: Trainer, batches: Any, done: str) -> None:
        whose = f" of {trainer.world_size} processes' first" if trainer.world_size > 1 else ""
        self.photographs = Lines(sum(batches), f"photographs{whose} {done}", self.seconds)

    def _photograph(
        self, trainer: Trainer, pl_module: LightningModule, out: Any, batch: Any, index: int, *_: Any
    ) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            self.photographs.tell(index + 1)

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _photograph  # type: ignore[assignment]
