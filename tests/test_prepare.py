from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from scipy.io import savemat

from tag2mask import files
from tag2mask.data import prepare, voc
from tag2mask.errors import InputError
from tests.folders import photograph, tags_file

# PASCAL VOC


def write_sbd(path: Path, mask: np.ndarray) -> None:
    """Write an SBD annotation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {"Segmentation": mask, "CategoriesPresent": np.unique(mask)}}, do_compression=True)


OFFICIAL, OTHERS = np.full((4, 5), 3, np.uint8), np.arange(20, dtype=np.uint8).reshape(4, 5)


@pytest.fixture
def published(devkit: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the devkit and SBD: ``a`` has an official mask, and both have one of SBD's."""
    root = devkit.parent
    (root / "VOCdevkit").mkdir()
    devkit = devkit.rename(root / "VOCdevkit" / "VOC2012")
    for split in ("train", "val", "test"):
        (devkit / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("a\n")
    files.write_label(devkit / "SegmentationClass" / "a.png", OFFICIAL)
    for name in ("a", "b"):
        write_sbd(root / "SBD" / "cls" / f"{name}.mat", OTHERS)
    monkeypatch.setattr(voc, "packaged_names", lambda split: ["a", "b"])
    return root


def test_read_sbd_gives_back_the_segmentation(tmp_path: Path) -> None:
    write_sbd(tmp_path / "a.mat", OTHERS)
    found = prepare.read_sbd(tmp_path / "a.mat")
    np.testing.assert_array_equal(found, OTHERS)
    assert found.dtype == np.uint8


def test_derived_masks_are_the_official_ones_where_there_are_and_sbds_elsewhere(published: Path) -> None:
    devkit = published / "VOCdevkit" / "VOC2012"
    prepare.derive_aug(devkit, published / "SBD", ["a", "b"])
    np.testing.assert_array_equal(files.read_label(devkit / "SegmentationClassAug" / "a.png"), OFFICIAL)
    np.testing.assert_array_equal(files.read_label(devkit / "SegmentationClassAug" / "b.png"), OTHERS)


def test_prepare_voc_derives_what_is_lacking_and_counts_what_there_is(published: Path) -> None:
    table = prepare.prepare_voc(published, download=False)
    rows = {line.split()[0]: line.split()[1:5] for line in table.splitlines()[1:]}
    assert rows["trainaug"] == ["2", "2", "2", "2"]
    assert rows["train"][:4] == ["1", "1", "1", "1"]


def test_prepare_voc_finds_sbd_elsewhere(published: Path) -> None:
    elsewhere = (published / "SBD").rename(published / "benchmark")
    prepare.prepare_voc(published, elsewhere, download=False)
    assert (published / "VOCdevkit" / "VOC2012" / "SegmentationClassAug" / "b.png").is_file()


def test_prepare_voc_downloads_nothing_that_is_there(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_download", lambda *_, **__: pytest.fail("asked the network"))
    assert "trainaug" in prepare.prepare_voc(published)


def test_prepare_voc_names_what_is_missing(published: Path) -> None:
    (published / "SBD" / "cls" / "b.mat").unlink()
    (published / "VOCdevkit" / "VOC2012" / "Annotations" / "a.xml").unlink()
    with pytest.raises(InputError, match="1 annotations of train, 1 annotations of val, .*1 masks of trainaug"):
        prepare.prepare_voc(published, download=False)


def test_prepare_voc_without_download_names_the_folder_and_the_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no .*JPEGImages.*--no-download.*VOCtrainval_11-May-2012\.tar"):
        prepare.prepare_voc(tmp_path, download=False)


@pytest.mark.parametrize("error", [URLError("unreachable\nat all"), RuntimeError("File not found or corrupted.")])
@pytest.mark.parametrize("what", ["VOCSegmentation", "SBDataset"])
def test_a_refused_download_is_one_line_that_names_the_way_round(
    what: str, error: Exception, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    (published / ("VOCdevkit" if what == "VOCSegmentation" else "SBD")).rename(published / "away")
    monkeypatch.setattr(torchvision.datasets, what, refuse)
    with pytest.raises(InputError, match=r"cannot be downloaded \(.*by hand.*--no-download") as caught:
        prepare.prepare_voc(published)
    assert "\n" not in str(caught.value)


def test_an_sbd_file_of_something_else_is_named(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"other": np.zeros(3)})
    with pytest.raises(InputError, match=r"a\.mat is not a whole SBD annotation"):
        prepare.read_sbd(tmp_path / "a.mat")


@pytest.mark.parametrize("damage", ["emptied", "flipped"])
def test_a_damaged_sbd_file_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    write_sbd(path, np.random.default_rng(0).integers(0, 21, (40, 50), dtype=np.uint8))
    whole = path.read_bytes()
    path.write_bytes(b"" if damage == "emptied" else whole[:500] + bytes([whole[500] ^ 255]) + whole[501:])
    with pytest.raises(InputError, match=r"a\.mat"):
        prepare.read_sbd(path)


# One's own folder


def test_prepare_folder_counts_what_it_finds(own: Path) -> None:
    report = prepare.prepare_folder(own)
    assert "3 photographs, 2 tagged, 1 with a mask" in report
    assert [line.split()[:3] for line in report.splitlines()[1:3]] == [["1", "cat", "1"], ["2", "dog", "2"]]
    assert "0 with an empty field of tags (none of the classes), 1 without a line in tags.csv (unknown)" in report


def test_prepare_folder_names_every_fault(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_label(own / "masks" / "a.png", np.full((40, 50), 9))
    (own / "images" / "plain.jpeg").write_bytes(b"not a photograph")
    with pytest.raises(InputError, match="2 thing"):
        prepare.prepare_folder(own)
    told = capsys.readouterr().out
    assert "a.png holds the value 9" in told
    assert "plain.jpeg cannot be read" in told


def test_prepare_folder_names_a_tag_without_a_photograph(own: Path) -> None:
    tags_file(own, "name,tags\na,dog\nghost,cat\n")
    with pytest.raises(InputError, match="'ghost'"):
        prepare.prepare_folder(own)


@pytest.mark.parametrize("where", ["tags.csv", "val.txt"])
def test_prepare_folder_names_a_missing_photograph_beside_a_list_of_training(where: str, own: Path) -> None:
    (own / "train.txt").write_text("a\n")
    if where == "tags.csv":
        tags_file(own, "name,tags\na,dog\nghost,cat\n")
    else:
        (own / "val.txt").write_text("a\nghost\n")
    with pytest.raises(InputError, match="'ghost'"):
        prepare.prepare_folder(own)


def test_prepare_folder_tells_an_empty_field_from_a_missing_line(own: Path) -> None:
    tags_file(own, "name,tags\na,dog\nmy cat,\n")
    assert "1 with an empty field of tags (none of the classes), 1 without a line" in prepare.prepare_folder(own)


def test_prepare_folder_counts_what_is_not_read(own: Path) -> None:
    for path in ("images/x.HEIC", "images/y.heic", "images/._a.jpg", "masks/b.tif", "._notes.txt"):
        (own / path).write_bytes(b"x")
    (own / "images" / "sub").mkdir()
    report = prepare.prepare_folder(own)
    assert "not read in images: 2 .heic, 1 .txt, 1 folder(s) (read are .jpg" in report
    assert "not read in masks: 1 .tif (read are .png)" in report
    assert "._" not in report


def test_prepare_folder_reads_no_notes_as_a_list_and_says_so(own: Path) -> None:
    (own / "README.txt").write_bytes("schöne Bilder\n".encode("latin-1"))
    (own / "notes.txt").write_text("a\nlook again\n")
    (own / "mine.txt").write_text("a.JPG\nplain\n")
    report = prepare.prepare_folder(own)
    assert "README.txt: not read as a list: it is not UTF-8 text" in report
    assert "notes.txt: not read as a list: 1 of 2 lines name a photograph" in report
    assert "mine.txt: a split of 2 photographs, if you name it (mine)" in report


def test_prepare_folder_asks_about_classes_that_may_be_one(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tags_file(own, "name,tags\na,dog\nmy cat,cat Dog\nplain,Dog\n")
    with pytest.raises(InputError, match="1 thing"):
        prepare.prepare_folder(own)
    assert "'Dog' (2 photographs) and 'dog' (1) differ only in case" in capsys.readouterr().out


def drawn(root: Path, count: int, value: int = 1) -> Path:
    """Photographs tagged cat and dog in turn, with masks that show the tag; the first class is ``value``."""
    lines = []
    for number in range(count):
        photograph(root / "images" / f"{number:03}.jpg")
        files.write_label(root / "masks" / f"{number:03}.png", np.full((40, 50), value if number % 2 else 3 - value))
        lines.append(f"{number:03},{'cat' if number % 2 else 'dog'}")
    tags_file(root, "\n".join(["name,tags", *lines]))
    return root


def test_prepare_folder_names_masks_of_black_and_white(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn(tmp_path / "own", 4)
    for path in (root / "masks").iterdir():
        files.write_label(path, np.array([[0, 255]]).repeat(40, 0).repeat(25, 1))
    with pytest.raises(InputError, match="1 thing"):
        prepare.prepare_folder(root)
    assert "masks hold only 0 and 255" in capsys.readouterr().out


def test_prepare_folder_compares_masks_with_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn(tmp_path / "own", 4)
    assert "mask" not in prepare.prepare_folder(root).split("with a mask")[1]
    (root / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(InputError, match="1 thing"):
        prepare.prepare_folder(root)
    told = capsys.readouterr().out
    assert "4 of 4 masks show a class that their photograph's tags lack, the first of 000: tags dog; mask" in told
    assert "000.png cat; the values of masks are 1 dog, 2 cat: write classes.txt in the order" in told


def test_prepare_folder_tells_of_a_few_masks_that_differ(tmp_path: Path) -> None:
    root = drawn(tmp_path / "own", 8)
    files.write_label(root / "masks" / "000.png", np.full((40, 50), 1))
    report = prepare.prepare_folder(root)
    assert "1 of 8 masks show a class that the tags lack, the first of 000: tags dog; mask" in report
    assert "1 of 8 masks have no pixel of a class that is tagged, the first of 000" in report
