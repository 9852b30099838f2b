"""The order of the photographs: seeded, shared out among processes, and resumed in the middle of an epoch."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tag2mask.data.datasets import Sample


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
