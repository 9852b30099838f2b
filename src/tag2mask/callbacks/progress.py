"""Progress of Lightning's verbs in lines, where a bar would go into a file."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from tag2mask.utils.progress import Lines


class ProgressLines(Callback):
    """Print now and then how far the first process is, how fast, and how long the rest takes, with its validations."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count, after what an interrupted run has done."""
        self.steps = Lines(int(trainer.estimated_stepping_batches), "steps", before=trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Print the step, with epoch and loss."""

        def note() -> str:
            metrics = trainer.progress_bar_metrics.items()
            values = "".join(f", {name} {value:.3g}" for name, value in metrics if isinstance(value, float))
            return f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}{values}"

        if trainer.is_global_zero:
            self.steps.tell(trainer.global_step, note)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count photographs."""
        batches, work = trainer.num_test_batches if trainer.testing else trainer.num_val_batches, "scored"
        if trainer.predicting:
            batches, work = trainer.num_predict_batches, "predicted"
        share = f" of {trainer.world_size} processes' first" if trainer.world_size > 1 else ""
        self.photographs = Lines(int(sum(batches)), f"photographs{share} {work}")

    on_test_start = on_predict_start = on_validation_start

    def _photograph(self, trainer: Trainer, pl_module: Any, out: Any, batch: Any, index: int, *_: Any) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            self.photographs.tell(index + 1)

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _photograph  # type: ignore[assignment]
