"""What guides the random walk over a photograph: edges, or features of a layer, from a trained network.

Shape letters in this file: D feature channels, H x W the photograph, h x w the map of the layer.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.data.transforms import EvaluationTransform, Preprocessing
from tag2mask.models.cam import captured, part
from tag2mask.models.edges import edge_map
from tag2mask.refine.recipes import FeatureWalk, Guide, Walk
from tag2mask.tasks import checkpoints
from tag2mask.tasks.affinity import AffinityTask
from tag2mask.tasks.cam import CAMTask


class Edges:
    """A trained edge network, ready for photographs: (H, W, 3) uint8 -> edge map (H / 4, W / 4) in [0, 1]."""

    def __init__(self, checkpoint: Path, device: str = "cpu") -> None:
        """Load the network of a checkpoint of `AffinityTask`, and the normalisation that it was trained with."""
        task = checkpoints.load(AffinityTask, checkpoint, device)
        self.net, normalization = task.net, (task.preprocessing[key] for key in ("mean", "std"))
        self.mean, self.std = (torch.tensor(values, device=device)[:, None, None] for values in normalization)

    def __call__(self, image: np.ndarray) -> Tensor:
        """Return the boundaries of one photograph, on the device of the network."""
        pixels = torch.from_numpy(image).to(self.mean.device).permute(2, 0, 1).float() / 255
        return edge_map(self.net, (pixels - self.mean) / self.std)


class Features:
    """A layer of a trained CAM network, ready for photographs: (H, W, 3) uint8 -> features (D, h, w)."""

    def __init__(self, checkpoint: Path, layer: str, device: str = "cpu") -> None:
        """Load the network of a checkpoint of `CAMTask`, and the normalisation that it was trained with."""
        task = checkpoints.load(CAMTask, checkpoint, device)
        self.transform = EvaluationTransform(Preprocessing(**task.preprocessing))
        self.net, self.layer, self.device = task.net, layer, device
        part(self.net.backbone, layer)  # refuses a layer that is not there

    def __call__(self, image: np.ndarray) -> Tensor:
        """Return the features of one photograph, resized so that the map of every layer covers exactly all of it."""
        pixels = self.transform(image)[None].to(self.device)
        sides = [max(1, round(side / self.net.stride)) * self.net.stride for side in pixels.shape[-2:]]
        pixels = F.interpolate(pixels, sides, mode="bilinear", align_corners=False)
        with torch.no_grad(), captured(self.net.backbone, self.layer) as outputs:
            self.net(pixels)
        return outputs[0][0].float()


def load_guide(walk: Walk, device: str) -> Guide:
    """Load the network that a walk names, to a device."""
    checkpoint = Path(walk.checkpoint or "")
    return Features(checkpoint, walk.layer, device) if isinstance(walk, FeatureWalk) else Edges(checkpoint, device)
