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
    ends = [(dy, dx) for dy in range(radius) for dx in reach if (dy, dx) > (0, 0) and dy**2 + dx**2 < radius**2]
    return tuple(sorted((_line(dy, dx) for dy, dx in ends), key=len))


def _line(dy: int, dx: int) -> tuple[tuple[int, int], ...]:
    """Positions between (0, 0) and (dy, dx), both included, from the far end on."""
    box = [(y, x) for y in range(dy + 1) for x in range(min(0, dx), max(0, dx) + 1)]
    near = [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy**2 + dx**2]
    return tuple(sorted(near, key=lambda place: -abs(place[0]) - abs(place[1])))


def directions(radius: int) -> Tensor:
    """Return the offsets (dy, dx) from a source to its destinations, shorter paths first, (P, 2) int64.

    Args:
        radius: destinations are nearer than this; 5 gives 34 of them, 10 gives 152.
    """
    return torch.tensor([path[0] for path in _paths(radius)], dtype=torch.long).view(-1, 2)


def _sources(height: int, width: int, radius: int) -> tuple[int, int]:
    """Rows and columns of the block of sources; it begins in row 0 and column radius - 1."""
    return max(0, height - radius + 1), max(0, width - 2 * (radius - 1))


def _shifted(maps: Tensor, offset: tuple[int, int], radius: int) -> Tensor:
    """View of maps (..., h, w) at an offset from each source, (..., rows, columns)."""
    height, width = maps.shape[-2:]
    rows, columns = _sources(height, width, radius)
    left = radius - 1 + offset[1]
    return maps[..., offset[0] : offset[0] + rows, left : left + columns]


def pair_affinity(edge: Tensor, radius: int) -> Tensor:
    """Affinity of each pair: 1 - the highest edge on the path between its ends (IRN's ``edge_to_affinity``).

    Args:
        edge: boundaries in [0, 1], (..., h, w), of any floating type.
        radius: of `directions`.

    Returns:
        (..., P, n) float32; n is 0 where the map is too small for the radius. The gradient of a pair reaches one
        position, the highest of its path. Beside the result, memory is taken for as many int64.
    """
    edge = edge.float()
    with torch.no_grad():
        highest = [_highest(edge, path, radius) for path in _paths(radius)]
        index = torch.stack(highest, -2) if highest else _none(edge, radius).long()
    return 1 - edge.flatten(-2).gather(-1, index.flatten(-2)).view(index.shape)


def _highest(edge: Tensor, path: tuple[tuple[int, int], ...], radius: int) -> Tensor:
    """Index of the highest position on the path of each source, in the flattened map, (..., n)."""
    height, width = edge.shape[-2:]
    places = torch.arange(height * width, device=edge.device).view(height, width)
    steps = torch.tensor([y * width + x for y, x in path], device=edge.device)
    along = torch.stack([_shifted(edge, offset, radius) for offset in path])  # (L, ..., rows, columns)
    which = along.max(0).indices  # on a CPU five times as fast as argmax
    return (_shifted(places, (0, 0), radius) + steps[which]).flatten(-2)


def _none(maps: Tensor, radius: int) -> Tensor:
    """What radius 1 pairs, (..., 0, n)."""
    return _shifted(maps, (0, 0), radius).flatten(-2)[..., None, :][..., :0, :]


def pair_labels(label: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tell apart pairs of one label and of two (IRN's ``GetAffinityLabelFromIndices``).

    Pairs with an end on ``IGNORE`` are none of the three. IRN ignores all values from 21 on, VOC's class count; here it
    is ``IGNORE`` alone, so that any number of classes will do.

    Args:
        label: mask values, (..., h, w), of any integer type.
        radius: of `directions`.

    Returns:
        ``background``, ``foreground`` (both ends are of one foreground class) and ``negative`` (the ends differ),
        (..., P, n) bool each.
    """
    source = _shifted(label, (0, 0), radius).flatten(-2)[..., None, :]
    ends = [_shifted(label, path[0], radius).flatten(-2) for path in _paths(radius)]
    other = torch.stack(ends, -2) if ends else _none(label, radius)
    known = (source != IGNORE) & (other != IGNORE)
    same = known & (source == other)
    return same & (source == BACKGROUND), same & (source != BACKGROUND), known & (source != other)
