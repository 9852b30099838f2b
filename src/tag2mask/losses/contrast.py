"""Cross-image foreground contrast (CFC), Eq. 10-14, and what keeps it from collapsing.

Shape letters in this file: B images, C foreground classes, T tiles of an image, D feature channels, F length of a
vector, M x N the map of one tile. ``label`` is 1 where the class is in the image, else 0, (B, C).
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITY_BOUND = 5e-4  # similarities are kept in [bound, 1 - bound] before their logarithm (CCAM's value)


def foreground_vectors(features: Tensor, cam: Tensor) -> Tensor:
    """Return the foreground vector of each tile and class, Eq. 10: features weighted by the CAM, over all positions.

    ``features`` are the input of the classifier, (B, T, D, M, N), ``cam`` the refined CAM, (B, T, C, M, N). The paper
    takes the CAM as it is; here it is not negative, and 0 for absent classes, so that only foreground is summed. The
    result, (B, T, C, D) float32, is a mean over positions, which is safe in half precision; the sum of Eq. 10 has the
    same cosines.
    """
    with torch.autocast(features.device.type, enabled=False):
        positions = features.shape[-2] * features.shape[-1]
        return torch.einsum("btdmn,btcmn->btcd", features.float(), cam.float()) / positions


def background_vectors(features: Tensor, cam: Tensor) -> Tensor:
    """Return the background vector of each tile, (B, T, D): features weighted by 1 - the strongest class, as in CCAM.

    This is not in the paper, whose contrast only pulls. The CAM, as for `foreground_vectors`, is scaled by its maximum
    over the tiles of an image.
    """
    strongest = cam.float().amax(2, keepdim=True)  # (B, T, 1, M, N)
    share = strongest / (strongest.detach().amax((1, 3, 4), keepdim=True) + 1e-5)
    return foreground_vectors(features, 1 - share)[:, :, 0]


def shows_class(foreground: Tensor, least: float) -> Tensor:
    """Return which tiles show a class, (B, T, C) bool, of the vectors (B, T, C, D).

    This is not in the paper. The gradient of a cosine grows as 1 / length: a tile in which the class is all but absent
    would be moved most. The losses below neither sum nor count the tiles that are False here: those whose vector is
    shorter than the share ``least``, in [0, 1], of the longest of the class in the batch, and above 0 also those of
    length 0. At 0 all are True, as printed.
    """
    length = foreground.detach().float().norm(dim=3)
    if least == 0:
        return torch.ones_like(length, dtype=torch.bool)
    kept: Tensor = (length >= least * length.amax((0, 1))) & (length > 0)
    return kept


def cosine_similarity(foreground: Tensor, eps: float = 1e-8) -> Tensor:
    """Return the cosine of each tile of one image with each tile of another, Eq. 11: (B, T, F) -> (B, T, B, T)."""
    with torch.autocast(foreground.device.type, enabled=False):
        unit = F.normalize(foreground.float(), dim=2, eps=eps)
        return torch.einsum("itf,rsf->itrs", unit, unit)


def sigmoid_weights(similarity: Tensor, alpha: float = 0.25) -> Tensor:
    """Return the weight of each pair of images, (B, B), by the sum of its cosines, Eq. 12-13; alpha is the paper's."""
    return torch.sigmoid(alpha * similarity)


def cross_image_contrast(
    foreground: Tensor,
    pairs: Tensor | None = None,
    weights: Callable[[Tensor], Tensor] = sigmoid_weights,
    kept: Tensor | None = None,
) -> Tensor:
    r"""Return the loss that pulls the foregrounds of different images together, Eq. 11-14; 0 where there is no pair.

    .. math:: L_{pos} = - \frac{1}{N} \sum_{i \ne r} W_{ir} \sum_{js} \log S_{ir}^{(js)}, \quad
              W_{ir} = \sigma(\alpha \textstyle\sum_{js} S_{ir}^{(js)})

    The weights carry no gradient. Eq. 14 has no division by N, the number of cosines in the sum; without the division
    lambda = 0.5 would let this term drown the others.

    ``foreground`` has one vector for each tile, (B, T, F), under DDP of all ranks. ``pairs`` is True where images i
    and r may be compared, (B, B), None compares all; an image is never compared with itself. ``weights`` gives the
    weight of each pair from the summed similarity of all pairs, (B, B), which is -inf for pairs that may not be
    compared. ``kept`` is False for tiles that are left out, (B, T), None keeps all: the summed similarity of a pair is
    T x T times the mean of what is kept.
    """
    kept = foreground.new_ones(foreground.shape[:2], dtype=torch.bool) if kept is None else kept
    counted = _counted(kept, pairs)
    similarity = cosine_similarity(foreground)
    entries = counted.sum((1, 3))  # (B, B)
    between = (similarity.detach() * counted).sum((1, 3)) * (foreground.shape[1] ** 2 / entries.clamp_min(1))
    bounded = similarity.clamp(SIMILARITY_BOUND, 1 - SIMILARITY_BOUND)
    total = (-bounded.log() * counted).sum((1, 3)) * weights(between.masked_fill(entries == 0, -torch.inf))
    return total.sum() / entries.sum().clamp_min(1)


def class_contrast(
    foreground: Tensor,
    label: Tensor,
    weights: Callable[[Tensor], Tensor] = sigmoid_weights,
    kept: Tensor | None = None,
) -> Tensor:
    """Return the mean over classes of `cross_image_contrast` between the images that share the class.

    The paper compares the vectors of all classes end to end (C x D long), where one class can stand for another.
    ``foreground`` is (B, T, C, D); ``kept`` is False for tiles that are left out, (B, T, C), None keeps all.
    """
    terms = []
    for c in (c for c in range(label.shape[1]) if label[:, c].sum() > 1):
        pairs = label[:, None, c] * label[None, :, c]
        terms.append(cross_image_contrast(foreground[:, :, c], pairs, weights, None if kept is None else kept[:, :, c]))
    return torch.stack(terms).mean() if terms else foreground.sum() * 0


def repulsion(foreground: Tensor, background: Tensor, label: Tensor, kept: Tensor | None = None) -> Tensor:
    r"""Return the loss that pushes foregrounds away from the backgrounds of all images: the mean of -log(1 - cosine).

    This is CCAM's negative term (arXiv:2203.13505) without rank weights, with a vector for each tagged class. The mean
    is over the tiles of a class and image, then over classes and images. ``foreground`` is (B, T, C, D), ``background``
    (B, T, D); ``kept`` as for `class_contrast`.
    """
    kept = torch.ones_like(foreground[..., 0], dtype=torch.bool) if kept is None else kept
    with torch.autocast(foreground.device.type, enabled=False):
        front, back = (F.normalize(x.float(), dim=-1, eps=1e-8) for x in (foreground, background))
        similarity = torch.einsum("itcd,rsd->itcrs", front, back).clamp(SIMILARITY_BOUND, 1 - SIMILARITY_BOUND)
    each = -(1 - similarity).log().mean((3, 4))  # (B, T, C)
    loss = (each * kept).sum(1) / kept.sum(1).clamp_min(1)  # (B, C)
    counted = label * kept.any(1)
    return (loss * counted).sum() / counted.sum().clamp_min(1)


def mean_similarity(foreground: Tensor, label: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return the mean cosine between tiles of different images that share a class, in [-1, 1]; 1 is a collapse.

    The mean is over the pairs of tiles of a class, then over the classes that have a pair; nan where no two images
    share a class. Vectors of length 0 have no direction and are left out. Arguments as for `class_contrast`.
    """
    counts = (foreground.norm(dim=3) > 0) & (label[:, None] > 0)
    counts = counts if kept is None else counts & kept
    means = []
    for c in range(label.shape[1]):
        counted = _counted(counts[:, :, c])
        if counted.any():
            means.append(cosine_similarity(foreground[:, :, c])[counted].mean())
    return torch.stack(means).mean() if means else foreground.new_tensor(torch.nan, dtype=torch.float32)


def cross_image_foreground_contrast(
    features: Tensor,
    cam: Tensor,
    label: Tensor,
    alpha: float = 0.25,
    per_class: bool = False,
    repel: float = 0.0,
    least: float = 0.0,
    gather: Callable[[Tensor], Tensor] = lambda x: x,
) -> dict[str, Tensor]:
    """Return the terms of CFC for a batch: Eq. 10 to 14 in a row, with the guards that the paper does not have.

    They are ``loss_cfc``; with ``repel`` also ``loss_repel``; ``loss_contrast``, the weighted sum of both; and, where
    two images share a class, their ``cfc_similarity``.

    ``features`` and ``cam``, before ReLU, are as for `foreground_vectors`; ``alpha`` smooths the weights, Eq. 13. The
    defaults of the guards are as printed: ``per_class`` compares each class with itself, see `class_contrast`;
    ``repel`` is the weight of `repulsion` in the sum of both; for ``least`` see `shows_class`. ``gather`` joins the
    vectors of all ranks, (B, ...) -> (ranks B, ...).
    """
    cam = cam.relu() * label[:, None, :, None, None]
    foreground, tags = gather(foreground_vectors(features, cam)), gather(label)
    kept = shows_class(foreground, least)
    weights = partial(sigmoid_weights, alpha=alpha)
    if per_class:
        terms = {"loss_cfc": class_contrast(foreground, tags, weights, kept)}
    else:
        joined = (foreground * kept[..., None]).flatten(2)
        terms = {"loss_cfc": cross_image_contrast(joined, None, weights, kept.any(2))}
    terms["loss_contrast"] = terms["loss_cfc"]
    if repel:
        terms["loss_repel"] = repulsion(foreground, gather(background_vectors(features, cam)), tags, kept)
        terms["loss_contrast"] = terms["loss_cfc"] + repel * terms["loss_repel"]
    similarity = mean_similarity(foreground.detach(), tags, kept)
    return terms if similarity.isnan() else {**terms, "cfc_similarity": similarity}


def _counted(kept: Tensor, pairs: Tensor | None = None) -> Tensor:
    """Return which cosines count, (B, T, B, T): of kept tiles (B, T), between different images, a pair (B, B)."""
    different = ~torch.eye(len(kept), dtype=torch.bool, device=kept.device)
    allowed = different if pairs is None else different & pairs.bool()
    return kept[:, :, None, None] & kept & allowed[:, None, :, None]
