"""Cross-entropy of the segmentation network.

Shape letters in this file: B images, G classes with the background, H x W a map.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from tag2mask.classes import IGNORE


def segmentation_loss(
    scores: Tensor, label: Tensor, counted: Callable[[Tensor], Tensor] = lambda count: count
) -> Tensor:
    """Cross-entropy, averaged over the pixels whose label is not ``IGNORE``; 0 where there are none.

    Args:
        scores: class scores before the softmax, (B, G, H, W), of G classes with the background.
        label: mask values, (B, H, W) int64.
        counted: turns the number of those pixels into the one that the sum is divided by. Under DDP its mean over
            ranks, which makes the mean of the ranks' losses that of the joint batch.
    """
    total = F.cross_entropy(scores.float(), label, ignore_index=IGNORE, reduction="sum")
    return total / counted((label != IGNORE).sum()).clamp_min(1)
