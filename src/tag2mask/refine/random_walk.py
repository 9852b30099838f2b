"""Random walk of CAMs over affinities between neighbouring positions (IRN, arXiv:1904.05044; AffinityNet, 1803.10464).

IRN and AffinityNet take the 256th power of a dense transition matrix. Here the matrix is sparse and only ever
multiplied with the CAM: a 94 x 125 map takes a fraction of a second instead of minutes. Maps are float32; the steps are
taken in float64, without which 256 of them are off by 6e-5, at hardly any cost. Nothing here carries a gradient.

Shape letters in this file: K classes of one image, h x w its map, N = h x w positions (of all images together, where
there are many), P directions to half of a position's neighbours (`models.paths.directions`), D feature channels.
"""

import math
import warnings
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.models.paths import directions, pair_affinity

FAINT = 1e-12
"""Affinities up to this are taken as none: thousands of steps over all neighbours do not add up to 1e-5."""


def transition(edge: Tensor, radius: int = 5, beta: float = 10.0) -> Tensor:
    r"""Chances of a step between positions, from the edges on the straight paths between them.

    .. math:: T_{qp} = \frac{s_{qp}}{\sum_r s_{qr}}, \quad s_{qp} = (1 - \max_{path(q, p)} edge)^\beta, \quad s_{qq} = 1

    Args:
        edge: boundaries in [0, 1], (h, w), of any size.
        radius: positions nearer than this are joined; IRN's value.
        beta: a higher one makes weak edges count more; IRN's value.

    Returns:
        Sparse CSR matrix (N, N) float64. Row q holds the weights with which position q averages the map, and sums to 1:
        the transpose of IRN's matrix, whose columns do.
    """
    return _step_matrix([_edge_affinity(edge, radius, beta)], radius)


def feature_transition(features: Tensor, radius: int = 5, beta: float = 8.0) -> Tensor:
    """Chances of a step between positions, from the likeness exp(-mean absolute difference) of their features.

    AffinityNet's; its code joins only positions whose whole neighbourhood lies inside the map, here all are joined.

    Args:
        features: (D, h, w).
        radius: positions nearer than this are joined; the value of AffinityNet's code.
        beta: exponent of the likeness; the value of AffinityNet's code.

    Returns:
        Sparse CSR matrix (N, N), as that of `transition`.
    """
    return _step_matrix([_feature_affinity(features, radius, beta)], radius)


def random_walk(
    cam: Tensor, edge: Tensor, radius: int = 5, beta: float = 10.0, steps: int = 256, damp: bool = True
) -> Tensor:
    """Spread a CAM over regions without edges: IRN's ``propagate_to_edge``.

    A step replaces each value by a weighted mean of its neighbourhood, so a constant map stays as it is, no value
    leaves the range of the map, and nothing passes an edge of 1.

    Args:
        cam: (K, h, w).
        edge: boundaries in [0, 1], (h, w).
        radius: of a step, see `transition`.
        beta: exponent of the affinities, likewise.
        steps: of the walk; IRN's ``exp_times`` is its logarithm to base 2, 8 there.
        damp: multiply the CAM by 1 - edge first, as IRN does.

    Returns:
        (K, h, w) float32, not scaled: IRN divides it by its maximum over all classes.
    """
    return random_walk_batch([cam], [edge], radius, beta, steps, damp)[0]


def random_walk_batch(
    cams: Sequence[Tensor],
    edges: Sequence[Tensor],
    radius: int = 5,
    beta: float = 10.0,
    steps: int = 256,
    damp: bool = True,
) -> list[Tensor]:
    """`random_walk` of many images of any sizes and numbers of classes at once, which keeps a GPU busy.

    Args:
        cams: (K, h, w) of each image.
        edges: (h, w) of each image.
        radius: as in `random_walk`.
        beta: likewise.
        steps: likewise.
        damp: likewise.
    """
    for cam, edge in zip(cams, edges, strict=True):
        if cam.shape[1:] != edge.shape:
            raise ValueError(
                f"the CAM is {tuple(cam.shape)} and the edge map {tuple(edge.shape)}; expected (K, h, w) and (h, w): "
                "scale one to the size of the other"
            )
    starts = [cam.float() * (1 - edge.float()) if damp else cam.float() for cam, edge in zip(cams, edges, strict=True)]
    return _walk(starts, _step_matrix([_edge_affinity(edge, radius, beta) for edge in edges], radius), steps)


def feature_affinity_walk(
    cam: Tensor, features: Tensor, radius: int = 5, beta: float = 8.0, steps: int = 256
) -> Tensor:
    """Spread a CAM over positions of like features: the walk of AffinityNet.

    AffinityNet walks with the background's score among the classes (`seeds.with_background`).

    Args:
        cam: (K, h, w).
        features: (D, h, w).
        radius: of a step, see `feature_transition`.
        beta: exponent of the likeness, likewise.
        steps: of the walk; the ``logt`` of AffinityNet's code is its logarithm to base 2, 8 there.

    Returns:
        (K, h, w) float32.
    """
    if cam.shape[1:] != features.shape[1:]:
        raise ValueError(
            f"the CAM is {tuple(cam.shape)} and the features {tuple(features.shape)}; expected (K, h, w) and (D, h, w)"
        )
    return _walk([cam.float()], feature_transition(features, radius, beta), steps)[0]


@torch.no_grad()
def _edge_affinity(edge: Tensor, radius: int, beta: float) -> Tensor:
    """Affinity of each position to its neighbour in each direction, (P, h, w); 0 where that is outside of the map."""
    if beta <= 0:
        raise ValueError(f"beta is {beta}; expected a number above 0, so that an edge of 1 parts what it lies between")
    reach = radius - 1
    walled = F.pad(edge.float(), (reach, reach, 0, reach), value=1.0)  # so that every position is a source
    affinity = pair_affinity(walled, radius) ** beta
    return affinity.view(len(affinity), *edge.shape)


@torch.no_grad()
def _feature_affinity(features: Tensor, radius: int, beta: float) -> Tensor:
    """As `_edge_affinity`, from features (D, h, w)."""
    features = features.float()
    height, width = features.shape[1:]
    affinity = features.new_zeros(len(directions(radius)), height, width)
    for ahead, (dy, dx) in zip(affinity, directions(radius).tolist(), strict=True):
        rows, columns = max(0, height - dy), slice(max(0, -dx), max(0, width - max(0, dx)))
        other = features[:, dy:, max(0, dx) : max(0, width + min(0, dx))]
        ahead[:rows, columns] = (-beta * (features[:, :rows, columns] - other).abs().mean(0)).exp()
    return affinity


@torch.no_grad()
def _step_matrix(affinities: Sequence[Tensor], radius: int) -> Tensor:
    """Chances of a step, sparse CSR (N, N), from affinities (P, h, w) of images that are not joined."""
    counts, columns, chances, first = [], [], [], 0
    for affinity in affinities:
        weight, column = _neighbours(affinity, radius)
        joined = weight > FAINT
        weight = weight.where(joined, 0).double()
        counts.append(joined.sum(1))
        columns.append(column[joined] + first)
        chances.append((weight / weight.sum(1, keepdim=True))[joined])
        first += len(weight)
    starts = F.pad(torch.cat(counts).cumsum(0), (1, 0))
    index = starts.int(), torch.cat(columns).int()  # on a CPU nearly twice as fast as int64
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*index, torch.cat(chances), (first, first), check_invariants=False)


def _neighbours(affinity: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Weights and positions of the 2P + 1 neighbours of each position in ascending order, (h w, 2P + 1) each.

    Those outside of the map have the weight 0 and a position that means nothing.
    """
    (height, width), reach = affinity.shape[1:], radius - 1
    offsets = directions(radius)
    order = torch.argsort(offsets[:, 0] * 2 * radius + offsets[:, 1])
    ahead, offsets = affinity[order.to(affinity.device)], offsets[order]
    behind = torch.zeros_like(ahead)
    walled = F.pad(ahead, (reach, reach, reach, 0))
    for to, source, (dy, dx) in zip(behind, walled, offsets.tolist(), strict=True):
        to.copy_(source[reach - dy : reach - dy + height, reach - dx : reach - dx + width])
    weight = torch.cat([behind.flip(0), affinity.new_ones(1, height, width), ahead])
    step = (offsets * torch.tensor([width, 1])).sum(1)
    step = torch.cat([-step.flip(0), step.new_zeros(1), step]).to(affinity.device)
    places = torch.arange(height * width, device=affinity.device)
    return weight.flatten(1).T, places[:, None] + step


@torch.no_grad()
def _walk(starts: Sequence[Tensor], matrix: Tensor, steps: int) -> list[Tensor]:
    r"""Apply the matrix ``steps`` times to maps (K, h, w), those of all images together.

    .. math:: T^s = \sum_{k \ge 0} p_k C_k(T), \quad C_{k+1}(T) = 2 T C_k(T) - C_{k-1}(T)

    C are the Chebyshev polynomials and p_k the chance that s steps on a line, to either side, end k away from where
    they began. It is negligible from a few times the square root of s on, so 256 steps take 89 products. T is similar
    to a symmetric matrix with eigenvalues in [-1, 1], where no C exceeds 1.
    """
    most = max(len(start) for start in starts)
    if most == 0:
        return list(starts)
    maps = [F.pad(start.flatten(1), (0, 0, 0, most - len(start))) for start in starts]
    before = torch.cat(maps, 1).T.double().contiguous()
    share, *shares = _distances(steps)
    total, now = share * before, matrix @ before
    for share in shares:
        total += share * now
        before, now = now, torch.addmm(before, matrix, now, beta=-1, alpha=2)
    blocks = total.split([math.prod(start.shape[1:]) for start in starts])
    return [block.T[: len(start)].view_as(start).float() for block, start in zip(blocks, starts, strict=True)]


@cache
def _distances(steps: int) -> tuple[float, ...]:
    """Chance that a walk on a line ends 0, 1, 2, ... away from its start; less than 1e-7 of it is left out."""
    far = min(steps, math.ceil(5.5 * math.sqrt(steps)))  # in standard deviations
    ways = [math.comb(steps, (steps - k) // 2) * (2 if k else 1) * ((steps - k + 1) % 2) for k in range(far + 1)]
    total = sum(ways)
    return tuple(way / total for way in ways)
