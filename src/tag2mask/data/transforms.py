"""From a photograph to the network's input, through albumentations, which is imported where it is needed."""

import os
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from tag2mask.classes import IGNORE

Channels = tuple[float, float, float]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else albumentations, imported, asks the index for its version
cv2.setNumThreads(0)  # the loader's processes are the parallelism


@dataclass(frozen=True)
class Preprocessing:
    """How photographs become network input. The defaults are Puzzle-CAM's, which the paper's recipe follows.

    Attributes:
        long_side: range from which the longer side of a training image is drawn, in pixels.
        crop_size: side of the training crop, in pixels; smaller images are padded with zeros after normalisation.
        flip: share of training images that are mirrored.
        mean: of each channel, of values in [0, 1]; null takes the mean that the weights of the network expect.
        std: standard deviation of each channel, likewise.
        max_side: longer side to which larger photographs are shrunk for evaluation; null keeps their size.
    """

    long_side: tuple[int, int] = (320, 640)
    crop_size: int = 512
    flip: float = 0.5
    mean: Channels | None = None
    std: Channels | None = None
    max_side: int | None = None

    def normalized_by(self, mean: Channels, std: Channels) -> "Preprocessing":
        """Return the same with ``mean`` and ``std`` where they are left open."""
        return replace(self, mean=self.mean or mean, std=self.std or std)

    @property
    def normalization(self) -> tuple[Channels, Channels]:
        """Mean and standard deviation of each channel; ImageNet's where they are left open and no network is known."""
        return self.mean or IMAGENET_MEAN, self.std or IMAGENET_STD

    def undo(self, image: torch.Tensor) -> np.ndarray:
        """Return what a network's input (3, h, w) shows, (h, w, 3) uint8."""
        mean, std = self.normalization
        pixels = image.detach().cpu().float().permute(1, 2, 0).numpy() * np.asarray(std) + np.asarray(mean)
        return np.asarray((pixels * 255).round().clip(0, 255), np.uint8)


class TrainingTransform:
    """Random scale, flip and crop: ``image`` (H, W, 3) uint8 becomes (3, crop, crop) float32, a label map alike.

    Where the image is padded, a label map is ``IGNORE`` and a soft one 0.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        import albumentations as A

        (low, high), size = preprocessing.long_side, preprocessing.crop_size
        steps = [  # an image that is shrunk is averaged as in evaluation; a label map gets no new values in between
            A.LongestMaxSize(list(range(low, high + 1)), interpolation=cv2.INTER_CUBIC, area_for_downscale="image"),
            A.HorizontalFlip(p=preprocessing.flip),
            A.Normalize(*preprocessing.normalization),
            A.PadIfNeeded(size, size, position="random", border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=IGNORE),
            A.RandomCrop(size, size),
            A.ToTensorV2(),
        ]
        self.pipeline = A.Compose(steps, additional_targets={"soft": "mask"})

    def __call__(self, seed: int, **arrays: np.ndarray) -> dict[str, torch.Tensor]:
        """Transform ``image``, and its label map ``mask`` (H, W) uint8 alike; the same seed gives the same crop.

        The maps ``soft`` (H, W, K) float32 in [0, 1] become (K, crop, crop).
        """
        self.pipeline.set_random_seed(seed)
        crops = self.pipeline(**arrays)
        if "soft" in crops:
            crops["soft"] = crops["soft"].permute(2, 0, 1)
            crops["soft"] = crops["soft"].masked_fill(crops["soft"] > 1, 0)
        return {key: crop.long() if key == "mask" else crop for key, crop in crops.items()}


class EvaluationTransform:
    """The whole photograph, normalised, shrunk where it is larger than ``max_side``: (H, W, 3) uint8 -> (3, h, w)."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        import albumentations as A

        self.max_side = preprocessing.max_side
        self.pipeline = A.Compose([A.Normalize(*preprocessing.normalization), A.ToTensorV2()])

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """Transform one image."""
        longer = max(image.shape[:2])
        if self.max_side is not None and longer > self.max_side:
            factor = self.max_side / longer
            height, width = (max(1, round(side * factor)) for side in image.shape[:2])
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return self.pipeline(image=image)["image"]  # type: ignore[no-any-return]
