"""Label PNGs: values, colours, and masks that are refused."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.errors import DamagedError
from tag2mask.io.images import read_note
from tag2mask.io.labels import read_label, require_classes, write_label


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
    with pytest.raises(DamagedError, match=rf"a\.png is a {mode} picture.*palette or grey"):
        read_label(tmp_path / "a.png")


def test_a_label_png_keeps_its_note(tmp_path: Path) -> None:
    write_label(tmp_path / "a.png", np.zeros((4, 4)), "made by ü")
    write_label(tmp_path / "b.png", np.zeros((4, 4)))
    assert [read_note(tmp_path / f"{name}.png") for name in "abc"] == ["made by ü", None, None]


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
    with pytest.raises(DamagedError, match="my masks hold only 0 and 255") as caught:
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
