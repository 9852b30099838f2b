"""The archive for VOC's evaluation server: what is written, and every fault that the check must find."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.cli.archive import FOLDER, check_archive
from tag2mask.cli.main import main
from tag2mask.errors import DamagedError, InputError, MismatchError, MissingError, SettingError
from tag2mask.io.labels import label_png, read_label, write_label
from tests.commands import fault

NAMES = ["2008_000006", "2008_000011", "2008_000012"]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Masks of three photographs of 6 x 4 pixels, and of one that is not asked for."""
    rng = np.random.default_rng(0)
    for name in [*NAMES, "2007_000032"]:
        write_label(tmp_path / "masks" / f"{name}.png", rng.integers(0, 21, (4, 6)))
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(tmp_path / "photos" / f"{name}.jpg")
    (tmp_path / "list.txt").write_text("\n".join(NAMES))
    return tmp_path / "masks"


def write(labels: Path, *more: object) -> int:
    base = labels.parent
    given = ["--out", base / "out.tgz", "--list", base / "list.txt", "--photos", base / "photos", *more]
    return main(["archive", "write", str(labels), *map(str, given)])


def test_an_archive_holds_the_masks_where_the_server_looks_for_them(
    labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(labels) == 0
    assert "3 masks, none missing, none too many, palette PNGs, values 0 to 20, sizes of" in capsys.readouterr().out
    with tarfile.open(labels.parent / "out.tgz", "r:gz") as tar:
        assert tar.getnames() == [f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in NAMES]
        for name in NAMES:
            file = tar.extractfile(f"{FOLDER}/{name}.png")
            assert file is not None
            with Image.open(io.BytesIO(file.read())) as image:
                assert image.mode == "P"
                assert np.array_equal(np.asarray(image), read_label(labels / f"{name}.png"))
    first = (labels.parent / "out.tgz").read_bytes()
    assert write(labels) == 0
    assert (labels.parent / "out.tgz").read_bytes() == first


def test_the_list_that_comes_with_the_package_is_vocs_test(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archive", "write", str(labels), "--out", str(labels.parent / "out.tgz")]) == 2
    assert "1453 of 1456 masks are not in" in capsys.readouterr().err
    assert not (labels.parent / "out.tgz").exists()


def test_a_grey_mask_becomes_a_palette_png(labels: Path) -> None:
    Image.fromarray(np.full((4, 6), 20, np.uint8)).save(labels / f"{NAMES[1]}.png")
    assert write(labels) == 0


def test_void_is_refused_before_anything_is_written(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_label(labels / f"{NAMES[2]}.png", np.full((4, 6), 255))
    assert write(labels) == 2
    assert f"{NAMES[2]}.png holds the value 255" in capsys.readouterr().err
    assert list(labels.parent.glob("*.tgz")) == []


def png(label: np.ndarray, mode: str = "P") -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(label_png(label))).convert(mode).save(buffer, format="PNG")
    return buffer.getvalue()


GOOD = png(np.zeros((4, 6)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.pop(f"{FOLDER}/{NAMES[1]}.png"), f"1 of 3 masks are missing, the first {NAMES[1]}.png"),
        (lambda c: c.update({f"{FOLDER}/2007_000032.png": GOOD}), "2007_000032.png does not belong there"),
        (lambda c: c.update({f"{NAMES[0]}.png": GOOD}), f"{NAMES[0]}.png does not belong there"),
        (lambda c: c.update({f"{FOLDER}/{NAMES[0]}.png": png(np.zeros((4, 6)), "RGB")}), "is a RGB PNG, not a palette"),
        (lambda c: c.update({f"{FOLDER}/{NAMES[0]}.png": png(np.zeros((4, 6)), "L")}), "is a L PNG, not a palette PNG"),
        (lambda c: c.update({f"{FOLDER}/{NAMES[0]}.png": png(np.full((4, 6), 21))}), "holds the value 21"),
        (
            lambda c: c.update({f"{FOLDER}/{NAMES[0]}.png": png(np.zeros((6, 4)))}),
            "is 4 x 6 pixels, its photograph 6 x",
        ),
        (lambda c: c.update({f"{FOLDER}/{NAMES[0]}.png": GOOD[:60]}), f"{NAMES[0]}.png cannot be read"),
    ],
)
def test_every_fault_of_an_archive_is_found(
    labels: Path, change: Callable[[dict[str, bytes]], object], told: str
) -> None:
    content = {f"{FOLDER}/{name}.png": GOOD for name in NAMES}
    change(content)
    path = labels.parent / "archive.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    with pytest.raises(MismatchError, match="archive.tgz") as error:
        check_archive(path, NAMES, labels.parent / "photos")
    assert told in str(error.value)


def test_a_mask_that_is_there_twice_is_found(labels: Path) -> None:
    path = labels.parent / "archive.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in [*NAMES, NAMES[0]]:
            entry = tarfile.TarInfo(f"{FOLDER}/{name}.png")
            entry.size = len(GOOD)
            tar.addfile(entry, io.BytesIO(GOOD))
    with pytest.raises(MismatchError, match=f"{NAMES[0]}.png is there twice"):
        check_archive(path, NAMES)


@pytest.mark.parametrize("part", [0, 40, 400])
def test_what_is_not_a_whole_archive_is_damaged(labels: Path, part: int) -> None:
    assert write(labels) == 0
    path = labels.parent / "out.tgz"
    path.write_bytes(path.read_bytes()[:part])
    error = fault(["archive", "check", str(path), "--list", str(labels.parent / "list.txt")])
    assert isinstance(error, DamagedError)
    assert str(path) in str(error)


@pytest.mark.parametrize(
    ("words", "kind", "fact"),
    [
        (["check", "/nowhere.tgz"], MissingError, "/nowhere.tgz"),
        (["write", "/nowhere"], MissingError, "1456 of 1456"),
        (["check", "/nowhere.tgz", "--list", "/nowhere.txt"], MissingError, "/nowhere.txt"),
        (["check", "/nowhere.tgz", "--photos", "/nowhere"], MissingError, "/nowhere"),
        (["pack"], SettingError, "'pack'"),
        ([], SettingError, "write|check"),
    ],
)
def test_bad_words_are_one_line(words: list[str], kind: type[InputError], fact: str) -> None:
    error = fault(["archive", *words])
    assert isinstance(error, kind)
    assert fact in str(error)
    assert "\n" not in str(error)
