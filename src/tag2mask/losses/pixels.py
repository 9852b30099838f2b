"""What the segmentation network learns from the label of a pixel, sure or not, and from pixels side by side.

Shape letters in this file: B images, G classes with the background, C = G - 1, H x W a crop, h x w the CAMs that its
label was cut from, and its edge map.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.classes import IGNORE
from tag2mask.errors import SettingError

Counted = Callable[[Tensor], Tensor]
"""Of the number of pixels that a sum has: what the sum is divided by, under DDP the mean over ranks."""


def segmentation_loss(scores: Tensor, label: Tensor, counted: Counted = lambda count: count) -> Tensor:
    """Cross-entropy, averaged over the pixels whose label is not ``IGNORE``; 0 where there are none.

    ``scores`` are those before the softmax, (B, G, H, W), of G classes with the background; ``label`` the mask values,
    (B, H, W) int64.
    """
    total = F.cross_entropy(scores.float(), label, ignore_index=IGNORE, reduction="sum")
    return total / counted((label != IGNORE).sum()).clamp_min(1)


def soft_label(cam: Tensor, background: float = 0.3, power: float = 1.0) -> Tensor:
    r"""Return the share of each class at each position, (B, C, h, w) -> (B, G, h, w), of sum 1.

    .. math:: y_g = s_g^p / \sum_k s_k^p

    The scores :math:`s` are the CAMs, in [0, 1] and 0 for absent classes, and the ``background``, a constant, as the
    threshold of a hard label has it. A higher ``power`` :math:`p` makes sharper shares.
    """
    scores = F.pad(cam.float(), (0, 0, 0, 0, 1, 0), value=background) ** power
    return scores / scores.sum(1, keepdim=True)


def soft_cross_entropy(log_probabilities: Tensor, share: Tensor) -> Tensor:
    r"""Return :math:`-\sum_g y_g \ln p_g` of each pixel, (B, G, H, W) -> (B, H, W)."""
    return -(share * log_probabilities).sum(1)


def collision_cross_entropy(log_probabilities: Tensor, share: Tensor) -> Tensor:
    r"""Return :math:`-\ln \sum_g y_g p_g` of each pixel, (B, G, H, W) -> (B, H, W).

    The sum is the chance that a class drawn from the label and one drawn from the prediction are the same. A label of
    equal shares teaches nothing; with `soft_cross_entropy` it teaches the prediction to be undecided
    (https://arxiv.org/abs/2303.07321).
    """
    return -torch.logsumexp(log_probabilities + share.clamp_min(1e-8).log(), 1)


def pairwise_loss(probabilities: Tensor, edge: Tensor) -> Tensor:
    r"""Return how much the predictions of neighbours differ where no edge parts them, a mean over pairs.

    .. math:: \frac{1}{N} \sum_{ij} w_{ij} \frac{|p_i - p_j|^2}{2}, \quad w_{ij} = 1 - \max(e_i, e_j)

    The pairs are positions side by side. ``probabilities`` are (B, G, h, w), the ``edge`` map, in [0, 1], (B, h, w).
    """
    terms = []
    for axis in (-2, -1):
        (p, q), (e, f) = _neighbours(probabilities, axis), _neighbours(edge, axis)
        terms.append(((1 - torch.maximum(e, f)) * (p - q).square().sum(1) / 2).flatten())
    return torch.cat(terms).mean()


def _neighbours(maps: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return all positions but the last of an axis, and the ones after them."""
    count = maps.shape[axis] - 1
    return maps.narrow(axis, 0, count), maps.narrow(axis, 1, count)


@dataclass(frozen=True)
class PixelLoss(ABC):
    """What the segmentation network learns from a batch; YAML names one of the subclasses.

    Attributes:
        pairwise: weight of `pairwise_loss`; above 0 it needs the edge maps of `tag2mask labels --soft`.
    """

    pairwise: float = 0.0
    soft: ClassVar[bool] = False  # whether it needs the CAMs that the labels were cut from

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of what a batch must hold beside images and masks: ``cam``, ``edge``."""
        return (*(["cam"] if self.soft else []), *(["edge"] if self.pairwise else []))

    def __call__(self, scores: Tensor, batch: Mapping[str, Tensor], counted: Counted) -> dict[str, Tensor]:
        """Return ``loss`` and, with a pairwise term, the two losses that it is the sum of.

        ``scores`` are those before the softmax, (B, G, H, W). Of the batch: ``mask`` (B, H, W) int64, whose ``IGNORE``
        leaves a pixel out; where the loss needs them, ``cam`` (B, C, h, w) and ``edge`` (B, h, w), in [0, 1].
        """
        loss = self.unary(scores, batch, counted)
        if not self.pairwise:
            return {"loss": loss}
        edge = batch["edge"].float()
        coarse = F.adaptive_avg_pool2d(scores.float().softmax(1), (edge.shape[1], edge.shape[2]))
        pairs = pairwise_loss(coarse, edge)
        return {"loss": loss + self.pairwise * pairs, "loss_unary": loss, "loss_pairwise": pairs}

    @abstractmethod
    def unary(self, scores: Tensor, batch: Mapping[str, Tensor], counted: Counted) -> Tensor:
        """Return the mean loss of the pixels one by one."""


@dataclass(frozen=True)
class CrossEntropy(PixelLoss):
    """Cross-entropy of hard labels, see `segmentation_loss`."""

    def unary(self, scores: Tensor, batch: Mapping[str, Tensor], counted: Counted) -> Tensor:
        """Return `segmentation_loss`."""
        return segmentation_loss(scores, batch["mask"], counted)


@dataclass(frozen=True)
class SoftLabels(PixelLoss):
    """Losses of labels that are shares of the classes, see `soft_label`.

    Attributes:
        background: score of the background beside the CAMs, in (0, 1]: the threshold of the hard label.
        power: of the scores; above 1 it makes sharper shares.
    """

    background: float = 0.3
    power: float = 1.0
    soft: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.background <= 1:
            raise SettingError(f"background is {self.background}; expected a score above 0 and at most 1, such as 0.3")

    def unary(self, scores: Tensor, batch: Mapping[str, Tensor], counted: Counted) -> Tensor:
        """Return the mean over the pixels that are not ``IGNORE``."""
        share = soft_label(batch["cam"], self.background, self.power)
        share = F.interpolate(share, scores.shape[-2:], mode="bilinear", align_corners=False)
        kept = batch["mask"] != IGNORE
        return (self.each(scores.float().log_softmax(1), share) * kept).sum() / counted(kept.sum()).clamp_min(1)

    @abstractmethod
    def each(self, log_probabilities: Tensor, share: Tensor) -> Tensor:
        """Return the loss of each pixel, (B, G, H, W) -> (B, H, W)."""


@dataclass(frozen=True)
class SoftCrossEntropy(SoftLabels):
    """Cross-entropy of soft labels, see `soft_cross_entropy`."""

    def each(self, log_probabilities: Tensor, share: Tensor) -> Tensor:
        """Return `soft_cross_entropy`."""
        return soft_cross_entropy(log_probabilities, share)


@dataclass(frozen=True)
class CollisionCrossEntropy(SoftLabels):
    """Collision cross-entropy, see `collision_cross_entropy`."""

    def each(self, log_probabilities: Tensor, share: Tensor) -> Tensor:
        """Return `collision_cross_entropy`."""
        return collision_cross_entropy(log_probabilities, share)
