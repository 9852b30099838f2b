"""Photographs of any mode are read as RGB, turned upright; what cannot be read is named."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tag2mask.errors import DamagedError, MissingError, SpaceError
from tag2mask.io.images import is_deep, read_image, read_size, sizes_hint, write_picture
from tag2mask.io.labels import read_label, write_label
from tests.spoil import SPOILERS, missing

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 18, 3), dtype=np.uint8)


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("read", [read_label, read_image], ids=lambda read: read.__name__)
def test_a_spoilt_picture_is_named(
    read: Callable[[Path], np.ndarray], spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    write_label(path, RNG.integers(0, 256, (40, 40)))
    spoil(path)
    with pytest.raises(MissingError if spoil is missing else DamagedError, match=r"a\.png"):
        read(path)


def test_a_jpeg_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DamagedError, match=r"a\.jpg cannot be read as a photograph"):
        read_image(path)


@pytest.mark.parametrize(("ending", "mode"), [("jpg", "L"), ("png", "LA"), ("png", "P"), ("png", "1")])
def test_a_photograph_without_colours_is_read_as_rgb(ending: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(PIXELS).convert("L").convert(mode).save(path)
    found = read_image(path)
    assert found.shape == (12, 18, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK"])
def test_a_plain_photograph_keeps_its_colour(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (9, 7), (200, 100, 50)).convert(mode).save(path)
    found = read_image(path)
    assert found.shape == (7, 9, 3)
    assert found.reshape(-1, 3).tolist() == [[200, 100, 50]] * 63


def test_a_cmyk_jpeg_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 100, 50)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], [200, 100, 50], atol=6)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_photograph_of_16_bits_keeps_its_greys(ending: str, tmp_path: Path) -> None:
    greys = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(greys).save(tmp_path / f"a.{ending}")
    found = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_allclose(found[..., 0], np.arange(256).reshape(16, 16), atol=1)


@pytest.mark.parametrize("top", [1.0, 255.0, 4095.0, 65535.0])
def test_a_float_photograph_keeps_its_greys(top: float, tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, top, 256, dtype=np.float32).reshape(16, 16)).save(tmp_path / "a.tif")
    found = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(found[..., 0], np.arange(256).reshape(16, 16), atol=1)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_photograph_of_12_bits_in_16_keeps_its_greys(ending: str, tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)).save(tmp_path / f"a.{ending}")
    found = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_allclose(found[..., 0], np.arange(256).reshape(16, 16), atol=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_float_photograph_of_impossible_values_is_named(value: float, tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.5], [1, value]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DamagedError, match=r"a\.tif cannot be read as a photograph \(grey values from"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colours_of_12_bits_in_16_are_refused_and_of_16_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    cv2.imwrite(str(path), np.full((4, 5, 3), 4095, np.uint16))
    with pytest.raises(DamagedError, match=rf"a\.{ending} cannot be read .*colours of 12 bits in 16"):
        read_image(path)
    cv2.imwrite(str(path), np.full((4, 5, 3), 65535, np.uint16))
    assert read_image(path).min() == 255


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1)])
def test_a_photograph_one_pixel_wide_is_read(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (size[1], size[0], 3)


def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was held on its side
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_the_size_of_a_photograph_is_that_of_its_turned_pixels(ending: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (7, 5)).save(tmp_path / f"a.{ending}", exif=exif)
    size = read_size(tmp_path / f"a.{ending}")
    assert size == read_image(tmp_path / f"a.{ending}").shape[:2]
    assert ("EXIF" in sizes_hint(tmp_path / f"a.{ending}", size, size[::-1])) == (orientation > 4)


def test_sizes_that_differ_otherwise_have_nothing_to_do_with_exif() -> None:
    assert "EXIF" not in sizes_hint(None, (4, 5), (5, 5))
    assert "EXIF" in sizes_hint(None, (4, 5), (5, 4))


@pytest.mark.parametrize(("mode", "deep"), [("RGB", False), ("L", False), ("I;16", True), ("F", True)])
def test_greys_of_more_than_8_bits_are_told_from_others(mode: str, deep: bool, tmp_path: Path) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    assert is_deep(tmp_path / "a.tif") is deep
    assert is_deep(tmp_path / "none.tif") is False


@pytest.mark.parametrize("read", [read_image, read_size, read_label])
def test_a_picture_of_too_many_pixels_names_the_limit(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_label(tmp_path / "a.png", np.zeros((50, 60)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    with pytest.raises(SpaceError, match="a.png has more than 2,000 pixels, the limit; shrink it"):
        read(tmp_path / "a.png")


def test_a_picture_gives_back_its_pixels(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", PIXELS)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PIXELS)
