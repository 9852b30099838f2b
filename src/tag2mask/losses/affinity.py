"""The loss of the edge network, which learns from label maps."""

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

    Returns ``loss`` and its terms ``loss_background``, ``loss_foreground``, ``loss_negative``.

    .. math:: L = \frac{1}{2} \left( \frac{L_{background} + L_{foreground}}{2} + L_{negative} \right)

    Each term is the mean over its pairs: -log a of those of one label, -log(1 - a) of those of two.

    The affinity, in [0, 1], has any shape, and each kind of pairs, bool, has the same one. ``floor`` is added before
    the logarithm and to the number of pairs, so that a kind without pairs counts zero. ``counted`` turns the numbers of
    pairs of the three kinds, (3,), into those that the sums are divided by. Under DDP it is their mean over ranks,
    which makes the mean of the ranks' losses that of the joint batch.
    """
    counts = counted(torch.stack([pairs.sum() for pairs in (background, foreground, negative)])) + floor
    same = -(affinity.float() + floor).log()
    other = -(1 + floor - affinity.float()).log()
    sums = (same * background).sum(), (same * foreground).sum(), (other * negative).sum()
    back, front, apart = (total / count for total, count in zip(sums, counts, strict=True))
    loss = ((back + front) / 2 + apart) / 2
    return {"loss": loss, "loss_background": back, "loss_foreground": front, "loss_negative": apart}
