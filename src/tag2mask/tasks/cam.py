"""Training of the CAM network: plain CAM, Puzzle-CAM and the two-step method of Liu et al. 2023, by settings alone.

Shape letters in this file: B images, C foreground classes, H x W the image, h x w its map.
"""

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchmetrics import MeanMetric

from tag2mask import losses
from tag2mask.io.cams import CAMs
from tag2mask.models.backbones import Backbone
from tag2mask.models.cam import CAMNet, TwoSteps, above_floor, multi_scale_cam, scale_to_one, two_steps
from tag2mask.models.tiling import by_image
from tag2mask.tasks.base import NetworkTask
from tag2mask.tasks.optim import SGD
from tag2mask.tasks.settings import CAMInference, Tiles


class CAMTask(NetworkTask):
    """Train a classifier on image tags so that its maps cover the objects.

    ``tiles=None`` is a plain CAM classifier; `Tiles` with neither attention nor contrast Puzzle-CAM; with both, the
    method of Liu et al. 2023. Validation scores and prediction use the full branch alone. The defaults are the method
    of configs/voc/cam_resnet50.yaml.
    """

    kind = "cam"

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] = (),
        backbone: Backbone = Backbone(dilate=False),
        tiles: Tiles | None = Tiles(),
        optimizer: SGD = SGD(),
        inference: CAMInference = CAMInference(),
        validation: CAMInference | None = None,
    ) -> None:
        """Build the network with random weights; pretrained ones are loaded when training starts.

        Args:
            num_classes: foreground classes. From the command line it comes from the data.
            class_names: their names, likewise; saved with the network.
            backbone: feature extractor and its weights.
            tiles: the second branch; None trains a plain CAM classifier.
            optimizer: learning rates and their decay.
            inference: how `predict` makes CAMs.
            validation: how CAMs are made for the scores while training; None is ``inference`` at one scale.
        """
        super().__init__(num_classes, class_names)
        self.save_hyperparameters(logger=False)
        self.tiles, self.optimizer, self.inference = tiles, optimizer, inference
        self.validation = validation or inference.at_one_scale()
        self.net = CAMNet(num_classes, backbone)
        for attention in (tiles.attention if tiles is not None else None, inference.attention):
            if attention is not None:
                self.net.require_guide(attention)  # no training that ends in CAMs which cannot be made
        self.val_loss, self.val_entropy = MeanMetric(), MeanMetric()

    def on_train_start(self) -> None:
        """Say how many photographs CFC compares."""
        super().on_train_start()
        if self.tiles is not None and self.tiles.contrast is not None:
            rank_zero_info(f"CFC compares {self.images_at_once} photographs at a time")

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores before ReLU, (B, C, H / stride, W / stride)."""
        cam: Tensor = self.net(images)[0]
        return cam

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss, Eq. 16, and log each term."""
        label = batch["label"]
        if self.tiles is None:
            loss = losses.classification_loss(self(batch["image"]).float().mean((2, 3)), label)
            terms = {"loss_cls": loss}
        else:
            loss, terms = self.two_step_loss(self.tiles, self.branches(self.tiles, batch), label)
        return self.logged(loss, terms, batch)

    def branches(self, tiles: Tiles, batch: dict[str, Any]) -> TwoSteps:
        """Run both branches on a batch."""
        return two_steps(self.net, batch["image"], tiles.grid, tiles.attention, tiles.min_side, tiles.refined)

    def two_step_loss(self, tiles: Tiles, steps: TwoSteps, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return `losses.two_step_loss` at this step of the training, and all that is logged."""
        beta = tiles.beta * losses.ramp(self.global_step, self.total_steps, tiles.ramp, tiles.start)
        tags = (
            label if tiles.tags == "all" else losses.found_tags(steps.tiled.mean((2, 3)), label, self.mean_over_ranks)
        )
        full, tile_cam = steps.full, steps.tile_cam  # those that L_re and CFC move
        if tiles.moves == "classifier":
            full, tile_cam = (self.net.classifier(x.detach()) for x in (steps.features, steps.tile_features))
        how = tiles.distance, tiles.learns, self.mean_over_ranks
        equivariance = losses.equivariance_loss(full, steps.target, tags, *how)
        terms = {"beta": steps.full.new_tensor(beta), "loss_re": equivariance}
        if steps.entropy is not None:
            terms["attention_entropy"] = steps.entropy
        contrast, lam = steps.full.new_zeros(()), 0.0
        if tiles.contrast is not None:
            features, cam = (by_image(tiled, tiles.grid) for tiled in (steps.tile_features, tile_cam))
            features, cfc = features.detach() if tiles.contrast.detach_features else features, tiles.contrast
            guards = cfc.alpha, cfc.per_class, cfc.repel, cfc.least
            terms |= losses.cross_image_foreground_contrast(features, cam, tags, *guards, self._of_all_ranks)
            contrast, lam = terms.pop("loss_contrast"), cfc.lam
        loss, classification = losses.two_step_loss(steps.full, steps.tiled, label, equivariance, beta, contrast, lam)
        return loss, classification | terms

    def _of_all_ranks(self, x: Tensor) -> Tensor:
        """Concatenate a tensor over ranks, so that DDP's mean of gradients is the gradient of the joint batch.

        Each rank computes the same loss of all vectors, and passes the gradient on to its own, times the number of
        ranks. (Gathering with gradients is wrong for some strides: https://github.com/pytorch/pytorch/issues/120386.)
        """
        if self._trainer is None or self.trainer.world_size == 1:
            return x
        gathered = self.all_gather(x.detach())
        assert isinstance(gathered, Tensor)
        parts = list(gathered.unbind())
        parts[self.global_rank] = x + (len(parts) - 1) * (x - x.detach())
        return torch.cat(parts)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """Return the CAMs of one photograph, for the callbacks that score and draw them."""
        cams, scores, entropy = self.cams(batch["image"], batch["label"], batch["size"], self.validation)
        if (batch["label"] >= 0).all():  # tagged
            self.val_loss.update(losses.classification_loss(scores[None], batch["label"]))
        self.log("val/loss_cls", self.val_loss, on_epoch=True, batch_size=1)  # exact over ranks of unequal shares
        if entropy is not None:
            self.val_entropy.update(entropy)
            self.log("val/attention_entropy", self.val_entropy, on_epoch=True, batch_size=1)
        return cams

    test_step = validation_step

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """Return the CAMs of one photograph, over scales and flips."""
        return self.cams(batch["image"], batch["label"], batch["size"], self.inference)[0]

    def cams(
        self, image: Tensor, label: Tensor, size: Tensor, inference: CAMInference
    ) -> tuple[CAMs, Tensor, Tensor | None]:
        """Make the CAMs of one photograph.

        Args:
            image: normalised, (1, 3, H, W).
            label: its tags as 0/1, (1, C), or -1 throughout where they are not known and must be predicted.
            size: height and width of the photograph, (1, 2), of which ``image`` may be a smaller copy.
            inference: scales, flips, size of the CAM.

        Returns:
            The CAMs, the class scores before the sigmoid, (C,), and the entropy of the attention in [0, 1], None
            without attention.
        """
        height, width = (int(side) for side in size[0])
        small = -(-height // inference.stride), -(-width // inference.stride)
        maps, scores, entropy = multi_scale_cam(
            self.net, image[0], inference.scales, inference.flip, small, inference.attention
        )
        if (label[0] < 0).any():
            present = scores.sigmoid() > inference.tag_threshold
            present[scores.argmax()] = True
        else:
            present = label[0] > 0
        cam = above_floor(scale_to_one(maps[present]), inference.floor)
        return CAMs(cam, present.nonzero()[:, 0] + 1, (height, width)), scores, entropy
