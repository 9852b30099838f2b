"""The networks that make labels: what guides the random walk, and maps of a segmentation network for a second round.

Shape letters in this file: K tags of one photograph, H x W the photograph, h x w its maps.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tag2mask.classes import BACKGROUND
from tag2mask.errors import MismatchError
from tag2mask.inference.cams import load_guide
from tag2mask.inference.photographs import Segmenter
from tag2mask.io.cams import CAMs
from tag2mask.refine.recipes import Walk
from tag2mask.refine.stage import Networks


class TagMaps:
    """Maps of a segmentation network for the tags of a photograph, in place of its CAMs: labels of a second round.

    The map of a tag is p / (p + q), for the probabilities p of its class and q of the background. So tags that the
    photograph does not have count as absent, and at a threshold of 0.5 the most probable of the others wins. The maps
    have a quarter of the sides that the network sees, as edges have.
    """

    def __init__(self, checkpoint: Path, device: str = "cpu") -> None:
        """Load the network of a checkpoint of `SegmentationTask`; scales and flips are those of its configuration."""
        self.segmenter = Segmenter(checkpoint, device, None)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, cams: CAMs) -> CAMs:
        """Return the maps of a photograph (H, W, 3) uint8 for the tags of its CAMs, (K, h, w) in [0, 1]."""
        names, highest = self.segmenter.class_names, max(cams.classes.tolist(), default=0)
        if highest > len(names):
            raise MismatchError(f"the CAM file holds the class {highest}, the network has {len(names)} classes")
        probabilities = self.segmenter.probabilities(self.segmenter.transform(image))
        sides = [max(1, round(side / 4)) for side in probabilities.shape[1:]]
        small = F.interpolate(probabilities[None], sides, mode="area")[0].cpu()
        chosen = small[cams.classes.long()]
        return cams._replace(cam=chosen / (chosen + small[BACKGROUND]).clamp_min(1e-12))


def load_networks(walk: Walk | None, network: Path | None, device: str) -> Networks:
    """Load the networks that make labels: of the random walk, and a segmentation network for a second round."""
    guide = None if walk is None else load_guide(walk, device)
    return Networks(guide, None if network is None else TagMaps(network, device))
