"""Cross-image foreground contrast (CFC), Eq. 10-14, and variants of it.

Shape letters in this file: B images, C foreground classes, T tiles of an image, D feature channels, F length of a
foreground vector, M x N a map of one tile.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITY_BOUND = 5e-4
"""Similarities are kept in [bound, 1 - bound] before their logarithm (CCAM's value)."""


def foreground_vectors(features: Tensor, cam: Tensor) -> Tensor:
    """Foreground vector of each tile, Eq. 10: features weighted by the CAM of each class and summed over positions.

    Args:
        features: what the classifier saw, (B, T, D, M, N).
        cam: refined CAM of the tiles, (B, T, C, M, N). The paper takes it as it is; pass it through ReLU and zero the
            absent classes so that only foreground is summed.

    Returns:
        (B, T, C, D) float32. Their cosines do not depend on the sum's scale, so it is a mean here, safe in half
        precision.
    """
    with torch.autocast(features.device.type, enabled=False):
        positions = features.shape[-2] * features.shape[-1]
        return torch.einsum("btdmn,btcmn->btcd", features.float(), cam.float()) / positions


def shows_class(foreground: Tensor, least: float) -> Tensor:
    """Tell the tiles that show a class from those that hardly do, by the length of their vectors, (B, T, C) bool.

    Not in the paper. The gradient of a cosine grows as 1 / length, so that the tiles in which a class is all but absent
    are moved most. `class_contrast` and `repulsion` leave out, of sums and denominators, what is False here.

    Args:
        foreground: (B, T, C, D).
        least: share, in [0, 1], of the longest vector of the class in the batch below which a tile is left out; 0
            keeps all of them, as printed. Above 0 vectors without any length are left out too.
    """
    length = foreground.detach().float().norm(dim=3)
    if least == 0:
        return torch.ones_like(length, dtype=torch.bool)
    kept: Tensor = (length >= least * length.amax((0, 1))) & (length > 0)
    return kept


def cosine_similarity(foreground: Tensor, eps: float = 1e-8) -> Tensor:
    """Cosine between every tile of one image and every tile of another, Eq. 11: (B, T, F) -> (B, T, B, T) float32."""
    with torch.autocast(foreground.device.type, enabled=False):
        unit = F.normalize(foreground.float(), dim=2, eps=eps)
        return torch.einsum("itf,rsf->itrs", unit, unit)


def mean_similarity(foreground: Tensor, label: Tensor, kept: Tensor | None = None) -> Tensor:
    """Mean cosine between tiles of different images that share a class, in [-1, 1]: 1 where the contrast has collapsed.

    The mean over tiles and pairs of a class, then over the classes that have a pair. Vectors without length have no
    direction and are left out.

    Args:
        foreground: (B, T, C, D).
        label: 1 where the class is in the image, (B, C).
        kept: False for tiles that are left out, of `shows_class`, (B, T, C); None keeps all.

    Returns:
        A scalar; nan where no two images share a class.
    """
    counts = (foreground.norm(dim=3) > 0) & (label[:, None] > 0)
    counts = counts if kept is None else counts & kept
    means = []
    for c in range(label.shape[1]):
        counted = _entries(counts[:, :, c], _others(len(foreground), foreground.device))
        if counted.any():
            means.append(cosine_similarity(foreground[:, :, c])[counted].mean())
    return torch.stack(means).mean() if means else foreground.new_tensor(torch.nan, dtype=torch.float32)


def _others(images: int, device: torch.device) -> Tensor:
    """True for pairs of two different images, (B, B)."""
    return ~torch.eye(images, dtype=torch.bool, device=device)


def _entries(kept: Tensor, pairs: Tensor) -> Tensor:
    """Entries of `cosine_similarity` that count, (B, T, B, T) bool, of tiles (B, T) and of pairs of images (B, B)."""
    return kept[:, :, None, None] & kept & pairs[:, None, :, None]


def background_vectors(features: Tensor, cam: Tensor) -> Tensor:
    """Background vector of each tile: features weighted by 1 - the strongest scaled class, as in CCAM.

    Not in the paper, whose contrast has positives only.

    Args:
        features: (B, T, D, M, N).
        cam: refined CAM of the tiles, absent classes zeroed, not negative, (B, T, C, M, N).

    Returns:
        (B, T, D) float32. The map is scaled by its maximum over the tiles of an image.
    """
    strongest = cam.float().amax(2, keepdim=True)  # (B, T, 1, M, N)
    share = strongest / (strongest.detach().amax((1, 3, 4), keepdim=True) + 1e-5)
    return foreground_vectors(features, 1 - share)[:, :, 0]


def class_contrast(
    foreground: Tensor,
    label: Tensor,
    weight: Literal["sigmoid", "rank", "none"] = "sigmoid",
    alpha: float = 0.25,
    reduction: Literal["mean", "sum"] = "mean",
    kept: Tensor | None = None,
) -> Tensor:
    """`cross_image_contrast` class by class, between images that share the class; the mean over such classes.

    The paper compares vectors of all classes end to end (D x C long), in which one class can stand for another.

    Args:
        foreground: (B, T, C, D).
        label: 1 where the class is in the image, (B, C).
        weight: of a pair, as in `cross_image_contrast`.
        alpha: likewise.
        reduction: within a class, likewise.
        kept: False for tiles that are left out, of `shows_class`, (B, T, C); None keeps all.
    """
    terms = []
    for c in (c for c in range(label.shape[1]) if label[:, c].sum() > 1):
        pairs = label[:, None, c] * label[None, :, c]
        tiles = None if kept is None else kept[:, :, c]
        terms.append(cross_image_contrast(foreground[:, :, c], pairs, weight, alpha, reduction, tiles))
    return torch.stack(terms).mean() if terms else foreground.sum() * 0


def repulsion(foreground: Tensor, background: Tensor, label: Tensor, kept: Tensor | None = None) -> Tensor:
    r"""Push foregrounds away from backgrounds, of the same and of other images: the mean of -log(1 - cosine).

    CCAM's negative term (arXiv:2203.13505), without its rank weights, with a vector for each tagged class.

    Args:
        foreground: (B, T, C, D).
        background: (B, T, D).
        label: 1 where the class is in the image, (B, C).
        kept: False for tiles that are left out, of `shows_class`, (B, T, C); None keeps all. The mean is over the
            tiles of a class and image, then over classes and images.
    """
    kept = torch.ones_like(foreground[..., 0], dtype=torch.bool) if kept is None else kept
    with torch.autocast(foreground.device.type, enabled=False):
        front, back = (F.normalize(x.float(), dim=-1, eps=1e-8) for x in (foreground, background))
        similarity = torch.einsum("itcd,rsd->itcrs", front, back).clamp(SIMILARITY_BOUND, 1 - SIMILARITY_BOUND)
    each = -(1 - similarity).log().mean((3, 4))  # (B, T, C)
    loss = (each * kept).sum(1) / kept.sum(1).clamp_min(1)  # (B, C)
    counted = label * kept.any(1)
    return (loss * counted).sum() / counted.sum().clamp_min(1)


def rank_weights(similarity: Tensor, alpha: float = 0.25) -> Tensor:
    """Weight of each pair by its rank within its row, ``exp(-alpha x rank)``, as in CCAM (arXiv:2203.13505).

    Args:
        similarity: one number a pair, (B, B). The most similar of a row has rank 0. CCAM counts an image's pair with
            itself, whose rank it sets to -1: its weights are these times ``exp(alpha)``.
        alpha: how fast the weight falls.
    """
    order = similarity.sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(len(order), device=order.device).expand_as(order))
    return torch.exp(-alpha * rank.float())


def cross_image_contrast(
    foreground: Tensor,
    pairs: Tensor | None = None,
    weight: Literal["sigmoid", "rank", "none"] = "sigmoid",
    alpha: float = 0.25,
    reduction: Literal["mean", "sum"] = "mean",
    kept: Tensor | None = None,
) -> Tensor:
    r"""Pull the foregrounds of different images together, Eq. 11-14.

    .. math:: L_{pos} = - \sum_{i \ne r} W_{ir} \sum_{js} \log S_{ir}^{(js)}, \quad
              W_{ir} = \sigma(\alpha \textstyle\sum_{js} S_{ir}^{(js)})

    The weights carry no gradient. Where we differ from print: the sum over pairs and tiles is a mean by default,
    without which lambda = 0.5 would let this term drown the others.

    Args:
        foreground: one vector a tile, (B, T, F). Under DDP, of all ranks.
        pairs: True where images i and r may be compared, (B, B), for instance where they share a tag; None compares
            all. An image is never compared with itself.
        weight: ``sigmoid`` as printed, within [0.5, 1); ``rank`` as in CCAM (`rank_weights` over the pairs of a row);
            ``none`` counts every pair once.
        alpha: smoothing of the sigmoid, or how fast the weight falls with the rank.
        reduction: ``mean`` over the compared entries, T x T of a pair, or the literal ``sum``.
        kept: False for tiles that are left out, (B, T): their entries are neither summed nor counted. The sum of a
            pair's similarities, in its weight, is then T x T times the mean of what is left. None keeps all.

    Returns:
        A scalar; 0 where there is no pair to compare.
    """
    allowed = _others(len(foreground), foreground.device)
    if pairs is not None:
        allowed = allowed & pairs.bool()
    kept = foreground.new_ones(foreground.shape[:2], dtype=torch.bool) if kept is None else kept
    counted = _entries(kept, allowed)
    similarity = cosine_similarity(foreground)
    entries = counted.sum((1, 3))  # (B, B)
    between = (similarity.detach() * counted).sum((1, 3)) * (foreground.shape[1] ** 2 / entries.clamp_min(1))
    bounded = similarity.clamp(SIMILARITY_BOUND, 1 - SIMILARITY_BOUND)
    total = ((-bounded.log() * counted).sum((1, 3)) * _pair_weights(between, entries > 0, weight, alpha)).sum()
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / entries.sum().clamp_min(1)
    raise ValueError(f"reduction is {reduction!r}; expected 'mean' or 'sum'")


def _pair_weights(between: Tensor, allowed: Tensor, weight: str, alpha: float) -> Tensor:
    """W of Eq. 12-13, (B, B), from the summed similarity of each pair."""
    if weight == "sigmoid":
        return torch.sigmoid(alpha * between)
    if weight == "rank":
        return rank_weights(between.masked_fill(~allowed, -torch.inf), alpha)
    if weight == "none":
        return torch.ones_like(between)
    raise ValueError(f"weight is {weight!r}; expected 'sigmoid', 'rank' or 'none'")
