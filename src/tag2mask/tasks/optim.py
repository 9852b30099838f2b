"""Optimisers and learning-rate schedules."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent as in Puzzle-CAM: four parameter groups and polynomial decay.

    Attributes:
        lr: learning rate of pretrained weights at the start.
        momentum: 0.9 as the peers mean it. Puzzle-CAM, IRN, psa and SEAM pass the weight decay in its place, so what
            they really ran with is 1e-4.
        weight_decay: of weights; biases have none.
        nesterov: Nesterov's form of momentum.
        power: of the polynomial decay, ``lr (1 - step / steps) ** power``; 0 is a constant rate.
        bias_factor: learning rate of biases against weights.
        new_factor: learning rate of layers that start at random against pretrained ones.
        warmup: steps over which the rate first grows from 0.
        for_batch: photographs a step that ``lr`` is meant for; with more or fewer, on several devices or with
            accumulated gradients, it grows or shrinks in proportion (https://arxiv.org/abs/1706.02677). None leaves it.
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = True
    power: float = 0.9
    bias_factor: float = 2.0
    new_factor: float = 10.0
    warmup: int = 0
    for_batch: int | None = None

    def scaled_to(self, images: int) -> "SGD":
        """Return the same with the learning rate for so many photographs a step."""
        return self if self.for_batch is None else replace(self, lr=self.lr * images / self.for_batch)

    def build(
        self, pretrained: nn.Module, net: nn.Module, steps: Callable[[], int]
    ) -> tuple[torch.optim.SGD, LambdaLR]:
        """Return the optimiser of a network with a ``pretrained`` part and its schedule, stepped once a training step.

        The number of ``steps`` is asked for after the first step only: before, a trainer may not know it.
        """
        groups = parameter_groups(pretrained, net, self)
        nesterov = self.nesterov and self.momentum > 0
        optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=nesterov)

        def rate(step: int) -> float:
            return polynomial(step, steps() if step else 1, self.power, self.warmup)

        return optimizer, LambdaLR(optimizer, rate)


def parameter_groups(pretrained: nn.Module, net: nn.Module, sgd: SGD) -> list[dict[str, Any]]:
    """Split parameters into weights and biases of the pretrained and of the other layers; frozen ones are left out.

    Each group has a ``name``, under which its learning rate is logged.
    """
    groups, old = [], set(pretrained.parameters())
    for part, factor in (("pretrained", 1.0), ("new", sgd.new_factor)):
        named = [(n, p) for n, p in net.named_parameters() if p.requires_grad and (p in old) == (part == "pretrained")]
        weights = [p for n, p in named if not n.endswith("bias")]
        biases = [p for n, p in named if n.endswith("bias")]
        rate, bias_rate = sgd.lr * factor, sgd.lr * factor * sgd.bias_factor
        groups.append({"params": weights, "lr": rate, "weight_decay": sgd.weight_decay, "name": part})
        groups.append({"params": biases, "lr": bias_rate, "weight_decay": 0.0, "name": f"{part}_bias"})
    return [group for group in groups if group["params"]]


def polynomial(step: int, steps: int, power: float, warmup: int = 0) -> float:
    """Return the share of the first learning rate that holds at ``step`` of ``steps``."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return float(max(0.0, 1 - step / max(steps, 1)) ** power)
