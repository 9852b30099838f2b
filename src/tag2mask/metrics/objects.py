"""Where masks go wrong: classes that take pixels of each other, tags that come together, small objects."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tag2mask.classes import BACKGROUND, IGNORE


class ObjectScore(NamedTuple):
    """How well one object was found. Masks have classes, not objects: connected pixels of a class are taken for one."""

    value: int  # of the mask, of its class
    share: float  # of the photograph that it covers
    recall: float  # share of its pixels that were labelled with its class
    iou: float  # with the labelled regions of its class that touch it, without their pixels on other objects of it


class SizeGroup(NamedTuple):
    """Objects of similar size, which cover shares of the photograph from ``low`` to ``high``."""

    low: float
    high: float
    objects: int
    iou: float  # their mean
    missed: float  # share of them


def object_scores(label: np.ndarray, truth: np.ndarray) -> list[ObjectScore]:
    """Score each object of a photograph, from its predicted and its true mask values, (H, W); see ``IGNORE``."""
    if label.shape != truth.shape:
        raise ValueError(f"the label map is {label.shape} and the truth {truth.shape}; they must be of one size")
    objects = []
    corners = np.ones((3, 3), bool)  # pixels that touch by a corner are of one object
    for value in np.setdiff1d(np.unique(truth), (BACKGROUND, IGNORE)).tolist():
        labelled = (label == value) & (truth != IGNORE)
        numbers, count = ndimage.label(truth == value, corners)
        regions, _ = ndimage.label(labelled, corners)
        for number in range(1, count + 1):
            own = numbers == number
            touching = np.isin(regions, np.setdiff1d(regions[own], 0)) & ((numbers == 0) | own)
            hit, size = int((own & labelled).sum()), int(own.sum())
            objects.append(ObjectScore(value, size / truth.size, hit / size, hit / int((own | touching).sum())))
    return objects


def by_size(objects: Sequence[ObjectScore], groups: int = 4, least: float = 0.1) -> list[SizeGroup]:
    """Cut objects into up to ``groups`` of equally many, in rising size; a recall under ``least`` is a miss."""
    order, sizes = sorted(objects, key=lambda scored: scored.share), []
    for k in range(groups):
        if part := order[len(order) * k // groups : len(order) * (k + 1) // groups]:
            iou, missed = fmean(each.iou for each in part), fmean(each.recall < least for each in part)
            sizes.append(SizeGroup(part[0].share, part[-1].share, len(part), iou, missed))
    return sizes


def confusion_shares(confusion: np.ndarray) -> np.ndarray:
    """Divide a confusion matrix, (G, G), by its row sums: where each true class went, nan if it never occurs."""
    with np.errstate(invalid="ignore"):
        return np.asarray(confusion / confusion.sum(1, keepdims=True))


def cooccurrence(tags: Iterable[Sequence[int]], num_classes: int) -> np.ndarray:
    """Return how often tags come together: of the photographs with the row's tag, the share with the column's.

    ``tags`` are mask values of each photograph. Shape (num_classes, num_classes); a class that none has, a row of nan.
    """
    present = np.array([np.isin(np.arange(1, num_classes + 1), list(values)) for values in tags], float)
    both = present.reshape(-1, num_classes).T @ present.reshape(-1, num_classes)
    with np.errstate(invalid="ignore"):
        return np.asarray(both / both.diagonal()[:, None])
