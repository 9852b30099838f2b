"""A linear probe: a classifier of positions, learned from first labels on features that stay as they are.

A probe has too few weights to follow every error of the labels, so its maps can be better than the labels that it
learned from. It is cross-fitted: each photograph is judged by a probe of all photographs, and by a probe of the
photographs in other folds, which has not learned the errors in the label of this one.

Shape letters in this file: P positions of one photograph, N positions of all, D feature channels, G classes with the
background, F folds, h x w a map.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.classes import BACKGROUND, IGNORE
from tag2mask.errors import MissingError, SettingError

UNSEEN = -1e4
"""Score of a class that no label shows: its probability is 0. Infinity would not survive interpolation."""


@dataclass(frozen=True)
class Probe:
    """What a linear probe learns from (docs/experiments/linear-probe.md).

    Attributes:
        rounds: how often a probe learns from the labels of the round before; the first labels come from the CAMs.
        layers: of the CAM network's backbone, by name; a position has the features of all of them, at the size of the
            last one. ``blocks.4`` and ``bn2``, the last layer, are EfficientNet-Lite0's.
        checkpoint: of the CAM network; null takes the one that made the CAMs.
        folds: number of groups of photographs, at least 2; a probe learns from all groups but one.
        weight_decay: factor of the squared weights, for features of variance 1. It is divided by the number of
            photographs: the more of them, the less the weights are held back.
        positions: number of positions that the probe learns from, of all photographs together.
    """

    rounds: int = 2
    layers: tuple[str, ...] = ("blocks.4", "bn2")
    checkpoint: str | None = None
    folds: int = 5
    weight_decay: float = 40.0
    positions: int = 60_000

    def __post_init__(self) -> None:
        """Refuse what no probe can have."""
        if self.rounds < 1 or self.folds < 2 or not self.weight_decay > 0 or self.positions < 1 or not self.layers:
            raise SettingError(
                f"rounds {self.rounds}, folds {self.folds}, weight_decay {self.weight_decay}, positions "
                f"{self.positions}, layers {list(self.layers)} of the probe; expected 2 folds or more, other numbers "
                "above 0, and a layer"
            )


class Fitted(NamedTuple):
    """Cross-fitted probes: the first of all photographs, each other of all but those of one fold."""

    weight: Tensor  # (1 + F, G, D) float32
    bias: Tensor  # (1 + F, G)
    mean: Tensor  # of the features, (D,)
    std: Tensor  # likewise
    fold: dict[str, int]  # of the photographs that they learned from, from 0

    def logits(self, features: Tensor, name: str) -> Tensor:
        """Return the class scores of a photograph before the softmax, (G, h, w), for its features (D, h, w).

        The scores are those of the probe of all photographs plus those of the probe that has not learned from this one.
        Where no probe has learned from this photograph, the scores of the former count twice.
        """
        chosen = [0, 1 + self.fold[name] if name in self.fold else 0]
        scaled = (features - self.mean.to(features)[:, None, None]) / self.std.to(features)[:, None, None]
        weight, bias = self.weight[chosen].sum(0).to(features), self.bias[chosen].sum(0).to(features)
        return torch.einsum("gd,dhw->ghw", weight, scaled) + bias[:, None, None]


def shares_at_positions(label: Tensor, size: tuple[int, int], num_classes: int) -> Tensor:
    """Return the share of each class at each position of a map, (G, h, w), for a label map (H, W) uint8.

    What is ``IGNORE`` counts as no class, so the shares of a position sum up to at most 1. One class is done after
    another: memory does not grow with the number of classes.
    """
    shares = torch.zeros(num_classes, *size)
    for value in label.unique().tolist():
        if value != IGNORE:
            shares[value] = F.adaptive_avg_pool2d((label == value).float()[None], size)[0]
    return shares


def drawn(name: str, count: int, most: int) -> list[int]:
    """Return at most ``most`` of the positions 0 to ``count`` - 1, drawn at random by the name of the photograph."""
    return sorted(random.Random(name).sample(range(count), min(count, most)))


def fit(learned: Mapping[str, tuple[Tensor, Tensor]], settings: Probe) -> Fitted:
    """Fit the probes to positions of photographs, by name: features (P, D) and shares of the classes (P, G).

    In each photograph all classes weigh the same that cover a position or more, however small they are. The loss is
    the mean cross-entropy of the shares, plus the squared weights times ``weight_decay`` over the number of
    photographs; L-BFGS minimizes it. A class that no label shows has the probability 0. ``MissingError``: there is
    nothing to learn.
    """
    if len(learned) < 2:
        raise MissingError(f"{len(learned)} photographs have a first label; a probe needs two or more")
    order = list(learned)
    random.Random(0).shuffle(order)
    folds = min(settings.folds, len(order))
    fold = {name: turn % folds for turn, name in enumerate(order)}
    features, shares = zip(*learned.values(), strict=True)
    inputs = torch.cat(features)
    mean, std = inputs.mean(0), inputs.std(0).clamp_min(1e-3)
    inputs = (inputs - mean) / std
    targets = torch.cat([share / share.sum(0).clamp_min(1) for share in shares])
    unseen = targets.sum(0) == 0
    if unseen[BACKGROUND + 1 :].all():
        remedy = "lower the threshold of the recipe, and look at the labels"
        raise MissingError(f"none of {len(learned)} labels shows a class, so a probe learns nothing; {remedy}")
    owner = torch.cat([torch.full((len(each),), fold[name]) for name, (each, _) in learned.items()])
    parts = [owner >= 0, *(owner != k for k in range(folds))]
    fitted = [_minimum(inputs[part], targets[part], settings.weight_decay / len(learned)) for part in parts]
    weight, bias = (torch.stack(each) for each in zip(*fitted, strict=True))
    bias[:, unseen] = UNSEEN
    return Fitted(weight, bias, mean, std, fold)


def _minimum(inputs: Tensor, targets: Tensor, weight_decay: float) -> tuple[Tensor, Tensor]:
    """Return the weight (G, D) and bias (G,) of a softmax regression with targets (N, G) that weigh their sum."""
    weight = torch.zeros(targets.shape[1], inputs.shape[1], requires_grad=True)
    bias = torch.zeros(targets.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        log_probabilities = F.linear(inputs, weight, bias).log_softmax(1)
        value = -(targets * log_probabilities).sum() / targets.sum() + weight_decay * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
