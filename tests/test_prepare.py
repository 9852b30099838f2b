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
from tests.folders import tags_file

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
    assert [line.split()[:3] for line in report.splitlines()[1:]] == [["1", "cat", "1"], ["2", "dog", "2"]]


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
