"""Equivariance of the full and the tiled CAM, Eq. 15.

Shape letters in this file: B images, C foreground classes, H x W a map.
"""

from torch import Tensor


def equivariance_loss(full: Tensor, tiled: Tensor, label: Tensor) -> Tensor:
    r"""Return the distance between the CAM of the whole image and the CAM merged from its tiles, Eq. 15.

    .. math:: L_{re} = \frac{1}{BCHW} \sum_{b,c,h,w} y_{bc} \, | C_{bchw} - \hat{C}^*_{bchw} |

    The paper prints the bare norm. This is the form of Puzzle-CAM (https://arxiv.org/abs/2101.11253), ``masking`` in
    its code: absent classes add nothing, but count in the denominator.

    Args:
        full: CAM of the whole image, before ReLU and scaling, (B, C, H, W).
        tiled: CAM merged from the tiles, likewise.
        label: 1 where the class is in the image, else 0, (B, C).
    """
    if full.shape != tiled.shape:
        raise ValueError(f"the two CAMs differ in size: full {tuple(full.shape)}, tiled {tuple(tiled.shape)}")
    distance = (full.float() - tiled.float()).abs().mean((2, 3))  # (B, C)
    return (distance * label.float()).mean()


def normalize_cam(cam: Tensor) -> Tensor:
    """Cut maps (B, C, H, W) at zero and divide each by its maximum, as CAMs are at inference.

    Eq. 15 then compares shapes, not scores. Puzzle-CAM and the paper compare raw maps, SEAM normalized ones. The
    maximum carries no gradient.
    """
    cam = cam.float().relu()
    return cam / (cam.detach().amax((2, 3), keepdim=True) + 1e-5)
