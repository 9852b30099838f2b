"""Photographs as samples, the same for every data set, and their order: seeded, shared out, resumed in an epoch.

A sample is a dict: ``image`` (3, H, W) float32, normalised; ``label`` (C,) float32, 1 where the class is tagged, all -1
without tags; ``name``. Evaluation adds ``size`` (2,) int64, height and width of the photograph. With masks also
``mask`` int64: (height, width) for evaluation, (H, W) and cropped like the image for training.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tag2mask.data.photos import Photo, read_mask
from tag2mask.io.images import read_image

Sample = dict[str, Any]


class Photographs(Dataset[Sample]):
    """Photographs of a data set; with ``masks`` also their masks, such as pseudo-labels, else none is opened."""

    def __init__(self, photos: Sequence[Photo], num_classes: int, transform: Any, masks: bool = False) -> None:
        self.photos, self.num_classes, self.transform, self.masks = photos, num_classes, transform, masks

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, index: int) -> tuple[dict[str, np.ndarray], Sample]:
        """Return arrays to transform, ``image`` (H, W, 3) and ``mask`` (H, W) uint8, and a sample of label and name."""
        photo = self.photos[index]
        arrays = {"image": read_image(photo.image)}
        if self.masks:
            arrays["mask"] = read_mask(photo, arrays["image"].shape[:2], self.num_classes)
        return arrays, {"label": torch.from_numpy(photo.label(self.num_classes)), "name": photo.name}


class TrainingSet(Photographs):
    """Crops, by a `TrainingTransform`. Of a key (index, seed) the seed settles the crop: a run can be repeated."""

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, seed = key
        arrays, sample = self.read(index)
        return {**sample, **self.transform(seed, **arrays)}


class EvaluationSet(Photographs):
    """Whole photographs, by an `EvaluationTransform`, with masks at the photograph's own size."""

    def __getitem__(self, index: int) -> Sample:
        arrays, sample = self.read(index)
        sample |= {"image": self.transform(arrays["image"]), "size": torch.tensor(arrays["image"].shape[:2])}
        if self.masks:
            sample["mask"] = torch.from_numpy(arrays["mask"]).long()
        return sample


class SeededSampler(DistributedSampler[Any]):
    """Shuffles by seed and epoch, and hands out (index, seed of the sample); can start in the middle of an epoch."""

    def __init__(self, dataset: Dataset[Sample], seed: int, ranks: int = 1, rank: int = 0) -> None:
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
        super().__init__(dataset, num_replicas=ranks, rank=rank, shuffle=False)
        self.total_size = len(dataset)  # type: ignore[arg-type]
        self.num_samples = len(range(rank, self.total_size, ranks))


class ResumableLoader(DataLoader[Sample]):
    """A training loader that Lightning can take up in the middle of an epoch; its sampler is a `SeededSampler`."""

    _done = _start = 0  # batches of the present epoch that were handed out, and of the next one that are left out

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._done, self._start = self._start, 0
        self.sampler.skip = self._done * (self.batch_size or 1)  # type: ignore[attr-defined]
        for batch in super().__iter__():
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the present epoch have been handed out."""
        return {"batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next epoch start after the batches that ``state`` counts."""
        self._start = state["batches"] % max(len(self), 1)
