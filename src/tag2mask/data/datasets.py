"""Photographs as samples, the same for every data set, and their order: seeded, shared out, resumed in an epoch.

A sample is a dict: ``image`` (3, H, W) float32, normalised; ``label`` (C,) float32, 1 where the class is tagged, all -1
without tags; ``name``. Evaluation adds ``size`` (2,) int64, height and width of the photograph. With masks also
``mask`` int64: (height, width) for evaluation, (H, W) and cropped like the image for training. With soft labels also
``cam`` (C, H / 4, W / 4) and, where edges stopped the walk, ``edge`` (H / 4, W / 4): float16, in [0, 1].
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tag2mask.data.photos import Photo, read_mask
from tag2mask.errors import MismatchError
from tag2mask.io.cams import read_cam
from tag2mask.io.images import read_grey, read_image

Sample = dict[str, Any]
SOFT_STRIDE = 4  # pixels to one position of a soft label, as of an edge map


class Photographs(Dataset[Sample]):
    """Photographs of a data set; with ``masks`` also their masks, such as pseudo-labels, else none is opened.

    A photograph that has a CAM (`Photo.cam`) is read with the CAM, and with its edge map.
    """

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
        sample: Sample = {"label": torch.from_numpy(photo.label(self.num_classes)), "name": photo.name}
        if photo.cam is not None:
            arrays["soft"], sample["classes"] = read_soft(photo, arrays["image"].shape[:2], self.num_classes)
        return arrays, sample


def read_soft(photo: Photo, size: tuple[int, ...], num_classes: int) -> tuple[np.ndarray, list[int]]:
    """Read the CAMs of a photograph and its edge map, at the size of the photograph, (height, width, K + 1) float32.

    The edge map, the last, is 0 throughout where the photograph has none. The mask values of the K classes come beside.
    """
    assert photo.cam is not None
    cam, classes, own = read_cam(photo.cam)
    highest = max(classes.tolist(), default=0)
    if own != tuple(size) or highest > num_classes:
        raise MismatchError(
            f"{photo.cam} is of a photograph of {own[1]} x {own[0]} pixels and holds classes up to {highest}; expected "
            f"{size[1]} x {size[0]} and at most {num_classes}: make the labels again with `tag2mask labels --overwrite`"
        )
    edge = np.zeros((1, 1), np.float32) if photo.edge is None else read_grey(photo.edge)
    maps = [*cam.float(), torch.from_numpy(edge)]
    scaled = [F.interpolate(each[None, None], own, mode="bilinear", align_corners=False)[0, 0] for each in maps]
    return torch.stack(scaled, 2).numpy(), classes.tolist()


class TrainingSet(Photographs):
    """Crops, by a `TrainingTransform`. Of a key (index, seed) the seed settles the crop: a run can be repeated."""

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, seed = key
        arrays, sample = self.read(index)
        sample |= self.transform(seed, **arrays)
        if "soft" in sample:
            *cams, edge = F.avg_pool2d(sample.pop("soft")[None], SOFT_STRIDE)[0].half()
            sample["cam"] = edge.new_zeros(self.num_classes, *edge.shape)
            if self.photos[index].edge is not None:
                sample["edge"] = edge
            for value, cam in zip(sample.pop("classes"), cams, strict=True):
                sample["cam"][value - 1] = cam
        return sample


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
