"""The dense CRF over a segmentation network's probabilities, at test time.

Shape letters in this file: G classes with the background, H x W the photograph, h x w what the network saw of it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tag2mask.classes import BACKGROUND
from tag2mask.models.segmentation import label_map
from tag2mask.refine.dense_crf import Bilateral, Gaussian
from tag2mask.refine.recipes import CRF

TEST_TIME = CRF(10, None, Gaussian(sxy=3, compat=3), Bilateral(sxy=80, srgb=13, compat=10))
"""Settings that Puzzle-CAM segments with; those of its pseudo-labels are the defaults of `CRF`."""


def crf_label(probabilities: Tensor, image: np.ndarray, size: Sequence[int], crf: CRF) -> Tensor:
    """Return the label map (H, W) uint8 of probabilities (G, h, w) that agree with the edges of an image (h, w, 3)."""
    return label_map(sharpened(probabilities, image, crf), size)


def sharpened(probabilities: Tensor, image: np.ndarray, crf: CRF) -> Tensor:
    """Return the probabilities (G, h, w) after the CRF.

    Only the background and classes that win somewhere take part, as the others would only cost time.

    Args:
        probabilities: (G, h, w).
        image: what they are of, (h, w, 3) uint8.
        crf: its settings.
    """
    values = torch.cat([probabilities.argmax(0).flatten(), probabilities.new_tensor([BACKGROUND]).long()]).unique()
    if len(values) == 1:
        return probabilities
    after = torch.zeros_like(probabilities)
    after[values] = crf.from_scores(image, probabilities[values])
    return after
