"""Masks of single photographs from a checkpoint of a segmentation network: no tags, no data set.

Shape letters in this file: G classes with the background, H x W the photograph, h x w the network's input.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tag2mask.classes import BACKGROUND
from tag2mask.data.transforms import EvaluationTransform, Preprocessing
from tag2mask.models.segmentation import class_probabilities, label_map
from tag2mask.refine.dense_crf import CRF
from tag2mask.tasks import checkpoints
from tag2mask.tasks.segmentation import SegmentationTask
from tag2mask.tasks.settings import MaskInference

Shares = dict[str, tuple[float, float]]
"""Class name -> share of the pixels, and mean probability over them; largest first, without the background."""


class Segmenter:
    """A trained segmentation network, ready for photographs."""

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "cpu",
        inference: MaskInference = MaskInference(scales=(1.0,), flip=False),
        crf: CRF | None = None,
        max_side: int | None = None,
    ) -> None:
        """Load the network of a checkpoint of `SegmentationTask` and the normalisation that it was trained with.

        ``crf`` is a dense CRF over the probabilities. Photographs whose longer side is above ``max_side`` pixels are
        shrunk for the network; None takes the side of the training's evaluation, or else the largest of its images.
        """
        task = checkpoints.load(SegmentationTask, checkpoint, device)
        trained = Preprocessing(**task.preprocessing)
        side = max_side or trained.max_side or max(trained.long_side)
        self.preprocessing = replace(trained, max_side=side)
        self.transform = EvaluationTransform(self.preprocessing)
        self.net, self.class_names = task.net, task.class_names
        self.device, self.inference, self.crf = device, inference, crf

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, Shares]:
        """Return the mask values of a photograph (H, W, 3) uint8, (H, W) uint8, and the share of each class."""
        pixels, scales, flip = self.transform(image), self.inference.scales, self.inference.flip
        probabilities = class_probabilities(self.net, pixels.to(self.device), scales, flip)
        final = probabilities if self.crf is None else self.crf.sharpen(self.preprocessing.undo(pixels), probabilities)
        shares = class_shares(final.argmax(0), probabilities)
        named = {self.class_names[value - 1]: share for value, share in shares.items()}
        return label_map(final, image.shape[:2]).cpu().numpy(), named


def class_shares(label: Tensor, probabilities: Tensor) -> dict[int, tuple[float, float]]:
    """Return `Shares` by mask value, of a label map (h, w) int64 and the probabilities (G, h, w) of the classes."""
    own = probabilities.gather(0, label[None])[0].double()
    counts = zip(*(x.tolist() for x in label.unique(return_counts=True)), strict=True)
    shares = {v: (count / label.numel(), own[label == v].mean().item()) for v, count in counts if v != BACKGROUND}
    return dict(sorted(shares.items(), key=lambda item: item[1][0], reverse=True))
