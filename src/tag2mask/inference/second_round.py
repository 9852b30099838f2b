"""The networks that make labels: what guides the random walk, and what gives maps in place of CAMs in a second round.

Shape letters in this file: K tags of one photograph, H x W the photograph, h x w its maps, P positions, D feature
channels, G classes with the background.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.classes import BACKGROUND, IGNORE
from tag2mask.errors import MismatchError
from tag2mask.inference.cams import Features, load_guide
from tag2mask.inference.photographs import Segmenter
from tag2mask.io.cams import CAMs
from tag2mask.io.images import read_image
from tag2mask.io.labels import read_label
from tag2mask.models.cam import scale_to_one
from tag2mask.refine.probe import Fitted, Probe, drawn, shares_at_positions
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
    def __call__(self, name: str, image: np.ndarray, cams: CAMs) -> CAMs:
        """Return the maps of a photograph (H, W, 3) uint8 for the tags of its CAMs, (K, h, w) in [0, 1]."""
        names, highest = self.segmenter.class_names, max(cams.classes.tolist(), default=0)
        if highest > len(names):
            raise MismatchError(f"the CAM file holds the class {highest}, the network has {len(names)} classes")
        probabilities = self.segmenter.probabilities(self.segmenter.transform(image))
        sides = [max(1, round(side / 4)) for side in probabilities.shape[1:]]
        small = F.interpolate(probabilities[None], sides, mode="area")[0].cpu()
        chosen = small[cams.classes.long()]
        return cams._replace(cam=chosen / (chosen + small[BACKGROUND]).clamp_min(1e-12))


class ProbeMaps:
    """Maps of a linear probe for the tags of a photograph, in place of its CAMs.

    The map of a tag is the probability of its class among the tags and the background, divided by its maximum in the
    photograph, as in a CAM. The maps have a quarter of the sides that the network sees.
    """

    def __init__(self, settings: Probe, fitted: Fitted, device: str = "cpu") -> None:
        """Load the CAM network that the features of the probe come from."""
        self.features, self.fitted = load_features(settings, device), fitted
        self.factor = self.features.maker.task.net.stride / 4

    @torch.inference_mode()
    def __call__(self, name: str, image: np.ndarray, cams: CAMs) -> CAMs:
        """Return the maps of a photograph (H, W, 3) uint8 for the tags of its CAMs, (K, h, w) in [0, 1]."""
        logits = self.fitted.logits(self.features(image), name)[[BACKGROUND, *cams.classes.tolist()]]
        sides = [max(1, round(side * self.factor)) for side in logits.shape[1:]]
        larger = F.interpolate(logits[None], sides, mode="bilinear", align_corners=False)[0]
        return cams._replace(cam=scale_to_one(larger.softmax(0)[1:]).cpu())


def load_features(settings: Probe, device: str = "cpu") -> Features:
    """Load the CAM network that the features of a probe come from."""
    return Features(Path(settings.checkpoint or ""), settings.layers, device)


class Positions:
    """Takes what a probe learns from: the features of some positions of a photograph, and the shares of the classes."""

    def __init__(self, settings: Probe, photographs: int, num_classes: int, device: str = "cpu") -> None:
        """Load the CAM network; ``photographs`` share the positions, labels have ``num_classes`` foreground classes."""
        self.features, self.num_classes = load_features(settings, device), num_classes
        self.most = max(1, settings.positions // max(1, photographs))

    def __call__(self, name: str, photo: Path, label: Path) -> tuple[Tensor, Tensor]:
        """Return features (P, D) and shares (P, G), G classes with the background, of P positions drawn by the name.

        Raises:
            MismatchError: the label has another size than the photograph, or a class that there is not.
        """
        image, values = read_image(photo), read_label(label)
        if values.shape != image.shape[:2]:
            sizes = f"{values.shape[0]} x {values.shape[1]} pixels, the photograph {image.shape[0]} x {image.shape[1]}"
            raise MismatchError(f"the label {label} has {sizes} (height x width); delete it, it is made again")
        if (highest := values[values != IGNORE].max(initial=0)) > self.num_classes:
            raise MismatchError(f"{label} holds the class {highest} of {self.num_classes}; delete it, it is made again")
        found = self.features(image).cpu()
        shares = shares_at_positions(torch.from_numpy(values), (found.shape[1], found.shape[2]), 1 + self.num_classes)
        chosen = drawn(name, shares[0].numel(), self.most)
        return found.flatten(1)[:, chosen].T, shares.flatten(1)[:, chosen].T


def load_networks(
    walk: Walk | None, network: Path | None, probe: Probe | None, device: str, fitted: Fitted | None = None
) -> Networks:
    """Load the networks that make labels: of the random walk, and of a second round by a network or a fitted probe."""
    guide = None if walk is None else load_guide(walk, device)
    maps: TagMaps | ProbeMaps | None = None
    if network is not None:
        maps = TagMaps(network, device)
    elif probe is not None and fitted is None:
        load_features(probe, device)  # refuses another network, or a layer that it does not have
    elif probe is not None and fitted is not None:
        maps = ProbeMaps(probe, fitted, device)
    return Networks(guide, maps)
