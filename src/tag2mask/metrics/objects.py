"""Where masks go wrong: classes that take each other's pixels, tags that come together, small objects.

Shape letters in this file: C foreground classes, G classes with the background, H x W a photograph.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tag2mask.classes import BACKGROUND, IGNORE

EVERY_NEIGHBOUR = np.ones((3, 3), bool)
"""Pixels that touch by a corner are of one object."""


class ObjectScore(NamedTuple):
    """How well one object was found. Masks have classes, not objects: connected pixels of a class are taken for one.

    Attributes:
        value: mask value of its class.
        share: its pixels, as share of the photograph.
        recall: share of its pixels that were labelled with its class.
        iou: with the labelled regions of its class that touch it, less what belongs to other objects of that class.
    """

    value: int
    share: float
    recall: float
    iou: float


class SizeGroup(NamedTuple):
    """Objects of like size.

    Attributes:
        low: share of the photograph that the smallest has.
        high: likewise the largest.
        objects: how many.
        iou: their mean.
        missed: share of them of which less than a tenth, or what was asked for, was found.
    """

    low: float
    high: float
    objects: int
    iou: float
    missed: float


def object_scores(label: np.ndarray, truth: np.ndarray) -> list[ObjectScore]:
    """Score each object of a photograph.

    Args:
        label: mask values, (H, W).
        truth: likewise, with ``IGNORE`` where a pixel is not scored.
    """
    if label.shape != truth.shape:
        raise ValueError(f"the label map is {label.shape} and the truth {truth.shape}; they must be of one size")
    found = []
    for value in np.setdiff1d(np.unique(truth), (BACKGROUND, IGNORE)).tolist():
        labelled = (label == value) & (truth != IGNORE)
        objects, count = ndimage.label(truth == value, EVERY_NEIGHBOUR)
        regions, _ = ndimage.label(labelled, EVERY_NEIGHBOUR)
        for number in range(1, count + 1):
            own = objects == number
            touching = np.isin(regions, np.setdiff1d(regions[own], 0)) & ((objects == 0) | own)
            hit, whole = int((own & labelled).sum()), int(own.sum())
            found.append(ObjectScore(value, whole / truth.size, hit / whole, hit / int((own | touching).sum())))
    return found


def by_size(objects: Sequence[ObjectScore], groups: int = 4, least: float = 0.1) -> list[SizeGroup]:
    """Cut objects into equally large groups of rising size.

    Args:
        objects: of all photographs; fewer of them than ``groups`` make fewer groups.
        groups: how many.
        least: recall under which an object counts as missed.
    """
    order = sorted(objects, key=lambda scored: scored.share)
    parts = [order[len(order) * k // groups : len(order) * (k + 1) // groups] for k in range(groups)]
    return [_group(part, least) for part in parts if part]


def _group(part: Sequence[ObjectScore], least: float) -> SizeGroup:
    missed = sum(scored.recall < least for scored in part) / len(part)
    return SizeGroup(part[0].share, part[-1].share, len(part), sum(s.iou for s in part) / len(part), missed)


def taken(confusion: np.ndarray) -> np.ndarray:
    """Return what became of the pixels of each true class: rows of a confusion matrix (G, G), divided by their sums.

    A class that never occurs has a row of nan.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(confusion / confusion.sum(1, keepdims=True))


def together(tags: Iterable[Sequence[int]], num_classes: int) -> np.ndarray:
    """Return how often tags come together: of the photographs with the row's tag, the share with the column's, (C, C).

    Args:
        tags: mask values of the classes of each photograph.
        num_classes: C. A class without photographs has a row of nan.
    """
    there = np.array([np.isin(np.arange(1, num_classes + 1), list(each)) for each in tags], float)
    both = there.reshape(-1, num_classes).T @ there.reshape(-1, num_classes)
    with np.errstate(invalid="ignore"):
        return np.asarray(both / both.diagonal()[:, None])
