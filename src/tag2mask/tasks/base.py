"""What all tasks have in common: weights, length of the training, a guard against a broken loss, checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from tag2mask import __version__
from tag2mask.errors import MissingError, SettingError
from tag2mask.models.backbones import Channels, normalization
from tag2mask.tasks import checkpoints
from tag2mask.tasks.optim import SGD


class NetworkTask(LightningModule):
    """A network ``net`` with ``load_pretrained()``, trained by `tasks.optim.SGD`; subclasses say how."""

    kind: str  # of the network, as its checkpoints name it: cam, affinity, segmentation
    net: Any
    optimizer: SGD

    def __init__(self, num_classes: int, class_names: Sequence[str]) -> None:
        """Note the classes; without names they are numbered."""
        super().__init__()
        self.num_classes = num_classes
        self.class_names = tuple(class_names) or tuple(f"class {value}" for value in range(1, num_classes + 1))
        self.total_steps = 1  # of the training, once it has begun
        self.filled = False  # whether the network holds weights of a checkpoint or of its pretraining
        self.preprocessing: dict[str, Any] = {}  # settings of `data.transforms.Preprocessing`, of a loaded checkpoint

    @property
    def normalization(self) -> tuple[Channels, Channels]:
        """Mean and standard deviation of each channel that the weights of the backbone expect."""
        return normalization(self.net.config)

    def fill(self) -> None:
        """Load pretrained weights into a network that neither they nor a checkpoint have filled."""
        if not self.filled:
            self.net.load_pretrained()
            self.filled = True

    on_fit_start = fill

    def _require_weights(self) -> None:
        """Refuse to use random weights."""
        if not self.filled:
            raise MissingError("the network is not trained; give --ckpt_path with a checkpoint of `tag2mask fit`")

    on_validation_start = on_test_start = on_predict_start = _require_weights

    @property
    def images_at_once(self) -> int:
        """Photographs of one batch, on all devices together."""
        source: Any = self.trainer.datamodule or self.trainer.train_dataloader  # type: ignore[attr-defined]
        return int(source.batch_size * self.trainer.world_size)

    def _new_optimizer(self) -> tuple[torch.optim.SGD, LambdaLR]:
        return self.scaled_optimizer.build(self.net.encoder, self.net, lambda: self.total_steps)

    @property
    def scaled_optimizer(self) -> SGD:
        """The optimiser's settings for the number of photographs that a step has here."""
        if self.optimizer.for_batch is None:
            return self.optimizer
        return self.optimizer.scaled_to(self.images_at_once * int(self.trainer.accumulate_grad_batches))

    def configure_optimizers(self) -> Any:
        """Return SGD and its schedule, stepped with every training step."""
        optimizer, schedule = self._new_optimizer()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"}}

    def on_train_start(self) -> None:
        """Learn how long the training is, for the ramps and the schedule; say how many photographs make a step.

        Not before: the trainer would set up the loaders for it, ahead of taking up their state from a checkpoint.
        """
        self.total_steps = int(self.trainer.estimated_stepping_batches)
        self._settle_rates()
        batches, devices = int(self.trainer.accumulate_grad_batches), self.trainer.world_size
        images = self.images_at_once * batches
        for logger in self.trainer.loggers:
            logger.log_hyperparams({"images_at_once": self.images_at_once, "images_a_step": images})
        made_of = f"batches of {self.images_at_once // devices} on {devices} device(s)"
        made_of += f", {batches} of them accumulated" if batches > 1 else ""
        rate = f"learning rate {self.scaled_optimizer.lr:g}"
        rank_zero_info(f"{images} photographs a step ({made_of}), {rate}, {self.total_steps} steps")

    def _settle_rates(self) -> None:
        """Take rates, decay and momentum from the settings, and the rate of this step from the length of this training.

        A checkpoint restores those of the training that wrote it: where that was shorter, its last rate is 0.
        """
        schedule = self.lr_schedulers()
        if not isinstance(schedule, LambdaLR):
            return
        fresh = self._new_optimizer()[0]
        schedule.base_lrs = [group["initial_lr"] for group in fresh.param_groups]
        groups = zip(schedule.optimizer.param_groups, fresh.param_groups, schedule.lr_lambdas, strict=True)
        for group, settings, share in groups:
            group |= {key: settings[key] for key in ("initial_lr", "weight_decay", "momentum", "nesterov")}
            group["lr"] = settings["initial_lr"] * share(schedule.last_epoch)

    def weights_digest(self) -> str:
        """Return the digest of all weights, with which files that were made by them are compared."""
        return checkpoints.weights_digest(self.state_dict())

    def mean_over_ranks(self, value: Tensor) -> Tensor:
        """Return the mean of a number, or of each of several, over all ranks; without a gradient."""
        if not (dist.is_available() and dist.is_initialized()):
            return value
        mean = value.detach().double()
        dist.all_reduce(mean)
        return mean / dist.get_world_size()

    def require_labels(self, batch: Mapping[str, Any]) -> None:
        """Stop a training on tags of a network that learns from label maps."""
        if "mask" not in batch:
            raise SettingError(
                f"the {self.kind} network learns from labels; give their folder with --data.init_args.labels"
            )

    def logged(self, loss: Tensor, terms: Mapping[str, Tensor], batch: Mapping[str, Any]) -> Tensor:
        """Log a loss and its terms, and return the loss; stop the training where it is not finite."""
        if not torch.isfinite(loss):
            values = ", ".join(f"{name} {value.item():g}" for name, value in {**terms, "loss": loss}.items())
            raise SettingError(
                f"the loss is not finite at step {self.global_step}: {values}; images {', '.join(batch['name'])}. Look "
                "at those images, lower --model.init_args.optimizer.lr, or train in another --trainer.precision; the "
                "last checkpoint is sound"
            )
        size = len(batch["image"])
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, batch_size=size)
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what the checkpoint is of, and how images are prepared for it."""
        data: Any = getattr(self._trainer, "datamodule", None)
        checkpoint["tag2mask"] = {
            "task": self.kind,
            "classes": list(self.class_names),
            "version": __version__,
            "preprocessing": self.preprocessing if data is None else asdict(data.preprocessing),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or, but for edges, of other classes."""
        checkpoints.require_kind(checkpoint, self.kind)
        if self.kind != "affinity":
            checkpoints.require_same_classes(checkpoint, self.class_names)
        self.preprocessing, self.filled = checkpoint["tag2mask"].get("preprocessing") or {}, True
