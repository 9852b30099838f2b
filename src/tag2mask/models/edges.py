"""The edge network of IRN, whose boundaries say which positions belong together.

Shape letters in this file: B images, H x W the image, h x w its edge map at a quarter of that.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.models.backbones import Backbone, PretrainedNet, build, require_stages
from tag2mask.models.tiling import pad_to_multiple

STRIDE = 4  # pixels to one position of an edge map


class EdgeNet(PretrainedNet):
    """Boundary scores from the features of every stage of a frozen backbone: the edge branch of IRN.

    Each stage goes through a 1x1 convolution, group norm, ReLU and is resized to the edge map; a last 1x1 convolution
    weighs all of them. IRN takes ResNet's stages from the stem's pooling on; here the stem's own output is scaled to
    the size of the map instead, so that any timm network with intermediate features will do.
    """

    def __init__(self, backbone: Backbone, channels: int = 32) -> None:
        """Build the network with random weights; ``channels`` are those that each stage contributes."""
        super().__init__(backbone)
        require_stages(backbone, "an edge network")
        self.backbone = build(backbone).eval()
        side = 2 * backbone.output_stride
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(stage.shape[1], channels, 1, bias=False), nn.GroupNorm(4, channels))
            for stage in self._stages(torch.zeros(1, 3, side, side))
        )
        self.edge = nn.Conv2d(channels * len(self.branches), 1, 1)
        self.to(memory_format=torch.channels_last)
        self.train()

    @torch.no_grad()
    def _stages(self, images: Tensor) -> list[Tensor]:
        stages: list[Tensor] = self.backbone.forward_intermediates(images, intermediates_only=True)
        return stages

    def train(self, mode: bool = True) -> "EdgeNet":
        """Switch between training and evaluation; the backbone stays in evaluation and without gradients."""
        super().train(mode)
        self.backbone.eval().requires_grad_(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return edge scores before the sigmoid, (B, h, w), for images (B, 3, H, W) of any size."""
        height, width = (-(-side // STRIDE) for side in images.shape[-2:])
        padded = pad_to_multiple(images, self.config.output_stride)
        size = [side // STRIDE for side in padded.shape[-2:]]
        maps = [
            F.interpolate(branch(stage), size, mode="bilinear", align_corners=False).relu()
            for branch, stage in zip(self.branches, self._stages(padded), strict=True)
        ]
        edge: Tensor = self.edge(torch.cat(maps, 1))
        return edge[:, 0, :height, :width]


def at_edge_map(label: Tensor) -> Tensor:
    """Return the labels (B, H, W) at the middle of each position of the edge map, (B, h, w): pixel 4 i + 2, as IRN."""
    rows, columns = (
        torch.arange(STRIDE // 2, side + STRIDE // 2, STRIDE, device=label.device).clamp_max(side - 1)
        for side in label.shape[-2:]
    )
    return label[:, rows[:, None], columns]


@torch.no_grad()
def edge_map(net: EdgeNet, image: Tensor, flip: bool = True) -> Tensor:
    """Return the boundary probabilities of one image (3, H, W), in [0, 1], (h, w) float32; IRN averages flips too."""
    scores: Tensor = net(image[None])[0].float()
    if flip:
        scores = (scores + net(image[None].flip(-1))[0].float().flip(-1)) / 2
    return scores.sigmoid()
