"""Photographs as samples, the same for every data set.

A sample is a dict: ``image`` (3, H, W) float32, normalised; ``label`` (C,) float32, 1 where the class is tagged, all -1
where the photograph has no tags; ``name``. For evaluation also ``size`` (2,) int64, height and width of the photograph,
and ``mask`` (height, width) int64 where there is one; for training on labels ``mask`` (H, W) int64, cropped like the
image.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tag2mask import files
from tag2mask.data.photos import Photo, read_mask

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
        return {**self.crop(index, files.read_image(photo.image), seed), "label": label, "name": photo.name}

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
        image = files.read_image(photo.image)
        sample: Sample = {
            "image": self.transform(image),
            "label": torch.from_numpy(photo.label(self.num_classes)),
            "name": photo.name,
            "size": torch.tensor(image.shape[:2]),
        }
        if self.masks:
            sample["mask"] = torch.from_numpy(read_mask(photo, image.shape[:2], self.num_classes))
        return sample


class SeededSampler(DistributedSampler[Any]):
    """Shuffles by seed and epoch, and hands out (index, seed of the sample); can start in the middle of an epoch."""

    def __init__(self, dataset: Dataset[Sample], seed: int, ranks: int = 1, rank: int = 0) -> None:
        """Draw the share of ``rank`` among ``ranks`` from ``dataset``."""
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=True, seed=seed)
        self.skip = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        generator = torch.Generator().manual_seed(sample_seed(self.seed, self.epoch))
        count = len(self.dataset)  # type: ignore[arg-type]
        order = torch.randperm(count, generator=generator).tolist()
        order = (order * -(-self.total_size // count))[: self.total_size]  # equal shares, a few images twice
        for index in order[self.rank :: self.num_replicas][self.skip :]:
            yield index, sample_seed(self.seed, self.epoch, index)


def sample_seed(*numbers: int) -> int:
    """Mix numbers to a seed of 32 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest(), "little")


class ShardSampler(DistributedSampler[Any]):
    """Every image once: rank r of R takes r, r + R, r + 2 R, ...; none is doubled to make shares equal."""

    def __init__(self, dataset: Dataset[Sample], ranks: int = 1, rank: int = 0) -> None:
        """Take the share of ``rank`` among ``ranks`` of ``dataset``."""
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=False)
        self.share = range(rank, len(dataset), ranks)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)

    def __len__(self) -> int:
        return len(self.share)


class ResumableLoader(DataLoader[Sample]):
    """A training loader that Lightning can take up in the middle of an epoch; its sampler is a `SeededSampler`."""

    _done = 0
    _start = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        start, self._start = self._start, 0
        self._done = start
        self.sampler.skip = start * (self.batch_size or 1)  # type: ignore[attr-defined]
        for batch in super().__iter__():
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the present epoch have been handed out."""
        return {"batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next epoch start after the batches that ``state`` counts."""
        self._start = state["batches"] % max(len(self), 1)
