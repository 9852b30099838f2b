"""CAM files give back what was written; damaged files and impossible values are refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.errors import DamagedError, MissingError
from tag2mask.io.cams import CAMs, read_cam, write_cam
from tests.spoil import SPOILERS, missing


def cam(classes: int = 2) -> CAMs:
    """CAM of a photograph of 20 x 28 pixels."""
    maps = np.random.default_rng(classes).random((classes, 5, 7), dtype=np.float32)
    return CAMs(torch.from_numpy(maps), torch.arange(1, classes + 1) * 3, (20, 28))


@pytest.fixture
def cam_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    write_cam(path, cam())
    return path


@pytest.mark.parametrize("classes", [0, 1, 3])
def test_a_cam_file_gives_back_what_was_written(classes: int, tmp_path: Path) -> None:
    written, path = cam(classes), tmp_path / "sub" / "a.npz"
    write_cam(path, written)
    found = read_cam(path)
    np.testing.assert_allclose(found.cam, written.cam, atol=5e-4)
    assert found.classes.tolist() == written.classes.tolist()
    assert found.size == (20, 28)


def test_a_cam_file_is_small_and_typed(cam_file: Path) -> None:
    with np.load(cam_file) as data:
        assert [data[key].dtype for key in ("cam", "classes", "size")] == [np.float16, np.int16, np.int32]
    found = read_cam(cam_file)
    assert found.cam.min() >= 0
    assert found.cam.max() <= 1


def test_a_cam_file_needs_no_pickle(cam_file: Path) -> None:
    with np.load(cam_file, allow_pickle=False) as data:
        assert set(data.files) == {"cam", "classes", "size"}


def pickled(path: Path) -> None:
    np.savez(path, cam=np.array([{"a": 1}], object), classes=np.zeros(1), size=np.zeros(2))


def without_size(path: Path) -> None:
    np.savez(path, cam=np.zeros((1, 2, 2)), classes=np.ones(1))


def of_other_shape(path: Path) -> None:
    np.savez(path, cam=np.zeros((2, 3, 3)), classes=np.zeros(3), size=np.zeros(2))


def without_classes_axis(path: Path) -> None:
    np.savez(path, cam=np.zeros((3, 3)), classes=np.zeros(3), size=np.zeros(2))


SPOILT = [pickled, without_size, of_other_shape, without_classes_axis, *SPOILERS]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_a_spoilt_cam_file_is_named(spoil: Callable[[Path], None], cam_file: Path) -> None:
    spoil(cam_file)
    with pytest.raises(MissingError if spoil is missing else DamagedError, match=r"a\.npz"):
        read_cam(cam_file)


@pytest.mark.parametrize(
    ("spoilt", "fault"),
    [
        ({"cam": np.full((2, 5, 7), np.nan)}, r"values from nan to nan, expected numbers in \[0, 1\]"),
        ({"cam": np.full((2, 5, 7), np.inf)}, "values from 0.0 to inf"),
        ({"cam": np.full((2, 5, 7), -0.1)}, "values from -0.1"),
        ({"cam": np.full((2, 5, 7), 1.01)}, "values from 0.0 to 1.01"),
        ({"cam": np.ones((2, 0, 7))}, r"maps \(0, 7\)"),
        ({"classes": np.array([1, 1])}, r"classes \[1, 1\], expected mask values 1 to 254, each once"),
        ({"classes": np.array([0, 1])}, r"classes \[0, 1\]"),
        ({"classes": np.array([1, 300])}, r"classes \[1, 300\]"),
        ({"classes": np.array([1.0, 2.0])}, "classes of float64"),
        ({"size": np.array([0, 28])}, r"size \[0, 28\]"),
    ],
)
def test_a_cam_file_of_impossible_values_is_named(spoilt: dict[str, np.ndarray], fault: str, cam_file: Path) -> None:
    np.savez(cam_file, **({"cam": cam().cam.numpy(), "classes": np.array([1, 2]), "size": np.array([20, 28])} | spoilt))
    with pytest.raises(DamagedError, match=rf"a\.npz .*{fault}"):
        read_cam(cam_file)


def test_a_single_array_in_place_of_a_cam_file_is_named(cam_file: Path) -> None:
    with open(cam_file, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DamagedError, match=r"a\.npz"):
        read_cam(cam_file)


def test_a_cam_file_with_a_flipped_byte_is_named_or_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    maps = np.random.default_rng(0).random((2, 30, 40))
    write_cam(path, CAMs(torch.as_tensor(maps), torch.tensor([1, 2]), (120, 160)))
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            read_cam(path)
        except DamagedError as error:
            assert "a.npz" in str(error)  # noqa: PT017
