import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.classes import palette
from tag2mask.errors import InputError
from tag2mask.io.cams import CAMs, read_cam, write_cam
from tag2mask.io.files import atomic, read_json
from tag2mask.io.images import read_image, read_size, write_picture
from tag2mask.io.labels import read_label, require_classes, write_label
from tag2mask.io.records import first_difference, same_run, write_run

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 18, 3), dtype=np.uint8)


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


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def a_text(path: Path) -> None:
    path.write_bytes(b"not a CAM")


def missing(path: Path) -> None:
    path.unlink()


SPOILT = [pickled, without_size, of_other_shape, without_classes_axis, cut_short, emptied, a_text, missing]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_a_spoilt_cam_file_is_named(spoil: Callable[[Path], None], cam_file: Path) -> None:
    spoil(cam_file)
    with pytest.raises(InputError, match=r"a\.npz"):
        read_cam(cam_file)


@pytest.mark.parametrize(
    ("spoilt", "said"),
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
def test_a_cam_file_of_impossible_values_is_named(spoilt: dict[str, np.ndarray], said: str, cam_file: Path) -> None:
    np.savez(cam_file, **({"cam": cam().cam.numpy(), "classes": np.array([1, 2]), "size": np.array([20, 28])} | spoilt))
    with pytest.raises(InputError, match=rf"a\.npz .*{said}"):
        read_cam(cam_file)


def test_a_single_array_in_place_of_a_cam_file_is_named(cam_file: Path) -> None:
    with open(cam_file, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match=r"a\.npz"):
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
        except InputError as error:
            assert "a.npz" in str(error)  # noqa: PT017


def test_atomic_leaves_the_old_file_where_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_replaces_the_old_file_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_makes_the_folder(tmp_path: Path) -> None:
    with atomic(tmp_path / "a" / "b" / "c.txt") as file:
        file.write(b"x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_a_label_png_gives_back_every_value(tmp_path: Path) -> None:
    label = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_label(tmp_path / "a.png", label)
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), label)


def test_a_label_png_shows_vocs_colours(tmp_path: Path) -> None:
    write_label(tmp_path / "a.png", np.array([[0, 1, 15, 255]]))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        shown = np.asarray(image.convert("RGB"))[0].tolist()
    assert shown == [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]


def test_a_grey_mask_is_read_by_value(tmp_path: Path) -> None:
    label = np.array([[0, 5], [255, 20]], np.uint8)
    Image.fromarray(label).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), label)


def test_a_black_and_white_mask_is_read_as_zero_and_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png").tolist() == [[0, 1]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_coloured_mask_is_refused(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=rf"a\.png is a {mode} picture.*palette or grey"):
        read_label(tmp_path / "a.png")


@pytest.mark.parametrize("spoil", [cut_short, emptied, a_text, missing], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("read", [read_label, read_image], ids=lambda read: read.__name__)
def test_a_spoilt_picture_is_named(
    read: Callable[[Path], np.ndarray], spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    write_label(path, RNG.integers(0, 256, (40, 40)))
    spoil(path)
    with pytest.raises(InputError, match=r"a\.png"):
        read(path)


def test_a_jpeg_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"a\.jpg cannot be read as a photograph"):
        read_image(path)


def black_and_white(folder: Path, *endings: str) -> list[Path]:
    """Masks of 0 and 255, grey and palette."""
    paths = [folder / f"{number}.{ending}" for number, ending in enumerate(endings)]
    for number, path in enumerate(paths):
        label = np.array([[0, 255], [255, 0]], np.uint8)
        Image.fromarray(label).save(path) if number % 2 else write_label(path, label)
    return paths


def test_masks_of_0_and_255_are_named_and_the_command_in_the_line_mends_them(tmp_path: Path) -> None:
    folder = tmp_path / "my masks"
    folder.mkdir()
    masks = black_and_white(folder, "png", "PNG")
    (folder / "._0.png").write_bytes(b"of macOS")
    with pytest.raises(InputError, match="my masks hold only 0 and 255") as caught:
        require_classes(masks)
    command = str(caught.value).split("in its place: ")[1]
    for _ in range(2):  # a second run changes nothing
        subprocess.run(command, shell=True, check=True)
        assert [read_label(mask).tolist() for mask in masks] == [[[0, 1], [1, 0]]] * 2
    require_classes(masks)


@pytest.mark.parametrize("other", [0, 1, 254])
def test_masks_are_not_refused_for_pixels_that_are_ignored(other: int, tmp_path: Path) -> None:
    masks = [] if other == 0 else black_and_white(tmp_path, "png")
    write_label(tmp_path / "b.png", np.array([[other, 255 if other else 0]]))
    require_classes([*masks, tmp_path / "b.png"])


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
    with pytest.raises(InputError, match=r"a\.tif cannot be read as a photograph \(grey values from"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colours_of_12_bits_in_16_are_refused_and_of_16_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    cv2.imwrite(str(path), np.full((4, 5, 3), 4095, np.uint16))
    with pytest.raises(InputError, match=rf"a\.{ending} cannot be read .*colours of 12 bits in 16"):
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
    assert read_size(tmp_path / f"a.{ending}") == read_image(tmp_path / f"a.{ending}").shape[:2]


@pytest.mark.parametrize("read", [read_image, read_size, read_label])
def test_a_picture_of_too_many_pixels_names_the_limit(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_label(tmp_path / "a.png", np.zeros((50, 60)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    with pytest.raises(InputError, match="a.png has more than 2,000 pixels, the limit; shrink it"):
        read(tmp_path / "a.png")


def test_a_picture_gives_back_its_pixels(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", PIXELS)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PIXELS)


CONFIG: dict[str, Any] = {"data": {"root": Path("x"), "scales": (0.5, 1.0)}, "seed": 0}


def test_a_folder_without_a_record_was_not_begun(tmp_path: Path) -> None:
    assert same_run(tmp_path, CONFIG) is False


def test_the_same_configuration_is_known_again(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG)
    assert same_run(tmp_path, CONFIG) is True


def test_the_order_of_settings_does_not_matter(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG)
    assert same_run(tmp_path, dict(reversed(CONFIG.items()))) is True


def test_another_configuration_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG)
    other = CONFIG | {"data": CONFIG["data"] | {"scales": (1.0,)}, "seed": 7}
    with pytest.raises(InputError, match=r"data\.scales: \[0\.5, 1\.0\], now \[1\.0\].*--overwrite"):
        same_run(tmp_path, other)


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG)
    assert same_run(tmp_path, {"other": 1}, overwrite=True) is False


@pytest.mark.parametrize("text", ["", '{"config": ', "\x00"])
def test_a_damaged_record_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json"):
        same_run(tmp_path, CONFIG)


def test_a_record_that_is_a_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match=r"run\.json"):
        same_run(tmp_path, CONFIG)


def test_a_record_says_what_ran(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, seed=3)
    record = json.loads((tmp_path / "run.json").read_text())
    assert {"config", "command", "commit", "versions", "time", "seed"} <= set(record)
    assert record["seed"] == 3
    assert record["versions"]["torch"]


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"a": 1}, {"a": 2}, "a: 1, now 2"),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, "a.b.c: 1, now 2"),
        ({"a": 1, "b": 2}, {"a": 1}, "b: 2, now None"),
        ({}, {"new": "x"}, "new: None, now 'x'"),
        ({"a": {"b": 1}}, {"a": None}, "a: {'b': 1}, now None"),
        ([1], [2], "it: [1], now [2]"),
    ],
)
def test_first_difference_names_the_place(before: Any, now: Any, said: str) -> None:
    assert first_difference(before, now) == said


@pytest.mark.parametrize("text", ["", "{", "[1,"])
def test_damaged_json_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json is not a JSON file"):
        read_json(tmp_path / "a.json")


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json does not exist"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("value", "colour"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (3, (128, 128, 0)),
        (8, (64, 0, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_palette_is_vocs(value: int, colour: tuple[int, int, int]) -> None:
    assert tuple(palette()[value].tolist()) == colour


def test_every_value_has_a_colour_of_its_own() -> None:
    assert len({tuple(colour) for colour in palette().tolist()}) == 256
