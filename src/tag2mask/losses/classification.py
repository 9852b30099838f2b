"""Classification of the tags, Eq. 8."""

import torch.nn.functional as F
from torch import Tensor


def classification_loss(scores: Tensor, label: Tensor) -> Tensor:
    """Multi-label soft-margin loss, Eq. 8: the mean over images and classes of binary cross-entropies.

    Args:
        scores: class scores before the sigmoid, such as the mean of each class's CAM, (B, C).
        label: 1 where the class is in the image, else 0, (B, C).
    """
    return F.multilabel_soft_margin_loss(scores.float(), label.float())
