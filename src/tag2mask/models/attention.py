"""Region self-attention (RSA): a CAM spread over the positions of its tile that look alike.

Shape letters in this file: N tiles, C classes, D feature channels, P positions of a tile (its height x width).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.errors import SettingError

Kernel = Literal["exp_dot", "relu_cosine", "exp_cosine", "network"]
ROWS = 1024  # of the affinity that are computed at a time


@dataclass(frozen=True)
class Attention:
    """Settings of `region_self_attention`.

    Attributes:
        kernel: ``exp_dot`` is Eq. 6, by a stable softmax (nearly one-hot for features of hundreds in norm);
            ``relu_cosine`` is SEAM's PCM without its embedding; ``exp_cosine`` a softmax of cosines; ``network`` the
            attention that a plain vision transformer computes itself (`vit.own_attention`), where neither
            ``temperature`` nor ``center`` counts.
        temperature: divides the similarity before the softmax of the two ``exp`` kernels; 1 is Eq. 6 as printed.
        center: subtract the tile's mean feature first: after a ReLU all cosines are positive and much alike.
        detach: keep the gradient out of the affinity, so that it reaches the features through the CAM only.
        layer: part of the backbone whose map the affinity is made of, by its name in timm, such as ``blocks.2``; null
            takes the features that the classifier sees, as printed. For the kernel ``network``, a block or several,
            such as ``[blocks.10, blocks.11]``, whose attentions are averaged; null takes all blocks.
        region: positions attend to each other within a ``tile``, as printed, or over the whole ``image``, after its
            tiles are merged.
    """

    kernel: Kernel = "relu_cosine"
    temperature: float = 0.1
    center: bool = True
    detach: bool = False
    layer: tuple[str, ...] | str | None = None
    region: Literal["tile", "image"] = "tile"

    def __post_init__(self) -> None:
        if self.kernel == "network" and self.region == "image":
            raise SettingError("region is image; the network's own attention does not reach other tiles: give tile")
        if self.kernel != "network" and isinstance(self.layer, tuple):
            raise SettingError(f"layer is {list(self.layer)}; expected one name for the kernel {self.kernel}")

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names in ``layer``, for the kernel ``network``; none stands for all blocks."""
        return (self.layer,) if isinstance(self.layer, str) else self.layer or ()

    def refine(self, features: Tensor, cam: Tensor) -> tuple[Tensor, Tensor]:
        """Return `region_self_attention` with the settings held here."""
        return region_self_attention(features, cam, self.kernel, self.temperature, self.center, self.detach)


def region_self_attention(
    features: Tensor,
    cam: Tensor,
    kernel: Kernel = "exp_cosine",
    temperature: float = 0.1,
    center: bool = False,
    detach: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Refine the CAM of each tile by the affinity of its features, Eq. 4-6 of Liu et al. 2023.

    .. math:: C^*_p = \sum_q A_{pq} C_q, \quad \sum_q A_{pq} = 1

    As printed, Eq. 4 weights C at p itself, which is the identity; q is meant. No embedding, no residual.

    ``features`` are what the classifier saw, (N, D, height, width), ``cam`` the class scores of the same positions,
    (N, C, height, width); the settings are those of `Attention`. For the kernel ``network`` D is P and ``features`` are
    the affinity itself, whose rows are made to sum to 1: channel q at position p is A_pq. Returned are the refined CAM,
    float32, and the mean entropy of the rows of A over log P, in [0, 1]: 0 where A is the identity, 1 where it takes
    the plain mean.
    """
    with torch.autocast(features.device.type, enabled=False):
        y = features.detach().float().flatten(2) if detach else features.float().flatten(2)
        y = y - y.mean(2, keepdim=True) if center and kernel != "network" else y
        flat, refined, entropy = cam.float().flatten(2), [], []
        for rows in y.split(ROWS, dim=2):  # the affinity of all rows at once would not fit into memory
            affinity = _affinity(rows, y, kernel, temperature)
            refined.append(torch.einsum("ncq,npq->ncp", flat, affinity))
            entropy.append(torch.special.entr(affinity.detach()).sum(2))
        most = math.log(max(y.shape[2], 2))  # a single position has no entropy
        return torch.cat(refined, 2).view_as(cam), torch.cat(entropy, 1).mean() / most


def _affinity(rows: Tensor, y: Tensor, kernel: Kernel, temperature: float) -> Tensor:
    """Rows of the affinity, each of which sums to 1, of some positions: (N, D, R), (N, D, P) -> (N, R, P)."""
    if kernel == "exp_dot":
        return torch.softmax(torch.einsum("ndp,ndq->npq", rows, y).relu() / temperature, dim=2)
    if kernel == "relu_cosine":
        units = [x / (x.norm(dim=1, keepdim=True) + 1e-5) for x in (rows, y)]
        similarity = torch.einsum("ndp,ndq->npq", *units).relu()
        return similarity / (similarity.sum(2, keepdim=True) + 1e-5)
    if kernel == "exp_cosine":
        units = [F.normalize(x, dim=1, eps=1e-5) for x in (rows, y)]
        return torch.softmax(torch.einsum("ndp,ndq->npq", *units) / temperature, dim=2)
    if kernel == "network":
        return F.normalize(rows, p=1, dim=1).mT
    raise ValueError(f"kernel is {kernel!r}; expected 'exp_dot', 'relu_cosine', 'exp_cosine' or 'network'")
