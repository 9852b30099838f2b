"""The loss of both branches: Eq. 7-9, 15 and 16.

Shape letters in this file: B images, C foreground classes, H x W a map. ``label`` is 1 where the class is in the image,
else 0, (B, C).
"""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor


def classification_loss(scores: Tensor, label: Tensor) -> Tensor:
    """Multi-label soft-margin loss, Eq. 8: the mean over images and classes of binary cross-entropies.

    ``scores`` are those before the sigmoid, such as the mean of each class's CAM, (B, C).
    """
    return F.multilabel_soft_margin_loss(scores.float(), label.float())


def equivariance_loss(
    full: Tensor,
    target: Tensor,
    label: Tensor,
    distance: Literal["l1", "correlation"] = "l1",
    learns: Literal["both", "full", "tiled"] = "both",
    counted: Callable[[Tensor], Tensor] = lambda count: count,
) -> Tensor:
    r"""Return the distance between the CAM of the whole image and a CAM merged from its tiles, Eq. 15.

    .. math:: L_{re} = \frac{1}{BCHW} \sum_{b,c,h,w} y_{bc} \, | C_{bchw} - \hat{C}^*_{bchw} |

    The paper prints the bare norm. This is the form of Puzzle-CAM (https://arxiv.org/abs/2101.11253), ``masking`` in
    its code: absent classes add nothing, but count in the denominator. ``distance`` ``correlation`` takes
    `correlation_loss` in place of it. Both CAMs are (B, C, H, W), before ReLU and scaling.

    The loss moves the branch that ``learns``, ``both`` as printed; the other branch has no gradient of it. ``counted``
    is that of `correlation_loss`.
    """
    full, target = full.detach() if learns == "tiled" else full, target.detach() if learns == "full" else target
    if distance == "correlation":
        return correlation_loss(full, target, label, counted=counted)
    _same_size(full, target)
    return ((full.float() - target.float()).abs().mean((2, 3)) * label.float()).mean()


def correlation_loss(
    full: Tensor,
    tiled: Tensor,
    label: Tensor,
    least: float = 1.0,
    counted: Callable[[Tensor], Tensor] = lambda count: count,
) -> Tensor:
    r"""Return how little the CAM of the whole image looks like the CAM merged from its tiles: a reading of Eq. 15.

    .. math:: L_{re} = 1 - \frac{1}{\sum y} \sum_{b,c} y_{bc} \, \rho (C_{bc}, \hat{C}^*_{bc})

    :math:`\rho` is Pearson's correlation over the positions of a map, as in the distillation of DIST
    (https://arxiv.org/abs/2205.10536). It compares the shapes of two maps and leaves their scale and mean to the
    classification losses. L1 does not: an average over an affinity is flatter than what it averages, and a map that
    comes near a flat one becomes flat too.

    The gradient of a correlation grows as 1 / standard deviation: maps that are nearly flat, as at the start, would be
    moved most. So no deviation counts as less than ``least``, in units of class scores.

    Both CAMs are (B, C, H, W). The loss is within [0, 2]. A map that is constant has no shape: it counts 1. A batch
    without any tag counts 0. ``counted`` turns the number of tags into what the sum is divided by: under DDP their mean
    over ranks, which makes the mean of the ranks' losses that of the joint batch.
    """
    _same_size(full, tiled)
    ours, target = (x.float().flatten(2) for x in (full, tiled))  # (B, C, H W)
    ours, target = (x - x.mean(2, keepdim=True) for x in (ours, target))
    spread = [x.square().mean(2).clamp_min(least**2).sqrt() for x in (ours, target)]
    correlation = (ours * target).mean(2) / (spread[0] * spread[1])  # (B, C)
    return ((1 - correlation) * label).sum() / counted(label.sum()).clamp_min(1e-6)


def found_tags(scores: Tensor, label: Tensor, over_ranks: Callable[[Tensor], Tensor] = lambda summed: summed) -> Tensor:
    """Return ``label`` without the tags of classes that the network does not find yet, (B, C).

    A class is found where the mean of the class scores before the sigmoid, (B, C), over the images of the batch that
    have the tag, is above 0: a probability of one half. ``over_ranks`` sums or averages a tensor over the ranks of DDP,
    (C,), so that all ranks find the same classes. This is not in the paper: the CAM of a class that is not learnt yet
    says little about the place of the class.
    """
    summed = over_ranks((scores.detach().float() * label).sum(0))  # (C,)
    return label * (summed > 0)


def ramp(step: int, steps: int, share: float, start: float = 0.0) -> float:
    """Return the factor of a loss weight at ``step`` of ``steps``.

    It is 0 over the first ``start`` of the steps and grows to 1 over the next ``share`` of them. Puzzle-CAM ramps the
    weight of Eq. 15 so, with start 0 and share 0.5. Share 0 is a weight that is there from ``start`` on.
    """
    over, done = share * steps, step - start * steps
    return float(done >= 0) if over <= 0 else min(1.0, max(0.0, done / over))


def two_step_loss(
    full: Tensor,
    tiled: Tensor,
    label: Tensor,
    equivariance: Tensor | float = 0.0,
    beta: float = 0.0,
    contrast: Tensor | float = 0.0,
    lam: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Return the loss of both branches, Eq. 16, and the terms ``loss_cls`` and ``loss_cls_tiled``.

    .. math:: L = L_{cls} + \lambda L_{pos} + \beta L_{re}, \quad
              L_{cls} = \ell(\bar{C}, y) + \ell(\bar{\hat{C}}^*, y)

    :math:`\bar{C}` is the mean of each map, its class score (Eq. 7-9). Without attention and contrast this is the loss
    of Puzzle-CAM.

    The CAM of the whole image and the one merged from the tiles are those before ReLU, (B, C, H, W). ``equivariance``
    is the loss of Eq. 15, ``contrast`` that of Eq. 14.
    """
    terms = {
        "loss_cls": classification_loss(full.float().mean((2, 3)), label),
        "loss_cls_tiled": classification_loss(tiled.float().mean((2, 3)), label),
    }
    return terms["loss_cls"] + terms["loss_cls_tiled"] + beta * equivariance + lam * contrast, terms


def _same_size(full: Tensor, tiled: Tensor) -> None:
    if full.shape != tiled.shape:
        raise ValueError(f"the two CAMs differ in size: full {tuple(full.shape)}, tiled {tuple(tiled.shape)}")
