"""The loss of the two-step method, Eq. 7-16.

Shape letters in this file: B images, C foreground classes, H x W a map.
"""

from typing import Literal

from torch import Tensor

from tag2mask.losses.classification import classification_loss
from tag2mask.losses.equivariance import equivariance_loss, normalize_cam


def ramp(step: int, steps: int, share: float) -> float:
    """Return the factor of a loss weight at ``step``: it grows from 0 to 1 over the first ``share`` of ``steps``.

    Puzzle-CAM ramps the weight of Eq. 15 so, with share 0.5. Share 0 is a constant weight.
    """
    over = share * steps
    return 1.0 if over <= 0 else min(1.0, step / over)


def two_step_loss(
    full: Tensor,
    tiled: Tensor,
    label: Tensor,
    beta: float,
    contrast: Tensor | float = 0.0,
    lam: float = 0.0,
    maps: Literal["raw", "normalized"] = "raw",
    learns: Literal["both", "full", "tiled"] = "both",
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Return the loss of both branches, Eq. 16, and its terms.

    .. math:: L = L_{cls} + \lambda L_{pos} + \beta L_{re}, \quad
              L_{cls} = \ell(\bar{C}, y) + \ell(\bar{\hat{C}}^*, y)

    :math:`\bar{C}` is the mean of each map, its class score (Eq. 7-9). Without attention and contrast this is the loss
    of Puzzle-CAM.

    Args:
        full: CAM of the whole image, before ReLU, (B, C, H, W).
        tiled: CAM merged from the tiles, likewise.
        label: 1 where the class is in the image, else 0, (B, C).
        beta: weight of the equivariance loss, Eq. 15.
        contrast: the contrastive loss, Eq. 14; a scalar.
        lam: weight of the contrastive loss, lambda.
        maps: compare ``raw`` maps in Eq. 15, as printed, or ``normalized`` ones, see `normalize_cam`.
        learns: branch that Eq. 15 moves, ``both`` as printed; the other branch is its target, without a gradient.

    Returns:
        The loss, a scalar, and ``loss_cls``, ``loss_cls_tiled``, ``loss_re``.
    """
    pair = full.detach() if learns == "tiled" else full, tiled.detach() if learns == "full" else tiled
    if maps == "normalized":
        pair = normalize_cam(pair[0]), normalize_cam(pair[1])
    terms = {
        "loss_cls": classification_loss(full.float().mean((2, 3)), label),
        "loss_cls_tiled": classification_loss(tiled.float().mean((2, 3)), label),
        "loss_re": equivariance_loss(*pair, label),
    }
    loss = terms["loss_cls"] + terms["loss_cls_tiled"] + beta * terms["loss_re"] + lam * contrast
    return loss, terms
