"""Progress of Lightning's verbs in lines, where a bar would go into a file."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from tag2mask.utils.progress import Lines


class ProgressLines(Callback):
    """Print now and then how far the first process is, how fast, and how long the rest will take.

    The time left of a training includes validations, as often as there have been some so far.
    """

    def __init__(self, seconds: float = 30) -> None:
        """Leave ``seconds`` between two lines; the last step always has a line."""
        self.seconds = seconds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count, after what an interrupted run has done."""
        total = int(trainer.estimated_stepping_batches)
        self.steps = Lines(total, "steps", self.seconds, before=trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Print the step, with epoch and loss."""
        if not trainer.is_global_zero:
            return

        def note() -> str:
            metrics = trainer.progress_bar_metrics.items()
            values = "".join(f", {name} {value:.3g}" for name, value in metrics if isinstance(value, float))
            return f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}{values}"

        self.steps.tell(trainer.global_step, note)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count photographs."""
        batches = trainer.num_test_batches if trainer.testing else trainer.num_val_batches
        batches = trainer.num_predict_batches if trainer.predicting else batches
        share = f" of {trainer.world_size} processes' first" if trainer.world_size > 1 else ""
        work = "predicted" if trainer.predicting else "scored"
        self.photographs = Lines(int(sum(batches)), f"photographs{share} {work}", self.seconds)

    on_test_start = on_predict_start = on_validation_start

    def _photograph(
        self, trainer: Trainer, pl_module: LightningModule, out: Any, batch: Any, index: int, *_: Any
    ) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            self.photographs.tell(index + 1)

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _photograph  # type: ignore[assignment]
