"""Masks of single photographs from a checkpoint of a segmentation network: no tags, no data set.

Shape letters in this file: G classes with the background, H x W the photograph, h x w the network's input.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tag2mask.data.transforms import EvaluationTransform, Preprocessing
from tag2mask.models.segmentation import class_probabilities, label_map
from tag2mask.refine.dense_crf import CRF
from tag2mask.tasks import checkpoints
from tag2mask.tasks.segmentation import SegmentationTask
from tag2mask.tasks.settings import MaskInference

ONCE = MaskInference(scales=(1.0,), flip=False)
Shares = dict[str, tuple[float, float]]
"""Class name -> share of the pixels, and mean probability over them; largest first, without the background."""


class Segmenter:
    """A trained segmentation network, ready for photographs."""

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "cpu",
        inference: MaskInference = ONCE,
        crf: CRF | None = None,
        max_side: int | None = None,
    ) -> None:
        """Load the network of a checkpoint of `SegmentationTask` and the normalisation that it was trained with.

        Args:
            checkpoint: written by `tag2mask fit`.
            device: of the network.
            inference: scales and flips.
            crf: dense CRF over the probabilities; None leaves it out.
            max_side: longer side, in pixels, to which larger photographs are shrunk for the network. None takes that
                of the training's evaluation, or else the largest side of its training images.
        """
        task = checkpoints.load(SegmentationTask, checkpoint, device)
        trained = Preprocessing(**task.preprocessing)
        side = max_side or trained.max_side or max(trained.long_side)
        self.preprocessing = replace(trained, max_side=side)
        self.transform = EvaluationTransform(self.preprocessing)
        self.net, self.class_names = task.net, task.class_names
        self.device, self.inference, self.crf = device, inference, crf

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, Shares]:
        """Return the mask values of a photograph (H, W, 3) uint8, (H, W) uint8, and the share of each class."""
        return self.segment(self.transform(image), image.shape[:2])

    @torch.inference_mode()
    def segment(self, image: Tensor, size: Sequence[int]) -> tuple[np.ndarray, Shares]:
        """Do the same for the network's input (3, h, w) that was made of a photograph of ``size`` (H, W)."""
        scales, flip = self.inference.scales, self.inference.flip
        probabilities = class_probabilities(self.net, image.to(self.device), scales, flip)
        final = probabilities
        if self.crf is not None:
            final = self.crf.sharpen(self.preprocessing.undo(image), probabilities)
        shares = class_shares(final.argmax(0), probabilities)
        return label_map(final, size).cpu().numpy(), {self.class_names[v - 1]: share for v, share in shares.items()}


def class_shares(label: Tensor, probabilities: Tensor) -> dict[int, tuple[float, float]]:
    """Return mask value -> (share of the pixels, mean probability over them), largest first, no background.

    Args:
        label: (h, w) int64.
        probabilities: (G, h, w).
    """
    counts = torch.bincount(label.flatten(), minlength=len(probabilities))
    own = probabilities.gather(0, label[None]).flatten().double()
    sums = own.new_zeros(len(probabilities)).scatter_add_(0, label.flatten(), own)
    order = [value for value in counts.argsort(descending=True, stable=True).tolist() if value and counts[value]]
    return {v: (counts[v].item() / label.numel(), sums[v].item() / counts[v].item()) for v in order}
