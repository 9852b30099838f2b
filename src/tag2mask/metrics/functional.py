"""Counts of label maps and of CAMs at many thresholds, and their scores under the PASCAL VOC protocol.

Eq. 17-19 of Liu et al. 2023. There is one confusion matrix over the whole data set; a row is a true class, a column a
predicted one. Shape letters in this file: K classes of one photograph, G classes with the background, N thresholds,
h x w a CAM, H x W a photograph.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.classes import BACKGROUND, IGNORE

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 16))  # of the background in a sweep, as in Puzzle-CAM


def scores(confusion: Tensor) -> dict[str, Tensor]:
    r"""Turn confusion matrices (..., G, G) into scores, as fractions.

    .. math:: IoU_c = \frac{TP_c}{TP_c + FP_c + FN_c} \quad
              FDR_c = \frac{FP_c}{TP_c + FP_c} \quad FNR_c = \frac{FN_c}{TP_c + FN_c}

    Not the FP / union and FN / union of Puzzle-CAM's, SEAM's and IRN's scripts. A class whose denominator is zero is
    nan and left out of the mean: one that neither occurs nor is predicted has no IoU, one that is predicted but never
    occurs has IoU 0.
    Returns ``iou``, ``fdr``, ``fnr``, (..., G), their means ``miou``, ``mfdr``, ``mfnr``, (...), and those without the
    background, ``miou_foreground`` and so on.
    """
    m = confusion.double()
    tp = m.diagonal(dim1=-2, dim2=-1)
    fp, fn = m.sum(-2) - tp, m.sum(-1) - tp
    rates = {"iou": tp / (tp + fp + fn), "fdr": fp / (tp + fp), "fnr": fn / (tp + fn)}
    front = {f"m{name}_foreground": rate[..., BACKGROUND + 1 :].nanmean(-1) for name, rate in rates.items()}
    return {**rates, **{f"m{name}": rate.nanmean(-1) for name, rate in rates.items()}, **front}


def confusion(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the confusion matrix, (G, G) int64, of two label maps of the same shape."""
    return _count(target.int() * num_classes + predicted.int(), target, (num_classes, num_classes))


def histogram(score: Tensor, winner: Tensor, target: Tensor, thresholds: Tensor, num_classes: int) -> Tensor:
    """Count pixels, (N + 1, G, G) int64, by how many thresholds their CAM passes, by true and by strongest class.

    A pixel belongs to its strongest class where the CAM of that class is above the threshold, else to the background.
    So the counts hold the confusion matrix of every threshold, to the pixel (`at_each_threshold`).

    ``score`` in [0, 1] is the CAM of the strongest class and ``winner`` its mask value, ``target`` the true one or
    ``IGNORE``, each (..., H, W); ``thresholds`` (N,) float32 are of the background, in rising order.
    """
    passed = torch.bucketize(score.float(), thresholds, out_int32=True)
    cell = (passed * num_classes + target.int()) * num_classes + winner.int()
    return _count(cell, target, (len(thresholds) + 1, num_classes, num_classes))


def at_each_threshold(counts: Tensor) -> Tensor:
    """Turn a `histogram`, (N + 1, G, G), into the confusion matrix of each threshold, (N, G, G)."""
    above = counts.flip(0).cumsum(0).flip(0)[1:]  # passed at least this threshold: the strongest class holds
    matrix = above.clone()
    matrix[:, :, BACKGROUND] += (counts.sum(0) - above).sum(-1)
    return matrix


def miou_of_image(confusion: Tensor) -> Tensor:
    """Return the mean IoU over the classes that a photograph truly shows, (...), of (..., G, G); nan where none."""
    return scores(confusion)["iou"].where(confusion.sum(-1) > 0, torch.nan).nanmean(-1)


def _count(cell: Tensor, target: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Count how often each cell of a table occurs, in int64, over the pixels whose target is not ``IGNORE``."""
    size = math.prod(shape)
    counted = cell.where(target != IGNORE, cell.new_tensor(size))  # several times faster than to pick out the others
    return torch.bincount(counted.flatten(), minlength=size + 1)[:-1].view(shape)


def at_full_size(cam: Tensor, classes: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Scale CAMs (K, h, w) of ``classes`` (K,) up bilinearly to ``size``, (height, width).

    Returns the CAM of the strongest class and its mask value, each (H, W); without any class both are 0.
    """
    if len(cam) == 0:
        return cam.new_zeros(tuple(size)), classes.new_zeros(tuple(size))
    score, index = F.interpolate(cam.float()[None], tuple(size), mode="bilinear", align_corners=False)[0].max(0)
    return score, classes[index]
