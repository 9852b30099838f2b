"""Masks of single photographs from their CAMs.

Shape letters in this file: H x W the photograph, h x w its CAM.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tag2mask.inference.cams import PhotoCAMs
from tag2mask.inference.guides import Edges
from tag2mask.io.labels import write_label
from tag2mask.refine.dense_crf import CRF
from tag2mask.refine.recipes import EdgeWalk, PseudoLabels
from tag2mask.refine.seeds import Seed
from tag2mask.viz import plots


@dataclass(frozen=True)
class Mask:
    """The mask of one photograph.

    Attributes:
        image: the photograph, (H, W, 3) uint8.
        steps: label map (H, W) uint8 after each step, by its name and in order: ``seed``, ``walk``, ``crf``.
        maps: class name -> the CAM from which the mask was cut, after the random walk if there was one, (h, w).
    """

    image: np.ndarray
    steps: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]

    @property
    def label(self) -> np.ndarray:
        """Mask values after the last step, (H, W) uint8."""
        return list(self.steps.values())[-1]

    def overlay(self) -> Image.Image:
        """Return the mask over the photograph."""
        return Image.fromarray(plots.overlay(self.image, self.label))

    def save(self, path: str | Path) -> None:
        """Write the mask as a palette PNG."""
        write_label(Path(path), self.label)


class Refiner:
    """Turns the CAMs of a photograph into its mask: random walk, threshold, dense CRF."""

    def __init__(
        self,
        edges: str | Path | Edges | None = None,
        threshold: float = 0.3,
        walk_steps: int = 256,
        crf: CRF | None = CRF(),
        device: str = "cpu",
    ) -> None:
        """Set up the steps.

        ``edges`` is the edge network, there on the ``device`` already, or its checkpoint; without it the random walk is
        left out, without ``crf`` the dense CRF. ``threshold`` is the score of the background, in [0, 1].
        """
        self.edges = Edges(Path(edges), device) if isinstance(edges, str | Path) else edges
        walk = None if edges is None else EdgeWalk("loaded", steps=walk_steps)
        self.device, self.recipe = device, PseudoLabels(Seed(threshold), walk, crf)

    @torch.inference_mode()
    def __call__(self, photo: PhotoCAMs) -> Mask:
        """Make the mask of one photograph."""
        result = self.recipe(photo.cams, photo.image, self.edges, self.device)
        return Mask(photo.image, result.steps, replace(photo, cams=result.soft).maps)
