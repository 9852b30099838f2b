"""Photographs as samples, the same for every data set.

A sample is a dict: ``image`` (3, H, W) float32, normalised; ``label`` (C,) float32, 1 where the class is tagged, all -1
where the photograph has no tags; ``name``. For evaluation also ``size`` (2,) int64, height and width of the photograph,
and ``mask`` (height, width) int64 where there is one; for training on labels ``mask`` (H, W) int64, cropped like the
image.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from tag2mask.data.photos import Photo, read_mask
from tag2mask.io.images import read_image

Sample = dict[str, Any]


class Transform(Protocol):
    """What the training sets do with an image (H, W, 3) uint8 and a seed."""

    def __call__(self, image: np.ndarray, seed: int) -> torch.Tensor:
        """Return the crop (3, h, w) float32."""

    def with_label(self, image: np.ndarray, label: np.ndarray, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the crop (3, h, w) float32, and that of the label map (H, W) uint8, (h, w) int64."""


class TrainingSet(Dataset[Sample]):
    """Crops and their tags. Masks are never opened.

    Its keys are pairs (index, seed): the seed settles the crop, so that a run can be repeated and taken up again.
    """

    def __init__(self, photos: Sequence[Photo], num_classes: int, transform: Transform) -> None:
        """Take tagged ``photos``."""
        self.photos = photos
        self.num_classes = num_classes
        self.transform = transform

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, seed = key
        photo = self.photos[index]
        label = torch.from_numpy(photo.label(self.num_classes))
        return {**self.crop(index, read_image(photo.image), seed), "label": label, "name": photo.name}

    def crop(self, index: int, image: np.ndarray, seed: int) -> Sample:
        """Return ``image``, and whatever is cropped with it."""
        return {"image": self.transform(image, seed)}


class LabelledSet(TrainingSet):
    """Crops and the masks of their photographs, such as pseudo-labels."""

    def crop(self, index: int, image: np.ndarray, seed: int) -> Sample:
        """Return ``image`` and ``mask``."""
        label = read_mask(self.photos[index], image.shape[:2], self.num_classes).astype(np.uint8)
        crop, mask = self.transform.with_label(image, label, seed)
        return {"image": crop, "mask": mask}


class EvaluationSet(Dataset[Sample]):
    """Whole photographs, with masks at the photograph's own size."""

    def __init__(
        self,
        photos: Sequence[Photo],
        num_classes: int,
        transform: Callable[[np.ndarray], torch.Tensor],
        masks: bool,
    ) -> None:
        """Take ``photos``; with ``masks`` each must have one, without it none is opened."""
        self.photos = photos
        self.num_classes = num_classes
        self.transform = transform
        self.masks = masks

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        photo = self.photos[index]
        image = read_image(photo.image)
        sample: Sample = {
            "image": self.transform(image),
            "label": torch.from_numpy(photo.label(self.num_classes)),
            "name": photo.name,
            "size": torch.tensor(image.shape[:2]),
        }
        if self.masks:
            sample["mask"] = torch.from_numpy(read_mask(photo, image.shape[:2], self.num_classes))
        return sample
