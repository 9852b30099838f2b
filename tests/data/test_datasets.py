import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tag2mask.classes import IGNORE
from tag2mask.data.datasets import (
    EvaluationSet,
    ResumableLoader,
    SeededSampler,
    ShardSampler,
    TrainingSet,
    read_soft,
    sample_seed,
)
from tag2mask.data.photos import Photo, read_mask
from tag2mask.data.transforms import EvaluationTransform, Preprocessing, TrainingTransform
from tag2mask.errors import InputError
from tag2mask.io.cams import CAMs, write_cam
from tag2mask.io.images import write_picture
from tag2mask.io.labels import write_label
from tests.folders import TINY, photograph

# Samples


def photos(root: Path, count: int) -> list[Photo]:
    """Photographs tagged in turn with one of two classes; their masks do not exist."""
    return [
        Photo(f"p{i}", photograph(root / f"p{i}.png", seed=i), (1 + i % 2,), root / f"none{i}.png")
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("tags", "label"), [((), [0, 0, 0]), ((2,), [0, 1, 0]), ((1, 3), [1, 0, 1]), (None, [-1, -1, -1])]
)
def test_a_label_is_the_tags_as_zeros_and_ones(tags: tuple[int, ...] | None, label: list[int]) -> None:
    assert Photo("a", Path("a.jpg"), tags).label(3).tolist() == label


def test_training_never_opens_a_mask(tmp_path: Path) -> None:
    sample = TrainingSet(photos(tmp_path, 1), 2, TrainingTransform(TINY))[0, 7]
    assert set(sample) == {"image", "label", "name"}
    assert sample["image"].shape == (3, 32, 32)
    assert sample["label"].tolist() == [1, 0]


def soft_photo(root: Path) -> tuple[Photo, torch.Tensor]:
    """A photograph of 32 x 48 pixels with the CAMs of classes 3 and 1, and an edge map that is 1 in its left half."""
    cam = torch.rand(2, 8, 12).half()
    write_cam(root / "a.npz", CAMs(cam, torch.tensor([3, 1]), (32, 48)))
    write_picture(root / "e.png", np.repeat(np.array([[255] * 6 + [0] * 6], np.uint8), 8, 0))
    write_label(root / "m.png", np.zeros((32, 48), np.uint8))
    image = photograph(root / "p.png", (48, 32))
    return Photo("a", image, (1, 3), root / "m.png", root / "a.npz", root / "e.png"), cam.float()


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_crop_has_the_cams_and_the_edges_of_its_place(tmp_path: Path, flip: float) -> None:
    photo, cam = soft_photo(tmp_path)
    how = Preprocessing(long_side=(48, 48), crop_size=64, flip=flip)  # all of the photograph, padded
    data = TrainingSet([photo], 3, TrainingTransform(how), masks=True)
    for seed in range(4):
        sample = data[0, seed]
        inside = (sample["mask"] != IGNORE).nonzero()
        top, left = inside.min(0).values.tolist()
        padded = torch.zeros(3, 64, 64)
        maps = F.interpolate(torch.stack([cam[1], torch.zeros(8, 12), cam[0]])[None], (32, 48), mode="bilinear")[0]
        padded[:, top : top + 32, left : left + 48] = maps.flip(-1) if flip else maps
        torch.testing.assert_close(sample["cam"].float(), F.avg_pool2d(padded, 4), rtol=0, atol=0.002)
        assert sample["edge"].shape == (16, 16)
        columns = sample["edge"].float().sum(0)
        middle = (left + 24) // 4
        assert (columns[:middle].sum() > 36) == (not flip)
        assert (columns[middle + 1 :].sum() > 36) == bool(flip)


def test_a_photograph_without_edges_has_none(tmp_path: Path) -> None:
    photo = replace(soft_photo(tmp_path)[0], edge=None)
    assert "edge" not in TrainingSet([photo], 3, TrainingTransform(TINY), masks=True)[0, 0]


def test_soft_labels_of_another_photograph_are_refused(tmp_path: Path) -> None:
    photo = soft_photo(tmp_path)[0]
    with pytest.raises(InputError, match="holds classes up to 3; expected 48 x 32 and at most 2"):
        read_soft(photo, (32, 48), 2)
    with pytest.raises(InputError, match="is of a photograph of 48 x 32 pixels"):
        read_soft(photo, (32, 40), 3)


def test_evaluation_gives_the_whole_photograph_its_size_and_its_mask(tmp_path: Path) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[3, 4], mask[5, 6] = 2, 255
    write_label(tmp_path / "m.png", mask)
    photo = Photo("a", photograph(tmp_path / "a.png"), (2,), tmp_path / "m.png")
    sample = EvaluationSet([photo], 2, EvaluationTransform(TINY), masks=True)[0]
    assert sample["image"].shape == (3, 40, 50)
    assert sample["size"].tolist() == [40, 50]
    assert sample["mask"].dtype == torch.int64
    np.testing.assert_array_equal(sample["mask"].numpy(), mask)


def test_evaluation_without_masks_opens_none(tmp_path: Path) -> None:
    sample = EvaluationSet(photos(tmp_path, 1), 2, EvaluationTransform(TINY), masks=False)[0]
    assert set(sample) == {"image", "label", "name", "size"}


def test_evaluation_keeps_the_photographs_size_where_the_image_is_shrunk(tmp_path: Path) -> None:
    how = EvaluationTransform(Preprocessing(max_side=25))
    sample = EvaluationSet(photos(tmp_path, 1), 2, how, masks=False)[0]
    assert sample["image"].shape == (3, 20, 25)
    assert sample["size"].tolist() == [40, 50]


def test_a_photograph_without_mask_cannot_be_scored() -> None:
    with pytest.raises(InputError, match="a has no mask"):
        read_mask(Photo("a", Path("a.jpg"), ()), (4, 5), 2)


def test_a_mask_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    write_label(tmp_path / "m.png", np.zeros((4, 5)))
    with pytest.raises(InputError, match=r"m\.png is 5 x 4 pixels and its photograph 7 x 6"):
        read_mask(Photo("a", Path("a.jpg"), (), tmp_path / "m.png"), (6, 7), 2)


def test_a_mask_with_a_value_beyond_the_classes_is_named(tmp_path: Path) -> None:
    write_label(tmp_path / "m.png", np.array([[0, 2, 3, 255]]))
    photo = Photo("a", Path("a.jpg"), (), tmp_path / "m.png")
    with pytest.raises(InputError, match=r"m\.png holds the value 3; expected 0 to 2"):
        read_mask(photo, (1, 4), 2)
    assert read_mask(photo, (1, 4), 3).tolist() == [[0, 2, 3, 255]]


# Samplers and loaders


class Numbers(torch.utils.data.Dataset[int]):
    """The numbers below ``count``."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


def drawn(sampler: SeededSampler, epoch: int) -> list[tuple[int, int]]:
    """What the sampler hands out in an epoch."""
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_same_seed_and_epoch_give_the_same_order_and_crops() -> None:
    one, other = SeededSampler(Numbers(10), 3), SeededSampler(Numbers(10), 3)
    drawn(one, 0)
    assert drawn(one, 2) == drawn(other, 2)


def test_every_image_is_drawn_once_an_epoch() -> None:
    assert sorted(index for index, _ in drawn(SeededSampler(Numbers(10), 3), 1)) == list(range(10))


def test_another_epoch_or_seed_gives_another_order_and_other_crops() -> None:
    orders = [drawn(SeededSampler(Numbers(10), seed), epoch) for seed, epoch in ((3, 0), (3, 1), (5, 0))]
    for one, other in itertools.combinations(orders, 2):
        assert [index for index, _ in one] != [index for index, _ in other]
        assert not {seed for _, seed in one} & {seed for _, seed in other}


def test_runs_of_neighbouring_seeds_do_not_share_their_orders() -> None:
    one, other = drawn(SeededSampler(Numbers(10), 3), 1), drawn(SeededSampler(Numbers(10), 4), 0)
    assert [index for index, _ in one] != [index for index, _ in other]


def test_the_shares_of_ranks_are_disjoint_and_whole() -> None:
    shares = [drawn(SeededSampler(Numbers(12), 3, 3, rank), 1) for rank in range(3)]
    assert [len(share) for share in shares] == [4, 4, 4]
    assert sorted(index for share in shares for index, _ in share) == list(range(12))


def test_the_crop_of_an_image_does_not_depend_on_its_rank() -> None:
    alone = dict(drawn(SeededSampler(Numbers(12), 3), 1))
    for rank in range(3):
        for index, seed in drawn(SeededSampler(Numbers(12), 3, 3, rank), 1):
            assert alone[index] == seed


def test_sample_seeds_are_of_32_bits_and_differ() -> None:
    seeds = [sample_seed(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(40)]
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert len(set(seeds)) == len(seeds)


def test_sample_seeds_are_the_same_on_every_machine() -> None:
    assert sample_seed(0, 0, 0) == int.from_bytes(bytes.fromhex("1d084ca1"), "little")


@pytest.mark.parametrize("count", [10, 2, 0])
def test_shards_hold_every_image_once(count: int) -> None:
    shards = [ShardSampler(Numbers(count), 3, rank) for rank in range(3)]
    assert sorted(itertools.chain(*shards)) == list(range(count))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]


def loader(data: Sequence[Photo], workers: int = 0) -> ResumableLoader:
    """Batches of two, the odd one left out."""
    dataset = TrainingSet(data, 2, TrainingTransform(TINY))
    sampler = SeededSampler(dataset, seed=1)
    return ResumableLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers, drop_last=True)


def epoch_of(batches: ResumableLoader, epoch: int) -> list[Any]:
    """The batches of an epoch."""
    batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(batches)


def same(one: list[Any], other: list[Any]) -> bool:
    """Say whether batches are the same, to the bit."""
    return [batch["name"] for batch in one] == [batch["name"] for batch in other] and all(
        torch.equal(a["image"], b["image"]) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_loader_taken_up_gives_exactly_the_batches_that_remain(done: int, tmp_path: Path) -> None:
    data = photos(tmp_path, 7)
    whole = epoch_of(loader(data), 2)
    broken_off, taken_up = loader(data), loader(data)
    broken_off.sampler.set_epoch(2)  # type: ignore[attr-defined]
    running = iter(broken_off)
    for _ in range(done):
        next(running)
    taken_up.load_state_dict(broken_off.state_dict())
    assert len(whole) == 3
    assert same(epoch_of(taken_up, 2), whole[done:])


def test_the_epoch_after_one_taken_up_is_whole(tmp_path: Path) -> None:
    data = photos(tmp_path, 7)
    taken_up = loader(data)
    taken_up.load_state_dict({"batches": 2})
    epoch_of(taken_up, 0)
    assert same(epoch_of(taken_up, 1), epoch_of(loader(data), 1))


def test_a_loader_taken_up_counts_on(tmp_path: Path) -> None:
    taken_up = loader(photos(tmp_path, 7))
    taken_up.load_state_dict({"batches": 1})
    next(iter(taken_up))
    assert taken_up.state_dict() == {"batches": 2}


def test_a_loader_saved_at_the_end_of_an_epoch_begins_the_next(tmp_path: Path) -> None:
    data = photos(tmp_path, 7)
    ended, taken_up = loader(data), loader(data)
    epoch_of(ended, 0)
    taken_up.load_state_dict(ended.state_dict())
    assert same(epoch_of(taken_up, 1), epoch_of(loader(data), 1))


def test_crops_do_not_depend_on_worker_processes(tmp_path: Path) -> None:
    data = photos(tmp_path, 6)
    assert same(epoch_of(loader(data, workers=2), 1), epoch_of(loader(data), 1))
