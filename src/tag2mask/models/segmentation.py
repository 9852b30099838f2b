"""DeepLabV3+ (Chen et al. 2018, arXiv:1802.02611), and label maps of photographs from it.

Shape letters in this file: B images, G classes with the background, H x W a photograph, h x w what the network sees of
it, K classes that win somewhere in it.
"""

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.errors import SettingError
from tag2mask.models.backbones import NONE, Backbone, build, freeze, load_weights, undilate
from tag2mask.models.tiling import pad_to_multiple

RATES = (6, 12, 18)
"""Dilations of the ASPP, the usual ones at output stride 16."""


class SegmentationNet(nn.Module):
    """DeepLabV3+ of segmentation-models-pytorch on any timm network that honours ``output_stride``."""

    model: Any

    def __init__(self, num_classes: int, backbone: Backbone, rates: tuple[int, int, int] = RATES) -> None:
        """Build the network with random weights.

        Args:
            num_classes: classes with the background, G.
            backbone: encoder and its weights; its output stride is 8 or 16.
            rates: dilations of the ASPP.
        """
        super().__init__()
        self.config = backbone
        self.model = _deeplab(num_classes, backbone, rates)
        if not backbone.dilate:
            undilate(self.encoder)
        self.to(memory_format=torch.channels_last)
        self.train()

    @property
    def encoder(self) -> Any:
        """The timm network, which starts from pretrained weights."""
        return self.model.encoder.model

    @property
    def new_parts(self) -> list[nn.Module]:
        """What starts at random: decoder and classifier."""
        return [self.model.decoder, self.model.segmentation_head]

    def load_pretrained(self) -> None:
        """Fill the encoder from the source that its settings name; nothing where they name none."""
        if self.config.weights in (None, NONE):
            return
        whole = build(self.config)
        load_weights(whole, self.config.name, self.config.weights)
        pretrained = {_plain(name): value for name, value in whole.state_dict().items()}
        self.encoder.load_state_dict({name: pretrained[_plain(name)] for name in self.encoder.state_dict()})

    def train(self, mode: bool = True) -> "SegmentationNet":
        """Switch between training and evaluation; frozen layers of the encoder stay in evaluation."""
        super().train(mode)
        own = {_plain(name): name for name, _ in self.encoder.named_modules()}
        freeze(self.encoder, self.config.freeze_norm, tuple(own.get(_plain(part), part) for part in self.config.frozen))
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores before the softmax, (B, G, h, w), for images (B, 3, h, w) of any size."""
        height, width = images.shape[-2:]
        scores: Tensor = self.model(pad_to_multiple(images, self.config.output_stride))
        return scores[..., :height, :width]


def _deeplab(num_classes: int, backbone: Backbone, rates: tuple[int, int, int]) -> nn.Module:
    """Build the network; ``SettingError`` where its encoder cannot be one."""
    if backbone.output_stride not in (8, 16):
        raise SettingError(f"DeepLabV3+ has output stride 8 or 16, not {backbone.output_stride}; use one of them")
    with torch.device("meta"):
        build(backbone)  # says what is wrong with its name or stride
    side = 2 * backbone.output_stride
    model: nn.Module
    try:
        model = smp.DeepLabV3Plus(
            f"tu-{backbone.name}",
            encoder_weights=None,
            encoder_output_stride=backbone.output_stride,
            decoder_atrous_rates=rates,
            classes=num_classes,
        ).eval()
        with torch.no_grad():
            model(torch.zeros(1, 3, side, side))
    except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SettingError(
            f"{backbone.name} cannot be the encoder of DeepLabV3+ ({reason}); it needs maps at every fourth pixel and "
            "at the output stride, as ResNet, ResNeSt, EfficientNet-Lite and ConvNeXt have"
        ) from error
    return model


def _plain(name: str) -> str:
    """A name of timm's that is the same in a feature extractor, where some have ``stages_0`` for ``stages.0``."""
    return name.replace("_", ".")


def class_probabilities(net: nn.Module, image: Tensor, scales: Sequence[float], flip: bool) -> Tensor:
    """Return the probability of each class at each pixel, averaged over scales and flips, (G, h, w) float32.

    Args:
        net: gives scores (B, G, h, w) for images (B, 3, h, w); in evaluation mode.
        image: normalised, (3, h, w).
        scales: relative sizes, such as 0.5, 1, 1.5, 2.
        flip: add the mirror image at each scale.
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


def label_map(probabilities: Tensor, size: Sequence[int], budget: int = 2**24) -> Tensor:
    """Return the most probable class at each pixel of the photograph, (H, W) uint8.

    Probabilities are scaled to the photograph bilinearly, a strip of rows at a time, so that a photograph of 100
    megapixels needs no more memory than its label. Only classes that win somewhere in ``probabilities`` can win.

    Args:
        probabilities: (G, h, w), G at most 255.
        size: H and W.
        budget: numbers that a strip may hold.
    """
    winner = probabilities.argmax(0)
    height, width = (int(side) for side in size)
    rows = probabilities.shape[1]
    if (rows, probabilities.shape[2]) == (height, width):
        return winner.to(torch.uint8)
    values = winner.unique()
    few = probabilities[values]  # (K, h, w)
    at = ((torch.arange(height, device=few.device) + 0.5) * (rows / height) - 0.5).clamp(0, rows - 1)
    above = at.long()
    below, share = (above + 1).clamp_max(rows - 1), (at - above)[:, None]
    label = torch.empty((height, width), dtype=torch.uint8, device=few.device)
    step = max(1, budget // (len(values) * width))
    for first in range(0, height, step):
        part = slice(first, first + step)
        strip = torch.lerp(few[:, above[part]], few[:, below[part]], share[part])
        _most_probable(F.interpolate(strip, width, mode="linear", align_corners=False), values.tolist(), label[part])
    return label


def _most_probable(maps: Tensor, values: Sequence[int], label: Tensor) -> None:
    """Write the value of the highest map of (K, S, W) into ``label`` (S, W); ten times as fast as argmax on a CPU."""
    best = maps[0].clone()
    label.fill_(values[0])
    for value, other in zip(values[1:], maps[1:], strict=True):
        label.masked_fill_(other > best, value)
        torch.maximum(best, other, out=best)
