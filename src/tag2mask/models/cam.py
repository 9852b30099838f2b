"""The CAM network, its two training branches, and CAMs over scales and flips.

Shape letters in this file: B images, C foreground classes, D feature channels, H x W the image, h x w its map,
M x N the map of one tile, T tiles of an image.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag2mask.errors import SettingError
from tag2mask.models.attention import Attention
from tag2mask.models.backbones import Backbone, PretrainedNet, build, feature_width
from tag2mask.models.tiling import enlargement, pad_to_multiple, tile, untile
from tag2mask.models.vit import as_map, feature_map, own_attention


class CAMNet(PretrainedNet):
    """A backbone with a 1 x 1 classifier without bias, whose maps are the CAMs (Eq. 1-2 of Liu et al. 2023)."""

    def __init__(self, num_classes: int, backbone: Backbone) -> None:
        """Build the network for ``num_classes`` foreground classes, with random weights."""
        super().__init__(backbone)
        self.backbone = build(backbone)
        self.classifier = nn.Conv2d(feature_width(self.backbone, backbone), num_classes, 1, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.01)
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU, and on GPUs in half precision
        self.train()

    @property
    def stride(self) -> int:
        """Pixels to one position of the map."""
        return self.config.output_stride

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return class scores before ReLU, (B, C, h, w), and the features under them, (B, D, h, w).

        Images (B, 3, H, W) may have any size; h and w are H and W over the stride, rounded up.
        """
        features = feature_map(self.backbone, pad_to_multiple(images, self.stride))
        return self.classifier(features), features

    def guided(self, images: Tensor, attention: Attention | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `forward` does, and the map that an attention is made of, (B, G, h, w): without one the features.

        The map of a lower layer is averaged down to the size of the CAM. For the kernel ``network``, channel q at
        position p is the weight with which p looks at q; G is h w.
        """
        if attention is not None and attention.kernel == "network":
            with own_attention(self.backbone, attention.blocks) as rows:
                cam, features = self(images)
            return cam, features, rows[0].mT.unflatten(2, cam.shape[-2:])
        if attention is None or not isinstance(attention.layer, str):
            cam, features = self(images)
            return cam, features, features
        height, width = (-(-side // self.stride) * self.stride for side in images.shape[-2:])
        with captured(self.backbone, attention.layer, (height, width)) as maps:
            cam, features = self(images)
        return cam, features, F.adaptive_avg_pool2d(maps[0], cam.shape[-2:])

    @torch.no_grad()
    def require_guide(self, attention: Attention) -> None:
        """Raise a ``SettingError`` where the network lacks what an attention is made of."""
        training = self.training
        self.eval().guided(self.classifier.weight.new_zeros(1, 3, self.stride, self.stride), attention)
        self.train(training)


class TwoSteps(NamedTuple):
    """What the two branches give for a batch; tiles are in the order of `tiling.tile`."""

    full: Tensor  # CAM of the whole image, (B, C, h, w)
    features: Tensor  # the features under it, (B, D, h, w)
    tiled: Tensor  # CAM of the tiles, merged, (B, C, h, w)
    target: Tensor  # what the CAM of the whole image is to look like, likewise
    tile_cam: Tensor  # CAM of each tile, (T B, C, M, N)
    tile_features: Tensor  # the features under it, (T B, D, M, N)
    guide: Tensor  # what the affinity is made of, (T B, G, M, N); without attention the features
    entropy: Tensor | None  # of the attention, in [0, 1]; None without attention


def two_steps(
    net: CAMNet,
    images: Tensor,
    grid: int,
    attention: Attention | None,
    min_side: int = 0,
    refined: Literal["all", "target"] = "all",
) -> TwoSteps:
    """Run the branch of the whole image and the branch of its ``grid`` x ``grid`` tiles, Eq. 1-6.

    The images (B, 3, H, W) have any size: they are padded to a multiple of ``grid`` x stride for the tiles, and the map
    is cropped back. Tiles whose shorter side has fewer than ``min_side`` pixels are enlarged, see `tiling.enlargement`;
    their merged map has the size of ``full``. For ``attention`` and ``refined`` see `merged`.
    """
    padded = pad_to_multiple(images, grid * net.stride)
    factor = enlargement(padded.shape[-2:], grid, min_side)
    if factor > 1:
        padded = F.interpolate(padded, scale_factor=factor, mode="bicubic", align_corners=False)
    return merged(net(images), net.guided(tile(padded, grid), attention), grid, attention, factor, refined)


def merged(
    whole: tuple[Tensor, Tensor],
    tiles: tuple[Tensor, Tensor, Tensor],
    grid: int,
    attention: Attention | None,
    factor: int = 1,
    refined: Literal["all", "target"] = "all",
) -> TwoSteps:
    """Refine the CAMs of tiles and put them together at the size of the CAM of the whole image.

    ``whole`` is what `CAMNet.forward` returns for the images, ``tiles`` what `CAMNet.guided` returns for their tiles.
    The tiles were enlarged by ``factor``: so many positions on a side are averaged into one. ``attention`` None refines
    nothing (Puzzle-CAM). ``refined`` ``all`` refines the CAM itself, as printed, and the merged CAM is the target;
    ``target`` leaves it, and the target is the refined map of what of it is above zero, as CAMs are at inference.
    """
    (full, features), (cam, tile_features, guide) = whole, tiles
    spread, entropy = cam if refined == "all" else cam.relu(), None
    if attention is not None and attention.region == "image":
        over_all, entropy = attention.refine(untile(guide, grid), untile(spread, grid))
        spread = tile(over_all, grid)
    elif attention is not None:
        spread, entropy = attention.refine(guide, spread)
    cam = spread if refined == "all" else cam
    h, w = full.shape[-2:]
    tiled, target = (F.avg_pool2d(untile(x, grid), factor)[..., :h, :w] for x in (cam, spread))
    return TwoSteps(full, features, tiled, target, cam, tile_features, guide, entropy)


def part(backbone: nn.Module, layer: str) -> nn.Module:
    """Return the part ``layer`` of a backbone; ``SettingError`` where there is none."""
    parts: dict[str, nn.Module] = dict(backbone.named_modules())
    if layer not in parts:
        names = ", ".join(name for name, _ in backbone.named_children())
        raise SettingError(f"the backbone has no part {layer!r} for the attention; its parts are {names}")
    return parts[layer]


@contextmanager
def captured(backbone: nn.Module, layer: str, size: tuple[int, int]) -> Iterator[list[Tensor]]:
    """Collect the maps (B, G, h', w') that the part ``layer`` of a backbone puts out while the with-block runs.

    The images have the ``size`` (H, W), of whole positions. ``SettingError`` where the part puts out no map.
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        found = as_map(backbone, output, size)
        if found is not None:
            maps.append(found)

    with part(backbone, layer).register_forward_hook(keep):
        yield maps
    if not maps:
        raise SettingError(f"the part {layer!r} of the backbone puts out no map; name another, such as a stage")


def fuse_scales(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Sum class maps over scales and flips, as Puzzle-CAM and IRN do: (C, height, width) float32.

    ``maps`` has one a scale, (2, C, h, w) of the image and of its mirror image, or (1, C, h, w) of the image alone. All
    are cut at zero and scaled up bilinearly before the sum.
    """
    total = torch.zeros(())
    for cam in maps:
        cam = cam.float().relu()
        both = cam[0] + cam[1].flip(-1) if len(cam) == 2 else cam[0]
        total = total.to(both) + F.interpolate(both[None], size, mode="bilinear", align_corners=False)[0]
    return total


def scale_to_one(cam: Tensor) -> Tensor:
    """Divide each map of (..., H, W) by its maximum + 1e-5, so that it lies in [0, 1]."""
    return cam / (cam.amax((-2, -1), keepdim=True) + 1e-5)


def above_floor(cam: Tensor, floor: float) -> Tensor:
    """Stretch what of a CAM in [0, 1] lies above ``floor``, in [0, 1), to [0, 1]; 0 elsewhere."""
    return (cam - floor).clamp_min(0) / (1 - floor)


class FusedCAM(NamedTuple):
    """What `multi_scale_cam` makes of an image."""

    maps: Tensor  # summed over scales and flips, not yet in [0, 1], (C, height, width)
    scores: Tensor  # mean class score over scales and flips, (C,)
    entropy: Tensor | None  # of the attention, in [0, 1], mean over scales; None without attention


def multi_scale_cam(
    net: CAMNet,
    image: Tensor,
    scales: Sequence[float],
    flip: bool,
    size: tuple[int, int],
    attention: Attention | None = None,
) -> FusedCAM:
    """CAMs of one image from the full branch alone (Alg. 2), over scales and flips.

    At each scale the image is resized to the nearest multiple of the stride (at least one), so that every map covers
    exactly the image and no map needs cropping. The image is normalised, (3, H, W); ``size`` is that of the CAM.
    ``attention`` spreads the map of each scale, cut at zero, over the whole image; None as in Alg. 2.
    """
    maps, scores, entropies = [], [], []
    for scale in scales:
        sides = [max(1, round(side * scale / net.stride)) * net.stride for side in image.shape[-2:]]
        scaled = F.interpolate(image[None], sides, mode="bicubic", align_corners=False, antialias=scale < 1)
        cam, _, guide = net.guided(torch.cat([scaled, scaled.flip(-1)]) if flip else scaled, attention)
        scores.append(cam.float().mean((0, 2, 3)))
        if attention is not None:
            cam, entropy = attention.refine(guide, cam.relu())
            entropies.append(entropy)
        maps.append(cam)
    mean_entropy = torch.stack(entropies).mean() if entropies else None
    return FusedCAM(fuse_scales(maps, size), torch.stack(scores).mean(0), mean_entropy)
