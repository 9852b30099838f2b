"""Gaussian filtering of scattered values in many dimensions, by a permutohedral lattice.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010. The lattice, its scale
and its blur are those of Kraehenbuehl and Koltun's dense CRF code, which pydensecrf wraps; the code is our own.

Shape letters in this file: P points, D dimensions of their features, V vertices of the lattice, L channels of values.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.errors import SettingError


@dataclass(frozen=True)
class Lattice:
    """A sparse lattice around P points, see `build`. Indices are int32, weights float32.

    The last vertex is empty and stands for all that the lattice does not hold.
    """

    splat_index: Tensor  # point of each weight that flows into a vertex, vertex by vertex, (P (D + 1),)
    splat_start: Tensor  # where the weights of each vertex begin, (V + 1,)
    splat_weight: Tensor  # (P (D + 1),)
    slice_index: Tensor  # the vertices of the simplex around each point, (P, D + 1)
    slice_weight: Tensor  # (P, D + 1)
    neighbours: Tensor  # each vertex and the two beside it along each axis, (D + 1, V + 1, 3); V where there is none

    def filter(self, values: Tensor) -> Tensor:
        r"""Sum the values of all points, each weighted by its nearness in feature space: (P, L) -> (P, L) float32.

        .. math:: out_i \approx c \sum_j \exp(-|f_i - f_j|^2 / 2) \, values_j

        The factor c is the lattice's. It falls where points are sparse, since no vertex stands where none is near.
        """
        vertices = _weighted_sum(self.splat_index, values.float(), self.splat_weight, self.splat_start)
        blur = vertices.new_tensor([1.0, 0.5, 0.5]).expand(len(vertices), 3).contiguous()
        for around in self.neighbours:
            vertices = _weighted_sum(around, vertices, blur)
        return _weighted_sum(self.slice_index, vertices, self.slice_weight)

    def normalised(self) -> "Lattice":
        """Return the lattice whose filter is divided by the square roots of its row sums, before and after."""
        factor = (self.filter(torch.ones_like(self.slice_weight[:, :1])).squeeze(1) + 1e-20).rsqrt()
        splat = self.splat_weight * factor.index_select(0, self.splat_index)
        return replace(self, splat_weight=splat, slice_weight=self.slice_weight * factor[:, None])


def build(features: Tensor) -> Lattice:
    """Return the lattice around points (P, D), whose unit is the standard deviation of the Gaussian."""
    points, dimensions = features.shape
    corner, rank, slice_weight = _simplex(features.T.float().contiguous())
    keys, steps = _keys(corner, rank)
    ordered, order = keys.flatten().sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    number = first.cumsum(0, dtype=torch.int32) - 1
    vertex = torch.empty_like(number).scatter_(0, order, number)
    start = first.nonzero().flatten()
    alpha = 1 / (1 + 2.0**-dimensions)
    keys, count = ordered[start], len(start)
    own = torch.arange(count + 1, dtype=torch.int32, device=keys.device)
    neighbours = own.new_full((len(steps), count + 1, 3), count)
    neighbours[:, :, 0] = own
    for around, step in zip(neighbours, steps.tolist(), strict=True):
        beside = torch.searchsorted(keys, keys + step).clamp_max_(count - 1)
        here = (keys.index_select(0, beside) == keys + step).nonzero().flatten()
        there = beside.index_select(0, here)
        around[here, 1] = there.int()
        around[there, 2] = here.int()
    return Lattice(
        splat_index=(order // (dimensions + 1)).int(),
        splat_start=F.pad(start, (0, 1), value=len(ordered)).int(),
        splat_weight=slice_weight.flatten().index_select(0, order),
        slice_index=vertex.view(points, dimensions + 1),
        slice_weight=slice_weight * alpha,
        neighbours=neighbours,
    )


def _weighted_sum(index: Tensor, values: Tensor, weight: Tensor, start: Tensor | None = None) -> Tensor:
    """Sum rows of values by weight: a sparse product that is fast on the CPU and on the GPU, and needs no atomics."""
    return F.embedding_bag(index, values, start, mode="sum", per_sample_weights=weight)


def _simplex(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the simplex around each point, (D, P): its vertex of remainder 0, (D + 1, P).

    And the rank of each of the point's coordinates by its distance from there, (D + 1, P) int64; and the point's
    barycentric weights, (P, D + 1).
    """
    elevated = _elevate(features)
    axes = len(elevated)
    nearest = (elevated * (1 / axes)).round()
    offset = elevated - nearest * axes
    rank = torch.zeros_like(elevated)
    for axis in range(axes - 1):
        behind = (offset[axis] < offset[axis + 1 :]).float()
        rank[axis] += behind.sum(0)
        rank[axis + 1 :] += 1 - behind
    rank += nearest.sum(0)  # where the rounded point lies off the plane, walk back along the farthest axes
    wrap = (rank < 0).float() - (rank >= axes).float()
    corner, rank = (nearest + wrap) * axes, (rank + wrap * axes).long()
    share = torch.empty_like(elevated).scatter_(0, rank, (elevated - corner) * (1 / axes)).flip(0)
    weight = torch.cat([share[:1] + (1 - share[-1:]), share[1:] - share[:-1]])
    return corner, rank, weight.T.contiguous()


def _elevate(features: Tensor) -> Tensor:
    """Embed the points in the plane of D + 1 coordinates that sum to 0: (D, P) -> (D + 1, P), p. 5 of the paper."""
    dimensions = len(features)
    spread = torch.tensor(math.sqrt(2 / 3) * (dimensions + 1)).double()  # the standard deviation of the blur, p. 6
    steps = torch.arange(1, dimensions + 1, dtype=torch.float64)
    scale = (1 / (steps * (steps + 1)).sqrt() * spread).float().tolist()
    total = torch.zeros_like(features[0])
    elevated = []
    for axis in range(dimensions, 0, -1):
        part = features[axis - 1] * scale[axis - 1]
        elevated.append(total - axis * part)
        total = total + part
    return torch.stack([total, *reversed(elevated)])


def _keys(corner: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys of the vertices of each point's simplex, (P, D + 1) int64, and the steps along the axes, (D + 1,).

    A key is a number whose digits are the first D coordinates (the last follows from them), so that a step along an
    axis adds the same to every key.
    """
    axes = len(corner)
    coordinates = corner[:-1].long()
    low, high = coordinates.amin(1), coordinates.amax(1)
    digits = (high - low + 4 * axes).tolist()  # vertices reach D beyond, their neighbours D more: no digit overflows
    if math.prod(digits) >= 2**63:
        cells = " x ".join(map(str, digits))
        raise SettingError(f"a kernel spans {cells} lattice cells, more than 64 bits can number; raise sxy or srgb")
    worth = [math.prod(digits[axis + 1 :]) for axis in range(axes)]
    worth[-1] = 0  # of the coordinate that is left out
    place = torch.tensor(worth, device=corner.device)
    key = ((coordinates - low[:, None]) * place[:-1, None]).sum(0)
    steps = place.sum() - axes * place
    walked = torch.empty_like(rank).scatter_(0, rank, steps[:, None].expand_as(rank)).flip(0)[:-1]
    return torch.cat([key[None], key + walked.cumsum(0)]).T.contiguous(), steps
