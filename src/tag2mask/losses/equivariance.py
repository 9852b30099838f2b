"""Equivariance of full and tiled CAM, Eq. 15.

Shape letters in this file: B images, C foreground classes, H x W a map.
"""

from typing import Literal

import torch
from torch import Tensor


def equivariance_loss(
    full: Tensor, tiled: Tensor, label: Tensor, over: Literal["all", "positive"] = "all", masked: bool = True
) -> Tensor:
    r"""Distance between the CAM of the whole image and the one merged from its tiles, Eq. 15.

    .. math:: L_{re} = \frac{1}{BCHW} \sum_{b,c,h,w} y_{bc} \, | C_{bchw} - \hat{C}^*_{bchw} |

    The paper prints the bare norm; this is the form of Puzzle-CAM (https://arxiv.org/abs/2101.11253), whose code names
    the variants ``masking`` (``over="all"``), ``selection`` (``over="positive"``) and ``none`` (``masked=False``).

    Args:
        full: CAM of the whole image, before ReLU and scaling, (B, C, H, W).
        tiled: CAM merged from the tiles, likewise.
        label: 1 where the class is in the image, else 0, (B, C).
        over: ``all`` divides by B x C x H x W, so that absent classes count as zero; ``positive`` takes the mean over
            the classes of each image, then over images (an image without any class counts zero).
        masked: count present classes only; False compares the maps of absent classes as well.
    """
    if full.shape != tiled.shape:
        raise ValueError(f"the two CAMs differ in size: full {tuple(full.shape)}, tiled {tuple(tiled.shape)}")
    distance = (full.float() - tiled.float()).abs().mean((2, 3))  # (B, C)
    weight = label.float() if masked else torch.ones_like(distance)
    if over == "all":
        return (distance * weight).mean()
    if over == "positive":
        return ((distance * weight).sum(1) / weight.sum(1).clamp_min(1)).mean()
    raise ValueError(f"over is {over!r}; expected 'all' or 'positive'")


def scaled(cam: Tensor) -> Tensor:
    """Cut maps (B, C, H, W) at zero and divide each by its maximum, as CAMs are at inference: L1 then compares shapes.

    The maximum carries no gradient. Puzzle-CAM and the paper compare raw maps; SEAM compares scaled ones.
    """
    cam = cam.float().relu()
    return cam / (cam.detach().amax((2, 3), keepdim=True) + 1e-5)
