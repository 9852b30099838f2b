"""Readings of the paper's equations that lost in the ablation, or that other papers have: as functions of tensors.

None of them can be reached by a configuration. Shape letters in this file: B images, C foreground classes, T tiles of
an image, F length of a vector, N maps, H x W a map.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tag2mask.losses import cross_image_contrast
from tag2mask.models.attention import Attention


def equivariance_over_positives(full: Tensor, tiled: Tensor, label: Tensor) -> Tensor:
    """Eq. 15 as ``selection`` in Puzzle-CAM's code: the mean over the present classes of an image, then over images.

    Args:
        full: CAM of the whole image, (B, C, H, W).
        tiled: CAM merged from the tiles, likewise.
        label: 1 where the class is in the image, else 0, (B, C). An image without any class counts zero.
    """
    distance = (full.float() - tiled.float()).abs().mean((2, 3))  # (B, C)
    return ((distance * label).sum(1) / label.sum(1).clamp_min(1)).mean()


def rank_weights(similarity: Tensor, alpha: float = 0.25) -> Tensor:
    """Weight each pair by the rank of its similarity in a row, ``exp(-alpha x rank)``, as CCAM does (arXiv:2203.13505).

    Args:
        similarity: one number for each pair, (B, B). The most similar of a row has rank 0. CCAM counts the pair of an
            image with itself, with rank -1: its weights are these times ``exp(alpha)``.
        alpha: how fast the weight falls.
    """
    order = similarity.sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(len(order), device=order.device).expand_as(order))
    return torch.exp(-alpha * rank.float())


def equal_weights(similarity: Tensor) -> Tensor:
    """Weight 1 for each pair of images, (B, B)."""
    return torch.ones_like(similarity)


def summed_contrast(foreground: Tensor, alpha: float = 0.25) -> Tensor:
    """Eq. 14 as printed, a sum over all pairs of tiles, with `rank_weights`: CCAM's loss without pairs of one image.

    Args:
        foreground: one vector for each tile, (B, T, F).
        alpha: of the weights.
    """
    images, tiles, _ = foreground.shape
    mean = cross_image_contrast(foreground, weights=lambda similarity: rank_weights(similarity, alpha))
    return mean * images * (images - 1) * tiles**2


@dataclass(frozen=True)
class RestoringAttention(Attention):
    """Self-attention that gives each refined map the mean and the standard deviation that it had before.

    An average is flatter than what it averages, so that Eq. 15 on raw maps drives both branches towards a constant;
    this takes the pull away.
    """

    restore: bool = True

    def refine(self, features: Tensor, cam: Tensor) -> tuple[Tensor, Tensor]:
        """Return the refined maps and the entropy of the attention."""
        refined, entropy = super().refine(features, cam)
        return with_moments_of(cam, refined) if self.restore else refined, entropy


torch.serialization.add_safe_globals([RestoringAttention])


def with_moments_of(before: Tensor, after: Tensor) -> Tensor:
    """Shift and stretch maps ``after`` (N, C, H, W) to the mean and standard deviation (no gradient) of ``before``."""
    deviations = [x.detach().float().std((2, 3), correction=0, keepdim=True) for x in (before, after)]
    mean, middle = (x.float().mean((2, 3), keepdim=True) for x in (before, after))
    return (after - middle) * (deviations[0] / (deviations[1] + 1e-5)) + mean
