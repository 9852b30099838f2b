import os
from pathlib import Path

import numpy as np
import pytest

from tag2mask.data import folder
from tag2mask.data.sample import CLASSES, draw_scene, write_sample
from tag2mask.errors import InputError
from tag2mask.io.labels import read_label


def contents(root: Path) -> dict[str, bytes]:
    """Every file of the sample set but the record, which holds the time."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != "run.json")
    return {os.fspath(path.relative_to(root)): path.read_bytes() for path in paths}


def test_the_same_seed_draws_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_sample(tmp_path / name, count=2, validation=1, seed=5)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_draws_other_scenes() -> None:
    one, other = (np.asarray(draw_scene(np.random.default_rng([seed, 0]))[0]) for seed in (0, 1))
    assert one.shape != other.shape or (one != other).any()


def test_the_tags_of_the_sample_set_are_the_classes_of_its_masks(sample: Path) -> None:
    found = folder.folder_photos(sample, "all")
    assert len(found) == 12
    for photo in found:
        values = set(np.unique(read_label(photo.mask or Path())).tolist())
        assert values == {0, *(photo.tags or ())}


def test_the_sample_set_has_its_classes_splits_and_two_class_scenes(sample: Path) -> None:
    assert folder.class_names(sample) == CLASSES
    train, val = ({photo.name for photo in folder.folder_photos(sample, split)} for split in ("train", "val"))
    assert (len(train), len(val), len(train & val)) == (8, 4, 0)
    assert {len(photo.tags or ()) for photo in folder.folder_photos(sample, "all")} == {1, 2}


def test_scenes_hold_every_class() -> None:
    masks = [draw_scene(np.random.default_rng([0, number]))[1] for number in range(12)]
    assert set(np.unique(np.concatenate([mask.ravel() for mask in masks]))) == set(range(len(CLASSES) + 1))


def test_a_sample_set_that_stands_is_left_alone(tmp_path: Path) -> None:
    assert write_sample(tmp_path, count=2, validation=1) is True
    (tmp_path / "images" / "scene_0000.jpg").write_bytes(b"mine")
    assert write_sample(tmp_path, count=2, validation=1) is False
    assert (tmp_path / "images" / "scene_0000.jpg").read_bytes() == b"mine"


def test_another_sample_set_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    write_sample(tmp_path, count=2, validation=1)
    with pytest.raises(InputError, match="count: 2, now 3.*--overwrite"):
        write_sample(tmp_path, count=3, validation=1)
    assert write_sample(tmp_path, count=3, validation=1, overwrite=True) is True
    assert len(folder.folder_photos(tmp_path, "all")) == 3


def test_a_replaced_sample_set_leaves_no_scene_of_the_one_before(tmp_path: Path) -> None:
    write_sample(tmp_path, count=3, validation=1)
    write_sample(tmp_path, count=2, validation=1, overwrite=True)
    assert len(folder.folder_photos(tmp_path, "all")) == 2


def test_a_replacement_that_was_killed_is_not_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample(tmp_path, count=3, validation=1)

    def killed(*_: object) -> None:
        (tmp_path / "images" / ".scene_0001.jpg.17.part").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tag2mask.data.sample.labels.write_label", killed)
        with pytest.raises(KeyboardInterrupt):
            write_sample(tmp_path, count=3, validation=1, seed=1, overwrite=True)
    assert write_sample(tmp_path, count=3, validation=1)
    assert len(os.listdir(tmp_path / "images")) == len(os.listdir(tmp_path / "masks")) == 3
