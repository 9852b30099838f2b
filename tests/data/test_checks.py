"""Masks that are looked at before anything is trained."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.photos import Photo, check_masks, read_mask
from tag2mask.errors import InputError, MissingError
from tag2mask.io.images import read_image
from tag2mask.io.labels import write_label
from tests.folders import photograph

ORIENTATION = 274


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Three photographs with masks, the last turned by its EXIF orientation."""
    found = []
    for name in "abc":
        path, mask = photograph(tmp_path / f"{name}.jpg"), tmp_path / "masks" / f"{name}.png"
        write_label(mask, np.array([[0, 2, 255]]).repeat(40, 0).repeat(20, 1)[:, :50])
        found.append(Photo(name, path, None, mask))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.open(found[2].image).save(found[2].image, exif=exif)
    write_label(tmp_path / "masks" / "c.png", np.zeros((50, 40)))
    return found


def test_whole_masks_pass(photos: list[Photo], capsys: pytest.CaptureFixture[str]) -> None:
    check_masks(photos, 2)
    check_masks([], 2)
    assert "3 of 3 masks checked" in capsys.readouterr().err


def absent(photo: Photo) -> None:
    assert photo.mask
    photo.mask.unlink()


def cut_short(photo: Photo) -> None:
    assert photo.mask
    photo.mask.write_bytes(photo.mask.read_bytes()[:60])


def small(photo: Photo) -> None:
    assert photo.mask
    write_label(photo.mask, np.zeros((4, 5)))


def high(photo: Photo) -> None:
    assert photo.mask
    write_label(photo.mask, np.full((40, 50), 254))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (absent, "b.png does not exist"),
        (cut_short, "b.png cannot be read as a mask"),
        (small, "b.png is 5 x 4 pixels and its photograph 50 x 40; they must be of one size"),
        (high, r"b.png holds the value 254; expected 0 to 2 \(2 classes\) or 255"),
    ],
)
def test_a_bad_mask_is_named(spoil: object, told: str, photos: list[Photo]) -> None:
    assert callable(spoil)
    spoil(photos[1])
    with pytest.raises(InputError, match=told):
        check_masks(photos, 2)


def test_of_several_the_count_and_the_first_are_told(photos: list[Photo], tmp_path: Path) -> None:
    photos.append(Photo("d", tmp_path / "a.jpg", None))
    high(photos[1])
    with pytest.raises(InputError, match=r"2 of 4 masks cannot be used, the first: .*b\.png holds the value 254"):
        check_masks(photos, 2)
    with pytest.raises(MissingError, match="1 of 2 masks cannot be used, the first: d has no mask"):
        check_masks(photos[2:], 2)


def test_a_photograph_that_is_turned_by_its_exif_tag_says_so(photos: list[Photo]) -> None:
    assert photos[2].mask
    write_label(photos[2].mask, np.zeros((40, 50)))
    told = r"50 x 40 pixels and its photograph 40 x 50; the photograph is turned by its EXIF orientation"
    with pytest.raises(InputError, match=told):
        check_masks(photos, 2)
    with pytest.raises(InputError, match=told):
        read_mask(photos[2], read_image(photos[2].image).shape[:2], 2)
    write_label(photos[0].mask or Path(), np.zeros((50, 40)))  # this one has no such tag
    with pytest.raises(InputError, match="must be of one size"):
        check_masks(photos[:1], 2)
