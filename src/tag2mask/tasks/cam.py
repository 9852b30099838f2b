"""Training of the CAM network: plain CAM, Puzzle-CAM and the two-step method of Liu et al. 2023, by settings alone.

Shape letters in this file: B images, C foreground classes, K classes of one image, T tiles, H x W the image,
h x w a map.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from tag2mask import losses
from tag2mask.errors import InputError
from tag2mask.io.cams import CAMs
from tag2mask.models.attention import Attention
from tag2mask.models.backbones import Backbone
from tag2mask.models.cam import CAMNet, TwoSteps, above_floor, multi_scale_cam, part, scale_to_one, two_steps
from tag2mask.models.tiling import by_image
from tag2mask.tasks.base import NetworkTask
from tag2mask.tasks.optim import SGD


@dataclass(frozen=True)
class Contrast:
    """Cross-image foreground contrast (CFC), Eq. 10-14.

    Attributes:
        lam: its weight in the loss, lambda of Eq. 16.
        ramp: share of training over which that weight grows from 0.
        weight: of a pair of images: ``sigmoid`` (Eq. 12), ``rank`` (CCAM) or ``none``.
        alpha: of those weights (Eq. 13).
        reduction: ``mean`` over pairs and tiles, or the literal ``sum`` of Eq. 14.
        tag_mask: leave out classes that the image does not have, which are no foreground.
        relu: leave out negative activations.
        shared_tags: compare only images that share a tag. With ``tag_mask`` the others have a similarity of 0 and no
            gradient, so that this only makes the loss larger: fewer pairs share its mean.
        detach_features: let the gradient reach the network through the CAM only.
        per_class: compare the vectors of a class with those of the same class, in images that share it.
        center: subtract the mean feature of the batch (of each rank's under DDP) first, which is what all images share.
        repel: weight of `losses.repulsion` beside it, which pushes foregrounds away from backgrounds; not in the paper.
        start: share of training before which it does not count at all.
        least: leave out tiles that hardly show the class, see `losses.shows_class`; 0 compares all, as printed.
    """

    lam: float = 0.5
    ramp: float = 0.0
    weight: Literal["sigmoid", "rank", "none"] = "sigmoid"
    alpha: float = 0.25
    reduction: Literal["mean", "sum"] = "mean"
    tag_mask: bool = True
    relu: bool = True
    shared_tags: bool = False
    detach_features: bool = False
    per_class: bool = False
    center: bool = False
    repel: float = 0.0
    start: float = 0.0
    least: float = 0.0

    def __post_init__(self) -> None:
        """Check the share below which tiles are left out: above 1 nothing would be compared."""
        if not 0 <= self.least <= 1:
            raise InputError(f"least is {self.least}; expected a share of the longest vector, 0 to 1, such as 0.05")


@dataclass(frozen=True)
class Tiles:
    """The branch of the tiles. Without attention and contrast it is Puzzle-CAM.

    Attributes:
        grid: tiles on one side.
        beta: weight of the equivariance loss, beta of Eq. 16.
        ramp: share of training over which that weight grows from 0, as in Puzzle-CAM.
        over: ``all`` divides the equivariance loss by all classes (Puzzle-CAM), ``positive`` by the tagged ones.
        maps: the equivariance loss compares ``raw`` maps (Puzzle-CAM) or ``scaled`` ones, see `losses.scaled`.
        learns: branch that the equivariance loss moves: ``both`` (as printed), ``full`` or ``tiled``; the other is
            its target.
        cls: weight of the classification loss of the tiles; 1 as printed.
        scale: by which tiles are enlarged before the network sees them.
        attention: region self-attention (RSA); null leaves the tiles' CAMs as they are.
        contrast: cross-image foreground contrast (CFC); null leaves it out.
    """

    grid: int = 2
    beta: float = 2.0
    ramp: float = 0.5
    over: Literal["all", "positive"] = "all"
    maps: Literal["raw", "scaled"] = "raw"
    learns: Literal["both", "full", "tiled"] = "both"
    cls: float = 1.0
    scale: float = 1.0
    attention: Attention | None = Attention()
    contrast: Contrast | None = Contrast()


@dataclass(frozen=True)
class CAMInference:
    """How CAMs are made from a trained network: by its full branch alone (Alg. 2).

    Attributes:
        scales: relative sizes over which class maps are summed.
        flip: add the mirror image at each scale.
        stride: pixels of the photograph to one position of the CAM.
        tag_threshold: for photographs without tags, those classes count as present whose probability is above it; where
            none is, the most probable one.
        attention: spreads each map over the positions that look alike (RSA, Eq. 4-6); null as in Alg. 2, which makes
            CAMs without it. It sees the whole image: its ``region`` is of training alone.
        floor: what of the finished CAM, in [0, 1), is cut off below; the rest is stretched back to [0, 1]. An attention
            lifts the ground, which a random walk would carry on; nothing changes but that thresholds move along. 0
            leaves CAMs as they are, as in Alg. 2.
    """

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    flip: bool = True
    stride: int = 4
    tag_threshold: float = 0.5
    attention: Attention | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Check the floor."""
        if not 0 <= self.floor < 1:
            raise InputError(f"floor is {self.floor}; expected a number of at least 0 and below 1")


def _equivariance(tiles: Tiles, steps: TwoSteps, label: Tensor) -> Tensor:
    """Eq. 15 between the maps that the settings name."""
    full = steps.full.detach() if tiles.learns == "tiled" else steps.full
    tiled = steps.tiled.detach() if tiles.learns == "full" else steps.tiled
    if tiles.maps == "scaled":
        full, tiled = losses.scaled(full), losses.scaled(tiled)
    return losses.equivariance_loss(full, tiled, label, tiles.over)


torch.serialization.add_safe_globals([Attention, Backbone, Contrast, CAMInference, SGD, Tiles])


class CAMTask(NetworkTask):
    """Train a classifier on image tags so that its maps cover the objects.

    ``tiles=None`` is a plain CAM classifier; `Tiles` with neither attention nor contrast Puzzle-CAM; with both, the
    method of Liu et al. 2023. Validation scores and prediction use the full branch alone.
    """

    kind = "cam"

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] = (),
        backbone: Backbone = Backbone(),
        tiles: Tiles | None = Tiles(),
        optimizer: SGD = SGD(),
        inference: CAMInference = CAMInference(),
        validation: CAMInference | None = None,
    ) -> None:
        """Build the network with random weights; pretrained ones are filled in when training starts.

        Args:
            num_classes: foreground classes. From the command line it comes from the data.
            class_names: their names, likewise; saved with the network.
            backbone: feature extractor and its weights.
            tiles: the second branch.
            optimizer: learning rates and their decay.
            inference: how `predict` makes CAMs.
            validation: how CAMs are made for the scores while training; None for as by ``inference``, but at one
                scale and without flip, which is cheap.
        """
        super().__init__(num_classes, class_names)
        self.save_hyperparameters(logger=False)
        self.tiles, self.optimizer = tiles, optimizer
        self.inference = inference
        self.validation = validation or replace(inference, scales=(1.0,), flip=False)
        self.net = CAMNet(num_classes, backbone)
        for attention in (tiles.attention if tiles is not None else None, inference.attention):
            if attention is not None and attention.layer is not None:
                part(self.net.backbone, attention.layer)  # no training that ends in CAMs which cannot be made
        self.val_loss, self.val_entropy = MeanMetric(), MeanMetric()

    @property
    def parts(self) -> tuple[nn.Module, list[nn.Module]]:
        """The backbone, and the classifier."""
        return self.net.backbone, [self.net.classifier]

    def account(self) -> str:
        """Return the same as for every network, and how many photographs CFC compares."""
        compares = self.tiles is not None and self.tiles.contrast is not None
        return super().account() + (f"; CFC compares {self.images_at_once} at a time" if compares else "")

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores before ReLU, (B, C, H / stride, W / stride)."""
        cam: Tensor = self.net(images)[0]
        return cam

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the total loss, Eq. 16, and log each term."""
        images, label = batch["image"], batch["label"]
        if self.tiles is None:
            terms = {"loss_cls": losses.classification_loss(self(images).float().mean((2, 3)), label)}
            loss = terms["loss_cls"]
        else:
            terms, loss = self._two_step_loss(self.tiles, self.branches(self.tiles, batch), label)
        self.require_finite(loss, terms, batch["name"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(images))
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, batch_size=len(images))
        return loss

    def branches(self, tiles: Tiles, batch: dict[str, Any]) -> TwoSteps:
        """Run both branches on a batch."""
        return two_steps(self.net, batch["image"], tiles.grid, tiles.attention, tiles.scale)

    def _two_step_loss(self, tiles: Tiles, steps: TwoSteps, label: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Terms by the name they are logged under, and their weighted sum."""
        cls = losses.classification_loss(steps.full.float().mean((2, 3)), label)
        cls_tiled = losses.classification_loss(steps.tiled.float().mean((2, 3)), label)
        equivariance = _equivariance(tiles, steps, label)
        beta = tiles.beta * losses.ramp(self.global_step, self.total_steps, tiles.ramp)
        terms = {
            "loss_cls": cls,
            "loss_cls_tiled": cls_tiled,
            "loss_re": equivariance,
            "beta": equivariance.new_tensor(beta),
        }
        loss = cls + tiles.cls * cls_tiled + beta * equivariance
        if steps.entropy is not None:
            terms["attention_entropy"] = steps.entropy
        if tiles.contrast is not None:
            weight = tiles.contrast.lam * self._share(tiles.contrast)
            contrast = self._contrast(tiles.contrast, steps, label, tiles.grid)
            terms |= contrast
            loss = loss + weight * (contrast["loss_cfc"] + tiles.contrast.repel * contrast.get("loss_repel", 0))
        return terms, loss

    def _share(self, contrast: Contrast) -> float:
        """How much of CFC's weight counts at this step."""
        begun = self.global_step - contrast.start * self.total_steps
        return 0.0 if begun < 0 else losses.ramp(int(begun), self.total_steps, contrast.ramp)

    def _contrast(self, contrast: Contrast, steps: TwoSteps, label: Tensor, grid: int) -> dict[str, Tensor]:
        """CFC over the images of all ranks, and the mean similarity between tiles of images that share a class."""
        cam = by_image(steps.tile_cam, grid)  # (B, T, C, M, N)
        features = by_image(steps.tile_features, grid)
        cam = cam.relu() if contrast.relu else cam
        cam = cam * label[:, None, :, None, None] if contrast.tag_mask else cam
        features = features.detach() if contrast.detach_features else features
        features = features - features.mean((0, 1, 3, 4), keepdim=True) if contrast.center else features
        by_class = self._of_all_ranks(losses.foreground_vectors(features, cam))  # (B, T, C, D)
        kept, tags = losses.shows_class(by_class, contrast.least), self._of_all_ranks(label)
        how = contrast.weight, contrast.alpha, contrast.reduction
        if contrast.per_class:
            terms = {"loss_cfc": losses.class_contrast(by_class, tags, *how, kept)}
        else:
            foreground = (by_class * kept[..., None]).flatten(2)
            pairs = tags @ tags.T > 0 if contrast.shared_tags else None
            terms = {"loss_cfc": losses.cross_image_contrast(foreground, pairs, *how, kept.any(2))}
        similarity = losses.mean_similarity(by_class.detach(), tags, kept)
        if not similarity.isnan():  # some images share a class
            terms["cfc_similarity"] = similarity
        if contrast.repel:
            background = self._of_all_ranks(losses.background_vectors(features, cam))
            terms["loss_repel"] = losses.repulsion(by_class, background, tags, kept)
        return terms

    def _of_all_ranks(self, x: Tensor) -> Tensor:
        """Concatenate a tensor over ranks, so that DDP's mean of gradients is the gradient of the joint batch.

        Each rank computes the same loss of all vectors, and passes the gradient on to its own, times the number of
        ranks. (Gathering with gradients is wrong for some strides: https://github.com/pytorch/pytorch/issues/120386.)
        """
        if self.ranks == 1:
            return x
        gathered = self.all_gather(x.detach())
        assert isinstance(gathered, Tensor)
        parts = list(gathered.unbind())
        parts[self.global_rank] = x + (self.ranks - 1) * (x - x.detach())
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
        stride = inference.stride
        maps, scores, entropy = multi_scale_cam(
            self.net,
            image[0],
            inference.scales,
            inference.flip,
            (-(-height // stride), -(-width // stride)),
            inference.attention,
        )
        if (label[0] < 0).any():
            present = scores.sigmoid() > inference.tag_threshold
            present[scores.argmax()] = True
        else:
            present = label[0] > 0
        cam = above_floor(scale_to_one(maps[present]), inference.floor)
        return CAMs(cam, present.nonzero()[:, 0] + 1, (height, width)), scores, entropy
