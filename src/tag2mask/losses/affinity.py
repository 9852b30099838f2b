"""Affinity loss of the edge network (IRN)."""

from collections.abc import Callable

import torch
from torch import Tensor


def affinity_loss(
    affinity: Tensor,
    background: Tensor,
    foreground: Tensor,
    negative: Tensor,
    floor: float = 1e-5,
    counted: Callable[[Tensor], Tensor] = lambda count: count,
) -> dict[str, Tensor]:
    r"""Binary cross-entropy of affinities between pairs of positions, balanced over kinds of pairs (IRN).

    .. math:: L = \frac{1}{2} \left( \frac{L_{background} + L_{foreground}}{2} + L_{negative} \right)

    Each term is the mean over its pairs: -log a of those of one label, -log(1 - a) of those of two.

    Args:
        affinity: in [0, 1], any shape.
        background: True for pairs that both are background, of the same shape.
        foreground: True for pairs of one foreground class.
        negative: True for pairs of two classes, or of a class and the background.
        floor: added before the logarithm and to the number of pairs, so that a kind without pairs counts zero.
        counted: turns the numbers of pairs of the three kinds, (3,), into those that the sums are divided by. Under
            DDP their mean over ranks, which makes the mean of the ranks' losses that of the joint batch.

    Returns:
        ``loss`` and its terms ``loss_background``, ``loss_foreground``, ``loss_negative``.
    """
    same = -(affinity.float() + floor).log()
    other = -(1 + floor - affinity.float()).log()
    kinds = {
        "loss_background": (same, background),
        "loss_foreground": (same, foreground),
        "loss_negative": (other, negative),
    }
    counts = counted(torch.stack([pairs.sum() for _, pairs in kinds.values()]))
    terms = {
        name: (value * pairs).sum() / (count + floor)
        for (name, (value, pairs)), count in zip(kinds.items(), counts, strict=True)
    }
    positive = (terms["loss_background"] + terms["loss_foreground"]) / 2
    return {"loss": (positive + terms["loss_negative"]) / 2, **terms}
