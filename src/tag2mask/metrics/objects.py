"""Where masks go wrong: classes that take pixels of each other, tags that come together, small objects.

Shape letters in this file: C foreground classes, G classes with the background, H x W a photograph.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tag2mask.classes import BACKGROUND, IGNORE

EVERY_NEIGHBOUR = np.ones((3, 3), bool)
"""Pixels that touch by a corner are of one object."""


class ObjectScore(NamedTuple):
    """How well one object was found. Masks have classes, not objects: connected pixels of a class are taken for one.

    It has the mask ``value`` of its class and covers a ``share`` of the photograph; ``recall`` is the share of its
    pixels that were labelled with its class. Its IoU is with the labelled regions of its class that touch it, without
    their pixels on other objects of the class.
    """

    value: int
    share: float
    recall: float
    iou: float


class SizeGroup(NamedTuple):
    """Objects of similar size, which cover shares of the photograph from ``low`` to ``high``.

    ``objects`` is their number, ``iou`` their mean IoU, and ``missed`` the share of them that were missed.
    """

    low: float
    high: float
    objects: int
    iou: float
    missed: float


def object_scores(label: np.ndarray, truth: np.ndarray) -> list[ObjectScore]:
    """Score each object of a photograph, from its predicted and its true mask values, (H, W); see ``IGNORE``."""
    if label.shape != truth.shape:
        raise ValueError(f"the label map is {label.shape} and the truth {truth.shape}; they must be of one size")
    objects = []
    for value in np.setdiff1d(np.unique(truth), (BACKGROUND, IGNORE)).tolist():
        labelled = (label == value) & (truth != IGNORE)
        numbers, count = ndimage.label(truth == value, EVERY_NEIGHBOUR)
        regions, _ = ndimage.label(labelled, EVERY_NEIGHBOUR)
        for number in range(1, count + 1):
            own = numbers == number
            touching = np.isin(regions, np.setdiff1d(regions[own], 0)) & ((numbers == 0) | own)
            hit, size = int((own & labelled).sum()), int(own.sum())
            objects.append(ObjectScore(value, size / truth.size, hit / size, hit / int((own | touching).sum())))
    return objects


def by_size(objects: Sequence[ObjectScore], groups: int = 4, least: float = 0.1) -> list[SizeGroup]:
    """Cut the objects of all photographs into ``groups`` of equally many, in rising size; empty groups are left out.

    An object counts as missed where its recall is under ``least``.
    """
    order = sorted(objects, key=lambda scored: scored.share)
    parts = [order[len(order) * k // groups : len(order) * (k + 1) // groups] for k in range(groups)]
    return [
        SizeGroup(
            part[0].share, part[-1].share, len(part), fmean(o.iou for o in part), fmean(o.recall < least for o in part)
        )
        for part in parts
        if part
    ]


def taken(confusion: np.ndarray) -> np.ndarray:
    """Return which share of the pixels of each true class went to which class: a confusion matrix, (G, G), by rows.

    A class that never occurs has a row of nan.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(confusion / confusion.sum(1, keepdims=True))


def together(tags: Iterable[Sequence[int]], num_classes: int) -> np.ndarray:
    """Return how often tags come together: of the photographs with the row's tag, the share with the column's, (C, C).

    ``tags`` are the mask values of the classes of each photograph. A class without photographs has a row of nan.
    """
    present = np.array([np.isin(np.arange(1, num_classes + 1), list(values)) for values in tags], float)
    both = present.reshape(-1, num_classes).T @ present.reshape(-1, num_classes)
    with np.errstate(invalid="ignore"):
        return np.asarray(both / both.diagonal()[:, None])
