import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tag2mask.data.datamodules import FolderDataModule
from tag2mask.errors import InputError
from tag2mask.io.cams import CAMs, write_cam
from tag2mask.utils.processes import cores
from tests.folders import TINY


def module(root: Path, **settings: Any) -> FolderDataModule:
    """A data module of a folder, set up for training."""
    data = FolderDataModule(str(root), num_workers=0, preprocessing=TINY, **settings)
    data.setup("fit")
    return data


def test_no_more_processes_load_images_than_there_are_cores(sample: Path) -> None:
    assert FolderDataModule(str(sample), num_workers=1000).num_workers == cores()
    assert FolderDataModule(str(sample), num_workers=0).num_workers == 0


def test_subset_draws_the_same_share_again_and_keeps_the_order(sample: Path) -> None:
    everything = [photo.name for photo in module(sample).train_photos]
    one, other = ([photo.name for photo in module(sample, subset=0.5).train_photos] for _ in range(2))
    assert one == other == sorted(one)
    assert len(one) == len(everything) / 2
    assert set(one) < set(everything)


def test_every_seed_draws_the_same_subset(sample: Path) -> None:
    """The photographs are part of a comparison, not of its spread; and one stage's draw must be the next one's."""
    draws = {tuple(photo.name for photo in module(sample, subset=0.5, seed=seed).train_photos) for seed in range(4)}
    assert len(draws) == 1


def test_another_seed_is_another_order_and_other_crops(sample: Path) -> None:
    loaders = [module(sample, seed=seed).train_dataloader() for seed in (0, 0, 1)]
    first, again, other = ([key for batch in loader.batch_sampler for key in batch] for loader in loaders)
    assert first == again
    assert [index for index, _ in first] != [index for index, _ in other]
    assert not {seed for _, seed in first} & {seed for _, seed in other}


def test_the_photographs_outside_the_subset_need_no_label_and_are_not_predicted(sample: Path, tmp_path: Path) -> None:
    drawn = [photo.name for photo in module(sample, subset=0.25).train_photos]
    for name in drawn:
        (tmp_path / f"{name}.png").touch()
    data = module(sample, subset=0.25, labels=str(tmp_path))
    data.setup("predict")
    assert [photo.name for photo in data.train_photos] == [photo.name for photo in data.predict_photos] == drawn
    data.setup("validate")
    assert len(data.val_photos) == len(data.photos("val"))
    (tmp_path / f"{drawn[1]}.png").unlink()
    with pytest.raises(InputError, match=f"1 of {len(drawn)} photographs .* have no label PNG in .* {drawn[1]};"):
        module(sample, subset=0.25, labels=str(tmp_path))


def test_soft_labels_are_read_from_beside_the_labels_or_missed(sample: Path, tmp_path: Path) -> None:
    names = [photo.name for photo in module(sample, subset=0.25).train_photos]
    (tmp_path / "soft").mkdir()
    (tmp_path / "edges").mkdir()
    for name in names:
        for file in (f"{name}.png", f"soft/{name}.npz", f"edges/{name}.png"):
            (tmp_path / file).touch()
    photo = module(sample, subset=0.25, labels=str(tmp_path), soft=True).train_photos[0]
    assert (photo.cam, photo.edge) == (tmp_path / f"soft/{names[0]}.npz", tmp_path / f"edges/{names[0]}.png")
    assert module(sample, subset=0.25, labels=str(tmp_path)).train_photos[0].cam is None
    for kind in ("edges/{}.png", "soft/{}.npz"):
        (tmp_path / kind.format(names[1])).unlink()
        with pytest.raises(InputError, match=f"have no CAM or edge map beside .*, the first {names[1]}; .*--soft true"):
            module(sample, subset=0.25, labels=str(tmp_path), soft=True)


def test_a_run_is_of_the_soft_labels_that_it_learns_from(sample: Path, tmp_path: Path) -> None:
    names = [photo.name for photo in module(sample, subset=0.25).train_photos]
    for folder, kind in (("", "png"), ("soft", "npz"), ("edges", "png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / folder / f"{name}.{kind}").touch()
    data = module(sample, subset=0.25, labels=str(tmp_path), soft=True)
    before = data.inputs()
    (tmp_path / "edges" / f"{names[0]}.png").write_bytes(b"another")
    write_cam(tmp_path / "soft" / f"{names[1]}.npz", CAMs(torch.zeros(1, 1, 1), torch.tensor([1]), (9, 9)))
    assert [name for name in names if data.inputs()[name] != before[name]] == names[:2]


def test_soft_labels_without_labels_are_refused(sample: Path) -> None:
    with pytest.raises(InputError, match="soft is true and labels is null"):
        module(sample, soft=True)


@pytest.mark.parametrize("subset", [0.0, -1.0, 1.5])
def test_a_subset_that_is_no_share_is_refused(subset: float, sample: Path) -> None:
    with pytest.raises(InputError, match=f"subset is {subset}"):
        FolderDataModule(str(sample), subset=subset)


def test_training_on_an_untagged_photograph_is_refused(own: Path) -> None:
    (own / "train.txt").write_text("a\nplain\n")
    with pytest.raises(InputError, match="1 of 2 photographs of the split 'train' have no tags, the first plain"):
        module(own)


@pytest.mark.parametrize(
    ("stage", "split"), [("fit", "train"), ("validate", "val"), ("test", "val"), ("predict", "all")]
)
def test_an_empty_split_is_named(stage: str, split: str, own: Path) -> None:
    (own / f"{split}.txt").write_text("")
    data = FolderDataModule(str(own), predict_split="all")
    with pytest.raises(InputError, match=f"the split '{split}' of {own} is empty"):
        data.setup(stage)


def test_photographs_without_masks_train_without_validation(own: Path) -> None:
    (own / "masks" / "a.png").unlink()
    data = FolderDataModule(str(own))
    data.setup("fit")
    assert data.val_photos == []
    assert data.val_dataloader() == []
    with pytest.raises(InputError, match=f"the split 'val' of {own} is empty"):
        data.setup("validate")


@pytest.mark.parametrize(("batch_size", "sizes"), [(3, [3, 3]), (8, [8]), (20, [8])])
def test_the_last_smaller_batch_is_left_out_unless_it_is_the_only_one(
    batch_size: int, sizes: list[int], sample: Path
) -> None:
    batches = module(sample, batch_size=batch_size).train_dataloader()
    assert [len(batch["name"]) for batch in batches] == sizes


def test_validation_sees_every_photograph_once_and_whole(sample: Path) -> None:
    batches = list(module(sample).val_dataloader())
    assert [batch["name"][0] for batch in batches] == (sample / "val.txt").read_text().split()
    assert all(batch["mask"].shape[1:] == batch["image"].shape[2:] for batch in batches)


def test_prediction_leaves_out_what_is_written_already(sample: Path) -> None:
    data = module(sample)
    data.setup("predict")
    names = (sample / "train.txt").read_text().split()
    writer = SimpleNamespace(photos_done=lambda trainer, pl_module: frozenset(names[1:]))
    other = SimpleNamespace()  # a callback that writes nothing
    data.trainer = SimpleNamespace(callbacks=[other, writer], lightning_module=None, world_size=1, global_rank=0)
    assert [batch["name"] for batch in data.predict_dataloader()] == [[names[0]]]


def test_prediction_repeats_what_one_of_two_writers_misses(sample: Path) -> None:
    data = module(sample)
    data.setup("predict")
    names = (sample / "train.txt").read_text().split()
    writers = [
        SimpleNamespace(photos_done=lambda trainer, pl_module, done=frozenset(done): done)
        for done in (names[1:], names[2:])
    ]
    data.trainer = SimpleNamespace(callbacks=writers, lightning_module=None, world_size=1, global_rank=0)
    assert [batch["name"] for batch in data.predict_dataloader()] == [[names[0]], [names[1]]]


def test_labels_with_their_ending_in_capitals_are_trained_on(sample: Path, tmp_path: Path) -> None:
    labels = Path(shutil.copytree(sample / "masks", tmp_path / "labels"))
    for path in labels.iterdir():
        path.rename(path.with_suffix(".PNG"))
    batch = next(iter(module(sample, batch_size=4, labels=str(labels)).train_dataloader()))
    assert batch["mask"].shape[0] == 4
