"""Pairs of positions within a radius, and the straight paths between them, as IRN (arXiv:1904.05044) takes them.

A pair is a source position and one of P directions (dy, dx) in the half plane below it, so that each pair occurs once.
Its path holds the positions of the box spanned by both ends whose distance from the line between them is below 1.

Shape letters in this file: P directions, L positions of a path, h x w a map, n its sources: the positions from which
all P destinations lie inside the map, row by row, (h - radius + 1) x (w - 2 (radius - 1)).
"""

from functools import cache

import torch
from torch import Tensor

from tag2mask.classes import BACKGROUND, IGNORE


@cache
def _paths(radius: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """All paths, shorter ones first; each from its destination to its source."""
    if radius < 1:
        raise ValueError(f"radius is {radius}; expected at least 1, which pairs nothing")
    reach = range(1 - radius, radius)
    paths = []
    for dy, dx in ((dy, dx) for dy in range(radius) for dx in reach if (dy, dx) > (0, 0) and dy**2 + dx**2 < radius**2):
        box = [(y, x) for y in range(dy + 1) for x in range(min(0, dx), max(0, dx) + 1)]
        near = [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy**2 + dx**2]
        paths.append(tuple(sorted(near, key=lambda place: -abs(place[0]) - abs(place[1]))))
    return tuple(sorted(paths, key=len))


def directions(radius: int) -> Tensor:
    """Return the offsets (dy, dx) from a source to all nearer than ``radius``, shorter paths first, (P, 2) int64."""
    return torch.tensor([path[0] for path in _paths(radius)], dtype=torch.long).view(-1, 2)


def _shifted(maps: Tensor, offset: tuple[int, int], radius: int) -> Tensor:
    """View of maps (..., h, w) at an offset from each source, (..., rows, columns)."""
    height, width = maps.shape[-2:]
    rows, columns = max(0, height - radius + 1), max(0, width - 2 * (radius - 1))
    top, left = offset[0], radius - 1 + offset[1]
    return maps[..., top : top + rows, left : left + columns]


def pair_affinity(edge: Tensor, radius: int) -> Tensor:
    """Affinity of each pair, (..., P, n) float32: 1 - the highest edge on the path between its ends.

    This is IRN's ``edge_to_affinity``. ``edge`` has boundaries in [0, 1], (..., h, w), of any floating type; n is 0
    where the map is too small for the radius. The gradient of a pair reaches one position, the highest of its path.
    Beside the result, memory is taken for as many int64.
    """
    edge = edge.float()
    height, width = edge.shape[-2:]
    places = torch.arange(height * width, device=edge.device).view(height, width)
    sources = _shifted(places, (0, 0), radius)
    highest = [sources.expand(*edge.shape[:-2], *sources.shape)]  # where radius 1 has no path
    with torch.no_grad():
        for path in _paths(radius):
            along = torch.stack([_shifted(edge, offset, radius) for offset in path])  # (L, ..., rows, columns)
            steps = torch.tensor([y * width + x for y, x in path], device=edge.device)
            highest.append(sources + steps[along.max(0).indices])  # on a CPU five times as fast as argmax
        index = torch.stack(highest, -3).flatten(-2)[..., 1:, :]
    return 1 - edge.flatten(-2).gather(-1, index.flatten(-2)).view(index.shape)


def pair_labels(label: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tell apart pairs of one label and of two (IRN's ``GetAffinityLabelFromIndices``).

    ``label`` has mask values, (..., h, w), of any integer type. Pairs with an end on ``IGNORE`` are none of the three.
    IRN ignores all values from 21 on, VOC's class count; here it is ``IGNORE`` alone, for any number of classes. They
    are background, foreground (both ends are of one class) and negative (the ends differ), (..., P, n) bool each.
    """
    ends = [_shifted(label, offset, radius) for offset in ((0, 0), *(path[0] for path in _paths(radius)))]
    source, other = torch.stack(ends, -3).flatten(-2).split([1, len(ends) - 1], -2)
    known = (source != IGNORE) & (other != IGNORE)
    same = known & (source == other)
    return same & (source == BACKGROUND), same & (source != BACKGROUND), known & (source != other)
