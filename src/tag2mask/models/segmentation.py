"""DeepLabV3+ (Chen et al. 2018, arXiv:1802.02611), and label maps of photographs from it.

Shape letters in this file: B images, G classes with the background, H x W a photograph, h x w what the network sees of
it.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.errors import SettingError
from tag2mask.models.backbones import Backbone, PretrainedNet, build, first_line, require_stages, undilate
from tag2mask.models.tiling import pad_to_multiple


class SegmentationNet(PretrainedNet):
    """DeepLabV3+ of segmentation-models-pytorch on any timm network that honours ``output_stride``."""

    model: Any

    def __init__(self, num_classes: int, backbone: Backbone) -> None:
        """Build the network for ``num_classes`` G with random weights; the encoder's output stride is 8 or 16."""
        import segmentation_models_pytorch as smp  # loads timm

        super().__init__(backbone)
        if backbone.output_stride not in (8, 16):
            raise SettingError(f"DeepLabV3+ has output stride 8 or 16, not {backbone.output_stride}; use one of them")
        require_stages(backbone, "DeepLabV3+")
        with torch.device("meta"):
            build(backbone)  # says what is wrong with its name or stride
        side = 2 * backbone.output_stride
        try:
            self.model = smp.DeepLabV3Plus(
                f"tu-{backbone.name}",
                encoder_weights=None,
                encoder_output_stride=backbone.output_stride,
                decoder_atrous_rates=(6, 12, 18),  # the usual ones at output stride 16
                classes=num_classes,
            ).eval()
            with torch.no_grad():
                self.model(torch.zeros(1, 3, side, side))
        except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
            raise SettingError(
                f"{backbone.name} cannot be the encoder of DeepLabV3+ ({first_line(error)}); it needs maps at every "
                "fourth pixel and at the output stride, as ResNet, ResNeSt, EfficientNet-Lite and ConvNeXt have"
            ) from error
        if not backbone.dilate:
            undilate(self.encoder)
        self.to(memory_format=torch.channels_last)
        self.train()

    @property
    def encoder(self) -> Any:
        """The timm network, which starts from pretrained weights."""
        return self.model.encoder.model

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores before the softmax, (B, G, h, w), for images (B, 3, h, w) of any size."""
        height, width = images.shape[-2:]
        scores: Tensor = self.model(pad_to_multiple(images, self.config.output_stride))
        return scores[..., :height, :width]


def class_probabilities(net: nn.Module, image: Tensor, scales: Sequence[float], flip: bool) -> Tensor:
    """Return the probability of each class at each pixel, averaged over scales and flips, (G, h, w) float32.

    ``net``, in evaluation mode, gives scores (B, G, h, w) for images (B, 3, h, w); ``image`` is normalised, (3, h, w);
    ``scales`` are relative sizes; ``flip`` adds the mirror image at each.
    """
    size = tuple(image.shape[-2:])
    total = torch.zeros((), device=image.device)
    for scale in scales:
        sides = tuple(max(1, round(side * scale)) for side in size)
        scaled = image[None]
        if sides != size:
            scaled = F.interpolate(scaled, sides, mode="bicubic", align_corners=False, antialias=scale < 1)
        maps = net(torch.cat([scaled, scaled.flip(-1)]) if flip else scaled).float().softmax(1)
        both = (maps[0] + maps[1].flip(-1)) / 2 if flip else maps[0]
        total = total + F.interpolate(both[None], size, mode="bilinear", align_corners=False)[0]
    return total / len(scales)


def label_map(probabilities: Tensor, size: Sequence[int]) -> Tensor:
    """Return the most probable class at each pixel of the photograph, (H, W) uint8.

    Probabilities (G, h, w) are scaled to the photograph bilinearly, one class after another: memory does not grow with
    the number of classes. Only classes that win somewhere in ``probabilities`` can win.
    """
    winner = probabilities.argmax(0)
    size = tuple(int(side) for side in size)
    if winner.shape == size:
        return winner.to(torch.uint8)
    label = torch.zeros(size, dtype=torch.uint8, device=winner.device)
    best = torch.full(size, -torch.inf, device=winner.device)
    for value in winner.unique().tolist():
        scaled = F.interpolate(probabilities[None, value : value + 1], size, mode="bilinear", align_corners=False)[0, 0]
        label.masked_fill_(scaled > best, value)
        torch.maximum(best, scaled, out=best)
    return label
