"""Random walk of CAMs over affinities between neighbouring positions (IRN, arXiv:1904.05044; AffinityNet, 1803.10464).

IRN and AffinityNet take the 256th power of a dense transition matrix. Here the matrix is sparse and only ever
multiplied with the CAM: a 94 x 125 map takes a fraction of a second instead of minutes. Maps are float32; the steps are
taken in float64, without which 256 of them are off by 6e-5, at hardly any cost. Nothing here carries a gradient.

Shape letters in this file: K classes of one image, h x w its map, N = h x w positions, P directions to half of a
position's neighbours (`models.paths.directions`), D feature channels.
"""

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.models.paths import directions, pair_affinity

FAINT = 1e-12  # affinities up to this are none: thousands of steps over all neighbours do not add up to 1e-5


@torch.no_grad()
def edge_transition(edge: Tensor, radius: int = 5, beta: float = 10.0) -> Tensor:
    r"""Chances of a step between positions, from the edges on the straight paths between them: IRN's.

    .. math:: T_{qp} = \frac{s_{qp}}{\sum_r s_{qr}}, \quad s_{qp} = (1 - \max_{path(q, p)} edge)^\beta, \quad s_{qq} = 1

    ``edge`` has boundaries in [0, 1], (h, w). Positions nearer than ``radius`` are joined; a higher ``beta`` makes weak
    edges count more; both are IRN's values. Row q of the sparse CSR matrix (N, N) float64 holds the weights with which
    position q averages the map, and sums to 1: the transpose of IRN's matrix, whose columns do.
    """
    if beta <= 0:
        raise ValueError(f"beta is {beta}; expected a number above 0, so that an edge of 1 parts what it lies between")
    reach = radius - 1
    walled = F.pad(edge.float(), (reach, reach, 0, reach), value=1.0)  # so that every position is a source
    affinity = pair_affinity(walled, radius) ** beta
    return _step_matrix(affinity.view(len(affinity), *edge.shape), radius)


@torch.no_grad()
def feature_transition(features: Tensor, radius: int = 5, beta: float = 8.0) -> Tensor:
    r"""Chances of a step between positions, from the likeness of their features: AffinityNet's.

    As `edge_transition`, with :math:`s_{qp} = \exp(-\beta \, mean_d |f_{dq} - f_{dp}|)` of features (D, h, w). The
    defaults are those of AffinityNet's code, which joins only positions whose whole neighbourhood lies inside the map;
    here all are joined.
    """
    features = features.float()
    height, width = features.shape[1:]
    affinity = features.new_zeros(len(directions(radius)), height, width)  # 0 where the neighbour is outside
    for ahead, (dy, dx) in zip(affinity, directions(radius).tolist(), strict=True):
        rows, columns = max(0, height - dy), slice(max(0, -dx), max(0, width - max(0, dx)))
        other = features[:, dy:, max(0, dx) : max(0, width + min(0, dx))]
        ahead[:rows, columns] = (-beta * (features[:, :rows, columns] - other).abs().mean(0)).exp()
    return _step_matrix(affinity, radius)


@torch.no_grad()
def random_walk(cam: Tensor, transition: Tensor, steps: int = 256) -> Tensor:
    r"""Replace each value of a CAM (K, h, w) ``steps`` times by the weighted mean of its neighbourhood.

    A constant map stays as it is, and no value leaves the range of the map.

    .. math:: T^s = \sum_{k \ge 0} p_k C_k(T), \quad C_{k+1}(T) = 2 T C_k(T) - C_{k-1}(T)

    C are the Chebyshev polynomials and p_k the chance that s steps on a line, to either side, end k away from where
    they began. It is negligible from a few times the square root of s on, so 256 steps take 89 products. T is similar
    to a symmetric matrix with eigenvalues in [-1, 1], where no C exceeds 1.

    K may be 0. IRN's ``exp_times`` and AffinityNet's ``logt`` are the logarithm of ``steps`` to base 2, 8 there.
    """
    start = cam.float()
    if cam.shape[1:].numel() != len(transition):
        raise ValueError(f"the CAM is {tuple(cam.shape)}; expected {len(transition)} positions, as in the transition")
    if len(start) == 0:
        return start
    far = min(steps, math.ceil(5.5 * math.sqrt(steps)))  # in standard deviations; less than 1e-7 is left out
    ways = [math.comb(steps, (steps - k) // 2) * (2 if k else 1) * ((steps - k + 1) % 2) for k in range(far + 1)]
    share, *shares = (way / sum(ways) for way in ways)
    before = start.flatten(1).T.double().contiguous()
    total, now = share * before, transition @ before
    for share in shares:
        total += share * now
        before, now = now, torch.addmm(before, transition, now, beta=-1, alpha=2)
    return total.T.reshape(start.shape).float()


def _step_matrix(affinity: Tensor, radius: int) -> Tensor:
    """Chances of a step, sparse CSR (N, N), from the affinity to the neighbour in each direction, (P, h, w)."""
    (height, width), reach, device = affinity.shape[1:], radius - 1, affinity.device
    offsets = directions(radius)
    order = torch.argsort(offsets[:, 0] * 2 * radius + offsets[:, 1])
    ahead, offsets = affinity[order.to(device)], offsets[order]
    behind = torch.zeros_like(ahead)
    walled = F.pad(ahead, (reach, reach, reach, 0))
    for to, source, (dy, dx) in zip(behind, walled, offsets.tolist(), strict=True):
        to.copy_(source[reach - dy : reach - dy + height, reach - dx : reach - dx + width])
    # of the 2 P + 1 neighbours of each position in ascending order, (N, 2 P + 1); those outside of the map weigh 0
    weight = torch.cat([behind.flip(0), affinity.new_ones(1, height, width), ahead]).flatten(1).T
    step = (offsets * torch.tensor([width, 1])).sum(1)
    step = torch.cat([-step.flip(0), step.new_zeros(1), step]).to(device)
    column = torch.arange(height * width, device=device)[:, None] + step
    joined = weight > FAINT
    weight = weight.where(joined, 0).double()
    start = F.pad(joined.sum(1).cumsum(0), (1, 0))
    index = start.int(), column[joined].int()  # on a CPU nearly twice as fast as int64
    chances = (weight / weight.sum(1, keepdim=True))[joined]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*index, chances, (len(weight), len(weight)), check_invariants=False)
