"""Training of DeepLabV3+ on label maps: pseudo-labels, or true masks for the upper bound.

Shape letters in this file: B images, G classes with the background, H x W a photograph, h x w what the network sees of
it.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tag2mask.classes import VOC
from tag2mask.errors import SettingError
from tag2mask.losses import CrossEntropy, PixelLoss
from tag2mask.metrics.scores import SegmentationScores, by_class
from tag2mask.models.backbones import Backbone
from tag2mask.models.segmentation import SegmentationNet, class_probabilities, label_map
from tag2mask.tasks.base import NetworkTask
from tag2mask.tasks.optim import SGD
from tag2mask.tasks.settings import MaskInference


class Segmentation(NamedTuple):
    """The mask of one photograph."""

    label: Tensor  # mask values, (H, W) uint8
    probabilities: Tensor  # of each class, at the size that the network saw, (G, h, w) float32


class SegmentationTask(NetworkTask):
    """Learn masks from label PNGs (``data.labels``); pixels labelled ``IGNORE`` are left out.

    A dense CRF at test time is the business of whoever writes the masks: `callbacks.label_writer`, `segment`.
    """

    kind = "segmentation"

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] = (),
        backbone: Backbone = Backbone(),
        optimizer: SGD = SGD(lr=0.007, weight_decay=4e-5),
        inference: MaskInference = MaskInference(),
        validation: MaskInference = MaskInference(scales=(1.0,), flip=False),
        loss: PixelLoss = CrossEntropy(),
    ) -> None:
        """Build the network with random weights; pretrained ones are filled in when training starts.

        Args:
            num_classes: foreground classes; linked to the data, with their names, by the command line.
            class_names: their names, saved with the network.
            backbone: encoder and its weights.
            optimizer: learning rates and their decay; ``new_factor`` is the decoder's rate against the encoder's.
            inference: how `predict` makes masks.
            validation: how they are made for the scores while training; one scale is cheap.
            loss: what a pixel learns from its label; some losses need ``data.soft``.
        """
        super().__init__(num_classes, class_names)
        self.save_hyperparameters(logger=False)
        self.loss, self.optimizer, self.inference, self.validation = loss, optimizer, inference, validation
        self.net = SegmentationNet(num_classes + 1, backbone)
        self.scores = SegmentationScores(num_classes + 1)
        self.seed = 0

    def on_train_start(self) -> None:
        """Learn how long the training is, and its seed."""
        super().on_train_start()
        self.seed = torch.initial_seed()

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Seed the dropout by the step, so that a run taken up in mid-epoch goes on as an unbroken one."""
        torch.manual_seed(hash((self.seed, self.current_epoch, batch_idx, self.global_rank)))

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores before the softmax, (B, G, h, w), for images (B, 3, h, w) of any size."""
        scores: Tensor = self.net(images)
        return scores

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss over labelled pixels."""
        images = batch["image"]
        self.require_labels(batch)
        if missing := [key for key in self.loss.needs if key not in batch]:
            raise SettingError(
                f"{type(self.loss).__name__} needs the {' and '.join(missing)} of each label; give "
                "--data.init_args.soft true, with labels of `tag2mask labels --soft true`"
            )
        if len(images) < 2:
            raise SettingError(
                "a batch of one image cannot train DeepLabV3+, which normalises over the batch; give "
                "--data.init_args.batch_size 2 or more, and at least as many photographs"
            )
        terms = self.loss(self(images), batch, self.mean_over_ranks)
        return self.logged(terms.pop("loss"), terms, batch)

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self.scores.reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """Count the pixels of one photograph, at its full size; return its mask."""
        result = self.segment(batch["image"], batch["size"], self.validation)
        self.scores.update(result.label, batch["mask"][0])
        return result

    def on_validation_epoch_end(self) -> None:
        """Log the scores: means over all classes, over the foreground, and each class."""
        scores = self.scores.compute()
        self.log_dict({f"val/{key}": value.float() for key, value in scores.items() if not value.ndim})
        self.log_dict(by_class(scores, (VOC[0], *self.class_names)))

    on_test_epoch_start, test_step = on_validation_epoch_start, validation_step
    on_test_epoch_end = on_validation_epoch_end

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """Return the mask of one photograph, over scales and flips."""
        return self.segment(batch["image"], batch["size"], self.inference)

    def segment(self, image: Tensor, size: Tensor, inference: MaskInference) -> Segmentation:
        """Make the mask, of ``size`` (1, 2) H and W, of one normalised photograph or a smaller copy, (1, 3, h, w)."""
        probabilities = class_probabilities(self.net, image[0], inference.scales, inference.flip)
        return Segmentation(label_map(probabilities, size[0].tolist()), probabilities)
