"""Features below the trained stages, computed once: for photographs, their mirror images and the tiles of both.

With a backbone that is frozen below its last stages and fixed batch norms these never change, so that an epoch of
training is one of the last stages alone. Only for timm's EfficientNets: the trained stages are the last of ``blocks``,
and the head. Photographs are squeezed to a square. Stored as float16, memory-mapped, in a folder named by the settings.

Shape letters in this file: N photographs, D channels, T tiles, h x w a map, g tiles on one side.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from tag2mask.data.datasets import Photo, read_mask
from tag2mask.data.transforms import EvaluationTransform, Preprocessing
from tag2mask.io.files import write_json
from tag2mask.io.images import read_image, read_size
from tag2mask.models.backbones import Backbone
from tag2mask.models.cam import CAMNet
from tag2mask.models.tiling import tile
from tag2mask.utils.progress import progress


@dataclass(frozen=True)
class Views:
    """What is computed of each photograph.

    Attributes:
        trained: how many of the last ``blocks`` are trained; the head always is.
        side: of the square that a photograph is squeezed to, in pixels.
        mirror: the mirror image too, for training.
        tiles: the tiles too: ``tiles2x1`` are 2 x 2 as they are, ``tiles2x3`` are enlarged by three. Empty: none.
        layers: blocks whose maps are kept too, as guides of an attention (see `Attention.layer`): of the tiles.
        full_layers: likewise of the photographs, for an attention of `CAMInference`.
    """

    trained: int = 1
    side: int = 256
    mirror: bool = False
    tiles: str = ""
    layers: tuple[str, ...] = ()
    full_layers: tuple[str, ...] = ()


class Lower(nn.Module):
    """A CAM network up to its trained stages: images (B, 3, H, W) -> maps by name, ``below`` the last of them."""

    def __init__(self, net: CAMNet, trained: int, layers: Sequence[str]) -> None:
        """Take all but the last ``trained`` blocks of ``net``, which stays as it is."""
        super().__init__()
        self.stem = nn.Sequential(net.backbone.conv_stem, net.backbone.bn1)
        self.blocks = net.backbone.blocks[: len(net.backbone.blocks) - trained]
        self.layers = tuple(layers)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the input of the trained stages, and each layer's map at its size, which is that of the CAM."""
        maps, x = {}, self.stem(images)
        for number, block in enumerate(self.blocks):
            x = block(x)
            maps[f"blocks.{number}"] = x
        size = x.shape[-2:]
        maps["below"] = x
        return {name: F.adaptive_avg_pool2d(maps[name], size) for name in self.layers}


class Upper(nn.Module):
    """The trained stages of a CAM network as a backbone whose images are the maps ``below`` them, at stride 1.

    Channels beyond those are the map of a lower layer, which passes through the part named ``guide``.
    """

    def __init__(self, net: CAMNet, trained: int) -> None:
        """Take the last ``trained`` blocks of ``net`` and its head."""
        super().__init__()
        self.blocks = net.backbone.blocks[len(net.backbone.blocks) - trained :]
        self.conv_head, self.bn2 = net.backbone.conv_head, net.backbone.bn2
        self.guide = nn.Identity()
        self.width = next(part.in_channels for part in self.modules() if isinstance(part, nn.Conv2d))

    def forward_features(self, below: Tensor) -> Tensor:
        """Return the features that the classifier sees, (B, D, h, w)."""
        self.guide(below[:, self.width :])
        features: Tensor = self.bn2(self.conv_head(self.blocks(below[:, : self.width])))
        return features


Cache = dict[str, np.ndarray]
"""Features of a list of photographs by view and layer: ``full/below`` (N, V, D, h, w), ``tiles2x1/below``
(N, V, T, D, m, n), where V is 2 with mirror images, else 1."""


def cached(photos: Sequence[Photo], backbone: Backbone, views: Views, how: Preprocessing, root: Path) -> Cache:
    """Return the features of ``photos``, computing what ``root`` does not hold yet."""
    key = {
        "names": [p.name for p in photos],
        "backbone": asdict(backbone),
        "mean": how.normalization[0],
        "std": how.normalization[1],
    }
    key |= {"trained": views.trained, "side": views.side, "mirror": views.mirror}
    arrays, net = {}, None
    for view in filter(None, ("full", views.tiles)):
        text = json.dumps({**key, "view": view}, sort_keys=True)
        folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
        layers = ("below", *(views.full_layers if view == "full" else views.layers))
        missing = [layer for layer in layers if not (folder / f"{layer}.npy").is_file()]
        if missing:
            write_json(folder / "settings.json", json.loads(text))
            net = net or _pretrained(backbone)
            _compute(photos, Lower(net, views.trained, missing), views, view, how, folder)
        arrays |= {f"{view}/{layer}": np.load(folder / f"{layer}.npy", mmap_mode="r") for layer in layers}
    return arrays


def _pretrained(backbone: Backbone) -> CAMNet:
    net = CAMNet(1, backbone).eval()
    net.load_pretrained()
    return net


@torch.no_grad()
def _compute(photos: Sequence[Photo], lower: Lower, views: Views, view: str, how: Preprocessing, folder: Path) -> None:
    """Write an array a layer; each takes its name when all are whole."""
    out: dict[str, np.ndarray] = {}
    for number, photo in enumerate(progress(photos, len(photos), f"photographs ({view})")):
        for name, value in lower(_view(squeezed(photo, views.side, how), views.mirror, view)).items():
            by_view = value.view(2 if views.mirror else 1, -1, *value.shape[1:]) if view != "full" else value
            if name not in out:
                shape = (len(photos), *by_view.shape)
                out[name] = np.lib.format.open_memmap(folder / f"{name}.part", "w+", np.float16, shape)
            out[name][number] = by_view.half().numpy()
    for name, array in out.items():
        array.flush()  # type: ignore[attr-defined]
        os.replace(folder / f"{name}.part", folder / f"{name}.npy")


def _view(image: Tensor, mirror: bool, view: str) -> Tensor:
    """The image, or the tiles of it (T, 3, m, n), and of its mirror image after it."""
    both = torch.stack([image, image.flip(-1)] if mirror else [image])
    if view == "full":
        return both
    grid, factor = (int(number) for number in view.removeprefix("tiles").split("x"))
    if factor > 1:
        both = F.interpolate(both, scale_factor=factor, mode="bicubic", align_corners=False)
    return torch.cat([tile(one[None], grid) for one in both])


def squeezed(photo: Photo, side: int, how: Preprocessing) -> Tensor:
    """Read a photograph and squeeze it to a square, (3, side, side), normalised."""
    image = cv2.resize(read_image(photo.image), (side, side), interpolation=cv2.INTER_AREA)
    return EvaluationTransform(how)(image)


class CachedSet(Dataset[dict[str, Any]]):
    """Samples for training from cached features; keys are (index, seed), and the seed says whether it is mirrored."""

    def __init__(self, photos: Sequence[Photo], cache: Cache, num_classes: int) -> None:
        """Take tagged ``photos`` and the cache of their features."""
        self.photos, self.cache, self.num_classes = photos, cache, num_classes

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, seed = key
        mirrored = seed % self.cache["full/below"].shape[1]
        maps = {name: torch.from_numpy(array[index, mirrored].astype(np.float32)) for name, array in self.cache.items()}
        photo = self.photos[index]
        label = torch.from_numpy(photo.label(self.num_classes))
        return {**maps, "image": maps["full/below"], "label": label, "name": photo.name}


class CachedPhotographs(Dataset[dict[str, Any]]):
    """Samples for scoring, as of `EvaluationSet`, whose ``image`` is the map below the trained stages, then guides."""

    def __init__(self, photos: Sequence[Photo], cache: Cache, num_classes: int) -> None:
        """Take ``photos`` with masks and the cache of their features."""
        self.photos, self.cache, self.num_classes = photos, cache, num_classes

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        photo = self.photos[index]
        size = read_size(photo.image)
        maps = [array[index, 0] for name, array in self.cache.items() if name.startswith("full/")]  # ``below`` first
        return {
            "image": torch.from_numpy(np.concatenate(maps).astype(np.float32)),
            "label": torch.from_numpy(photo.label(self.num_classes)),
            "name": photo.name,
            "size": torch.tensor(size),
            "mask": torch.from_numpy(read_mask(photo, size, self.num_classes)).long(),
        }
