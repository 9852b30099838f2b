import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat

from tag2mask import files
from tag2mask.data import folder, prepare, voc
from tag2mask.data.datamodules import FolderDataModule
from tag2mask.data.dataset import (
    EvaluationSet,
    Photo,
    ResumableLoader,
    SeededSampler,
    ShardSampler,
    TrainingSet,
    read_mask,
    sample_seed,
)
from tag2mask.data.sample import CLASSES, draw_scene, write_sample
from tag2mask.data.transforms import EvaluationTransform, Preprocessing, TrainingTransform
from tag2mask.errors import InputError

TINY = Preprocessing(long_side=(40, 60), crop_size=32)


def photograph(path: Path, size: tuple[int, int] = (50, 40), seed: int = 0) -> Path:
    """Write a noisy photograph of ``size`` width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def annotation(path: Path, *names: str) -> None:
    """Write a VOC annotation that names objects, one of them with a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(f"<object><name>{name}</name><part><name>head</name></part></object>" for name in names)
    path.write_text(f"<annotation>{objects}</annotation>")


# PASCAL VOC


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Two photographs in the devkit's layout, listed in train.txt, trainaug.txt, val.txt and test.txt."""
    root = tmp_path / "VOC2012"
    for name, tags in (("a", ("dog",)), ("b", ("person", "cat", "person"))):
        photograph(root / "JPEGImages" / f"{name}.jpg")
        annotation(root / "Annotations" / f"{name}.xml", *tags)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "trainaug", "val", "test", "mine"):
        (lists / f"{split}.txt").write_text("a\nb\n")
    return root


@pytest.mark.parametrize(("split", "count"), [("train", 1464), ("val", 1449), ("test", 1456), ("trainaug", 10582)])
def test_the_published_splits_have_their_published_counts(split: str, count: int) -> None:
    names = voc.packaged_names(split)
    assert len(names) == len(set(names)) == count == voc.SPLITS[split]


@pytest.mark.parametrize(
    ("one", "other"), [("trainaug", "val"), ("train", "val"), ("trainaug", "test"), ("val", "test")]
)
def test_published_splits_do_not_overlap(one: str, other: str) -> None:
    assert not set(voc.packaged_names(one)) & set(voc.packaged_names(other))


def test_trainaug_holds_train() -> None:
    assert set(voc.packaged_names("train")) <= set(voc.packaged_names("trainaug"))


def test_a_list_in_the_devkit_wins(devkit: Path) -> None:
    assert voc.split_names(devkit, "train") == ["a", "b"]


def test_without_a_list_the_published_split_holds(tmp_path: Path) -> None:
    assert voc.split_names(tmp_path, "val") == voc.packaged_names("val")


def test_tags_are_the_classes_of_the_objects_in_rising_order(devkit: Path) -> None:
    assert [photo.tags for photo in voc.voc_photos(devkit, "train")] == [(12,), (8, 15)]


def test_the_test_split_has_neither_tags_nor_masks(devkit: Path) -> None:
    assert [(photo.tags, photo.mask) for photo in voc.voc_photos(devkit, "test")] == [(None, None)] * 2


@pytest.mark.parametrize(
    ("split", "masks"),
    [
        ("train", "SegmentationClass"),
        ("val", "SegmentationClass"),
        ("trainaug", "SegmentationClassAug"),
        ("mine", "SegmentationClassAug"),
    ],
)
def test_masks_are_chosen_by_split(split: str, masks: str, devkit: Path) -> None:
    assert voc.voc_photos(devkit, split)[0].mask == devkit / masks / "a.png"


def no_photographs(root: Path) -> str:
    for path in (root / "JPEGImages").iterdir():
        path.unlink()
    (root / "JPEGImages").rmdir()
    return f"no JPEGImages in {root}"


def an_empty_list(root: Path) -> str:
    path = root / "ImageSets" / "Segmentation" / "train.txt"
    path.write_text("\n")
    return f"{path} is empty"


def an_id_without_image(root: Path) -> str:
    (root / "JPEGImages" / "b.jpg").unlink()
    return f"1 of 2 photographs in train of {root} are missing, the first {root / 'JPEGImages' / 'b.jpg'}"


def an_id_without_annotation(root: Path) -> str:
    path = root / "Annotations" / "b.xml"
    path.unlink()
    return f"{path} does not exist"


def an_unknown_class(root: Path) -> str:
    annotation(root / "Annotations" / "b.xml", "dog", "unicorn")
    return f"{root / 'Annotations' / 'b.xml'} names 'unicorn'"


def the_background_as_an_object(root: Path) -> str:
    annotation(root / "Annotations" / "b.xml", "background")
    return f"{root / 'Annotations' / 'b.xml'} names 'background'"


def broken_xml(root: Path) -> str:
    path = root / "Annotations" / "b.xml"
    path.write_text(path.read_text()[:30])
    return f"{path} is not whole XML"


@pytest.mark.parametrize(
    "spoil",
    [
        no_photographs,
        an_empty_list,
        an_id_without_image,
        an_id_without_annotation,
        an_unknown_class,
        the_background_as_an_object,
        broken_xml,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_a_spoilt_devkit_is_named(spoil: Callable[[Path], str], devkit: Path) -> None:
    said = spoil(devkit)
    with pytest.raises(InputError) as caught:
        voc.voc_photos(devkit, "train")
    assert said in str(caught.value)


def test_an_unknown_split_is_named_with_those_there_are(devkit: Path) -> None:
    with pytest.raises(InputError, match=r"no split 'trian'.*trian\.txt.*train, val, test, trainaug"):
        voc.voc_photos(devkit, "trian")


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


def tags_file(path: Path, text: str) -> Path:
    """Write ``tags.csv`` into a folder."""
    path.mkdir(exist_ok=True)
    (path / "tags.csv").write_bytes(text.encode())
    return path / "tags.csv"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Three photographs, one of them with a space in its name and one untagged, and a mask of the first."""
    root = tmp_path / "own"
    for name in ("a.jpg", "my cat.png", "plain.jpeg"):
        photograph(root / "images" / name)
    (root / "images" / "notes.txt").write_text("not a photograph")
    files.write_label(root / "masks" / "a.png", np.zeros((40, 50)))
    tags_file(root, "name,tags\na,dog\nmy cat,cat dog\n")
    return root


@pytest.mark.parametrize(
    "text",
    [
        "name,tags\na,cat dog\nb,dog\n",
        "\ufeffname,tags\na,cat dog\nb,dog\n",
        " name , tags \n a , cat  dog \n b , dog \n",
        "name,tags\r\na,cat dog\r\n\r\nb,dog\r\n",
        "name,tags\na,cat;dog\nb,dog;\n",
        'name,tags\na,"cat, dog"\nb,dog\n',
        "name;tags\na;cat dog\nb;dog\n",
        'name;tags\na;"cat;dog"\nb;dog\n',
        "tags,name\ncat dog,a.jpg\ndog,b.PNG\n",
        "Name,Who,Tags\na,me,cat dog\nb,you,dog\n",
        "name,tags\na,cat dog cat\nb,dog\n",
    ],
    ids=[
        "plain",
        "byte-order mark",
        "spaces",
        "windows",
        "semicolons",
        "quoted commas",
        "semicolon columns",
        "semicolon columns and tags",
        "endings",
        "more columns",
        "double tag",
    ],
)
def test_a_table_of_tags_is_understood(text: str, tmp_path: Path) -> None:
    found = folder.read_tags(tags_file(tmp_path, text))
    assert {name: sorted(tags) for name, tags in found.items()} == {"a": ["cat", "dog"], "b": ["dog"]}


@pytest.mark.parametrize("mark", [",", ";"])
def test_tags_beyond_the_columns_are_not_lost_in_silence(mark: str, tmp_path: Path) -> None:
    path = tags_file(tmp_path, f"name{mark}tags\na{mark}cat{mark}dog\n")
    try:
        found = folder.read_tags(path)
    except InputError:
        return
    assert found == {"a": ("cat", "dog")}


def test_names_of_photographs_and_classes_may_hold_spaces(tmp_path: Path) -> None:
    path = tags_file(tmp_path, "name,tags\nmy photo.jpg,traffic light; car\nb,traffic light\n")
    found = folder.read_tags(path, known=("car", "traffic light"))
    assert found == {"my photo": ("traffic light", "car"), "b": ("traffic light",)}


def test_a_photograph_may_have_no_class(tmp_path: Path) -> None:
    assert folder.read_tags(tags_file(tmp_path, "name,tags\na,\nb,dog\n")) == {"a": (), "b": ("dog",)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,tags\na,cat\nb,catt\n", r"tags\.csv, line 3: unknown tag 'catt' \(did you mean 'cat'\)"),
        ("name,tags\na,zzz\n", r"line 2: unknown tag 'zzz' \(the classes are cat, dog\)"),
        ("name,tags\na,cat\n\na.jpg,dog\n", r"tags\.csv, line 4: 'a' stands there twice"),
        ("name,tags\na\n", r"tags\.csv, line 2: 1 column\(s\); expected name,tags"),
        ("photo,tags\na,cat\n", r"tags\.csv starts with 'photo,tags'.*name,tags"),
        ("", r"tags\.csv starts with ''"),
        ("name,tags\n", r"tags\.csv lists no photograph"),
    ],
)
def test_a_spoilt_table_of_tags_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        folder.read_tags(tags_file(tmp_path, text), known=("cat", "dog"))


def test_a_table_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tags_file(tmp_path, "")
    path.write_bytes("name,tags\nbär,cat\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"tags\.csv is not UTF-8 text"):
        folder.read_tags(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tags\.csv does not exist"):
        folder.read_tags(tmp_path / "tags.csv")


def test_without_a_list_of_classes_the_tags_are_it(own: Path) -> None:
    assert folder.class_names(own) == ("cat", "dog")


@pytest.mark.parametrize("first", ["", "background\n", "\ufeff"], ids=["plain", "background", "byte-order mark"])
def test_classes_come_in_the_order_of_their_list(first: str, own: Path) -> None:
    (own / "classes.txt").write_text(f"{first}dog\n cat \n\nzebra\n", encoding="utf-8")
    assert folder.class_names(own) == ("dog", "cat", "zebra")
    assert [photo.tags for photo in folder.folder_photos(own, "train")] == [(1,), (1, 2)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n", "names no class"),
        ("cat\ndog\ncat\n", "3 names, 2 of them different"),
        ("\n".join(map(str, range(255))), "255 names"),
    ],
    ids=["empty", "twice", "too many"],
)
def test_a_spoilt_list_of_classes_is_named(text: str, said: str, own: Path) -> None:
    (own / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        folder.class_names(own)


def test_without_lists_train_is_what_is_tagged_val_what_has_a_mask_and_any_other_split_all(own: Path) -> None:
    found = {split: [photo.name for photo in folder.folder_photos(own, split)] for split in ("train", "val", "test")}
    assert found == {"train": ["a", "my cat"], "val": ["a"], "test": ["a", "my cat", "plain"]}


def test_a_list_makes_a_split(own: Path) -> None:
    (own / "train.txt").write_text("\ufeffmy cat\nplain.jpeg\n\n", encoding="utf-8")
    assert [photo.name for photo in folder.folder_photos(own, "train")] == ["my cat", "plain"]


def test_an_untagged_photograph_has_no_tags(own: Path) -> None:
    by_name = {photo.name: photo for photo in folder.folder_photos(own, "all")}
    assert by_name["plain"].tags is None
    assert by_name["my cat"].tags == (1, 2)


def test_masks_are_found_by_name(own: Path) -> None:
    assert [photo.mask for photo in folder.folder_photos(own, "all")] == [own / "masks" / "a.png", None, None]


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    tags_file(tmp_path, "name,tags\na,cat\n")
    with pytest.raises(InputError, match=f"no folder images in {tmp_path}"):
        folder.folder_photos(tmp_path, "train")


def test_a_tagged_photograph_that_is_not_there_is_named(own: Path) -> None:
    tags_file(own, "name,tags\na,dog\nghost,cat\n")
    with pytest.raises(InputError, match=r"1 of 2 names of the split train.*'ghost'.*tags\.csv"):
        folder.folder_photos(own, "train")


def test_a_listed_photograph_that_is_not_there_is_named(own: Path) -> None:
    (own / "mine.txt").write_text("a\nghost\n")
    with pytest.raises(InputError, match=r"1 of 2 names of the split mine.*'ghost'.*mine\.txt"):
        folder.folder_photos(own, "mine")


def test_two_photographs_of_one_name_are_named(own: Path) -> None:
    photograph(own / "images" / "a.png")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png"):
        folder.folder_photos(own, "train")


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


# Samples


def photos(root: Path, count: int) -> list[Photo]:
    """Photographs tagged in turn with one of two classes; their masks do not exist."""
    return [
        Photo(f"p{i}", photograph(root / f"p{i}.png", seed=i), (1 + i % 2,), root / f"none{i}.png")
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("tags", "label"), [((), [0, 0, 0]), ((2,), [0, 1, 0]), ((1, 3), [1, 0, 1]), (None, [-1, -1, -1])]
)
def test_a_label_is_the_tags_as_zeros_and_ones(tags: tuple[int, ...] | None, label: list[int]) -> None:
    assert Photo("a", Path("a.jpg"), tags).label(3).tolist() == label


def test_training_never_opens_a_mask(tmp_path: Path) -> None:
    sample = TrainingSet(photos(tmp_path, 1), 2, TrainingTransform(TINY))[0, 7]
    assert set(sample) == {"image", "label", "name"}
    assert sample["image"].shape == (3, 32, 32)
    assert sample["label"].tolist() == [1, 0]


def test_evaluation_gives_the_whole_photograph_its_size_and_its_mask(tmp_path: Path) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[3, 4], mask[5, 6] = 2, 255
    files.write_label(tmp_path / "m.png", mask)
    photo = Photo("a", photograph(tmp_path / "a.png"), (2,), tmp_path / "m.png")
    sample = EvaluationSet([photo], 2, EvaluationTransform(TINY), masks=True)[0]
    assert sample["image"].shape == (3, 40, 50)
    assert sample["size"].tolist() == [40, 50]
    assert sample["mask"].dtype == torch.int64
    np.testing.assert_array_equal(sample["mask"].numpy(), mask)


def test_evaluation_without_masks_opens_none(tmp_path: Path) -> None:
    sample = EvaluationSet(photos(tmp_path, 1), 2, EvaluationTransform(TINY), masks=False)[0]
    assert set(sample) == {"image", "label", "name", "size"}


def test_evaluation_keeps_the_photographs_size_where_the_image_is_shrunk(tmp_path: Path) -> None:
    how = EvaluationTransform(Preprocessing(max_side=25))
    sample = EvaluationSet(photos(tmp_path, 1), 2, how, masks=False)[0]
    assert sample["image"].shape == (3, 20, 25)
    assert sample["size"].tolist() == [40, 50]


def test_a_photograph_without_mask_cannot_be_scored() -> None:
    with pytest.raises(InputError, match="a has no mask"):
        read_mask(Photo("a", Path("a.jpg"), ()), (4, 5), 2)


def test_a_mask_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    files.write_label(tmp_path / "m.png", np.zeros((4, 5)))
    with pytest.raises(InputError, match=r"m\.png is 5 x 4 pixels and its photograph 7 x 6"):
        read_mask(Photo("a", Path("a.jpg"), (), tmp_path / "m.png"), (6, 7), 2)


def test_a_mask_with_a_value_beyond_the_classes_is_named(tmp_path: Path) -> None:
    files.write_label(tmp_path / "m.png", np.array([[0, 2, 3, 255]]))
    photo = Photo("a", Path("a.jpg"), (), tmp_path / "m.png")
    with pytest.raises(InputError, match=r"m\.png holds the value 3; expected 0 to 2"):
        read_mask(photo, (1, 4), 2)
    assert read_mask(photo, (1, 4), 3).tolist() == [[0, 2, 3, 255]]


# Transforms

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def test_the_same_seed_gives_the_same_crop() -> None:
    one, other = TrainingTransform(TINY), TrainingTransform(TINY)
    one(NOISE, 1)
    assert torch.equal(one(NOISE, 5), other(NOISE, 5))


def test_another_seed_gives_another_crop() -> None:
    transform = TrainingTransform(TINY)
    crops = [transform(NOISE, seed) for seed in range(6)]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(crops, 2))


@pytest.mark.parametrize("size", [(60, 80), (5, 300), (1, 40), (40, 1), (1, 1), (2000, 1)])
def test_an_image_of_any_size_gives_a_crop_of_one_size(size: tuple[int, int]) -> None:
    crop = TrainingTransform(TINY)(np.full((*size, 3), 200, np.uint8), 0)
    assert crop.shape == (3, 32, 32)
    assert crop.dtype == torch.float32
    assert torch.isfinite(crop).all()


def content(crop: torch.Tensor) -> tuple[int, int]:
    """Height and width of what is not padding."""
    rows, columns = (crop != 0).any(0).any(1), (crop != 0).any(0).any(0)
    return int(rows.sum()), int(columns.sum())


def test_the_longer_side_is_drawn_from_its_range_and_the_shape_kept() -> None:
    transform = TrainingTransform(Preprocessing(long_side=(40, 60), crop_size=64))
    found = [content(transform(np.full((50, 100, 3), 255, np.uint8), seed)) for seed in range(200)]
    widths = {width for _, width in found}
    assert min(widths) == 40
    assert max(widths) == 60
    assert all(abs(height - width / 2) <= 0.5 for height, width in found)


def test_padding_is_zero_after_normalisation() -> None:
    crop = TrainingTransform(Preprocessing(long_side=(20, 20), crop_size=32))(np.full((50, 50, 3), 255, np.uint8), 0)
    white = torch.tensor([(1 - mean) / std for mean, std in zip(TINY.mean, TINY.std, strict=True)])
    inside = (crop != 0).all(0)
    assert inside.sum() == 20 * 20
    torch.testing.assert_close(crop[:, inside], white[:, None].expand(3, 400), rtol=1e-4, atol=1e-4)
    assert crop[:, ~inside].abs().sum() == 0


def test_padding_stands_on_all_sides_in_turn() -> None:
    transform = TrainingTransform(Preprocessing(long_side=(20, 20), crop_size=32))
    crops = [transform(np.full((50, 50, 3), 255, np.uint8), seed) for seed in range(20)]
    corners = {tuple(crop[0][rows, columns].item() == 0 for rows in (0, -1) for columns in (0, -1)) for crop in crops}
    tops = {int((crop != 0).any(0).any(1).nonzero()[0]) for crop in crops}
    assert len(tops) > 4
    assert (True, True, True, True) in corners


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_is_the_share_of_mirrored_images(flip: float) -> None:
    image = NOISE[:32, :32]
    crop = TrainingTransform(Preprocessing((32, 32), 32, flip, **PLAIN))(image, 3)
    expected = image[:, ::-1] if flip else image
    np.testing.assert_allclose(crop.permute(1, 2, 0).numpy() * 255, expected, atol=1e-3)


def test_evaluation_normalises_and_keeps_the_size() -> None:
    image = EvaluationTransform(Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)))(NOISE)
    expected = (NOISE / 255 - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.3]
    np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((60, 80), 40, (30, 40)),
        ((80, 60), 40, (40, 30)),
        ((60, 80), 80, (60, 80)),
        ((60, 80), 100, (60, 80)),
        ((1, 400), 40, (1, 40)),
    ],
)
def test_max_side_shrinks_larger_photographs_only(
    size: tuple[int, int], max_side: int, expected: tuple[int, int]
) -> None:
    image = EvaluationTransform(Preprocessing(max_side=max_side))(np.zeros((*size, 3), np.uint8))
    assert image.shape == (3, *expected)


def test_a_shrunk_photograph_keeps_its_mean_colour() -> None:
    image = EvaluationTransform(Preprocessing(max_side=20, **PLAIN))(NOISE)
    np.testing.assert_allclose(image.mean((1, 2)).numpy() * 255, NOISE.mean((0, 1)), atol=1)


# Samplers and loaders


class Numbers(torch.utils.data.Dataset[int]):
    """The numbers below ``count``."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


def drawn(sampler: SeededSampler, epoch: int) -> list[tuple[int, int]]:
    """What the sampler hands out in an epoch."""
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_same_seed_and_epoch_give_the_same_order_and_crops() -> None:
    one, other = SeededSampler(Numbers(10), 3), SeededSampler(Numbers(10), 3)
    drawn(one, 0)
    assert drawn(one, 2) == drawn(other, 2)


def test_every_image_is_drawn_once_an_epoch() -> None:
    assert sorted(index for index, _ in drawn(SeededSampler(Numbers(10), 3), 1)) == list(range(10))


def test_another_epoch_or_seed_gives_another_order_and_other_crops() -> None:
    orders = [drawn(SeededSampler(Numbers(10), seed), epoch) for seed, epoch in ((3, 0), (3, 1), (5, 0))]
    for one, other in itertools.combinations(orders, 2):
        assert [index for index, _ in one] != [index for index, _ in other]
        assert not {seed for _, seed in one} & {seed for _, seed in other}


def test_runs_of_neighbouring_seeds_do_not_share_their_orders() -> None:
    one, other = drawn(SeededSampler(Numbers(10), 3), 1), drawn(SeededSampler(Numbers(10), 4), 0)
    assert [index for index, _ in one] != [index for index, _ in other]


def test_the_shares_of_ranks_are_disjoint_and_whole() -> None:
    shares = [drawn(SeededSampler(Numbers(12), 3, 3, rank), 1) for rank in range(3)]
    assert [len(share) for share in shares] == [4, 4, 4]
    assert sorted(index for share in shares for index, _ in share) == list(range(12))


def test_the_crop_of_an_image_does_not_depend_on_its_rank() -> None:
    alone = dict(drawn(SeededSampler(Numbers(12), 3), 1))
    for rank in range(3):
        for index, seed in drawn(SeededSampler(Numbers(12), 3, 3, rank), 1):
            assert alone[index] == seed


def test_sample_seeds_are_of_32_bits_and_differ() -> None:
    seeds = [sample_seed(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(40)]
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert len(set(seeds)) == len(seeds)


def test_sample_seeds_are_the_same_on_every_machine() -> None:
    assert sample_seed(0, 0, 0) == int.from_bytes(bytes.fromhex("1d084ca1"), "little")


@pytest.mark.parametrize("count", [10, 2, 0])
def test_shards_hold_every_image_once(count: int) -> None:
    shards = [ShardSampler(Numbers(count), 3, rank) for rank in range(3)]
    assert sorted(itertools.chain(*shards)) == list(range(count))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]


def loader(data: Sequence[Photo], workers: int = 0) -> ResumableLoader:
    """Batches of two, the odd one left out."""
    dataset = TrainingSet(data, 2, TrainingTransform(TINY))
    sampler = SeededSampler(dataset, seed=1)
    return ResumableLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers, drop_last=True)


def epoch_of(batches: ResumableLoader, epoch: int) -> list[Any]:
    """The batches of an epoch."""
    batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(batches)


def same(one: list[Any], other: list[Any]) -> bool:
    """Say whether batches are the same, to the bit."""
    return [batch["name"] for batch in one] == [batch["name"] for batch in other] and all(
        torch.equal(a["image"], b["image"]) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_loader_taken_up_gives_exactly_the_batches_that_remain(done: int, tmp_path: Path) -> None:
    data = photos(tmp_path, 7)
    whole = epoch_of(loader(data), 2)
    broken_off, taken_up = loader(data), loader(data)
    broken_off.sampler.set_epoch(2)  # type: ignore[attr-defined]
    running = iter(broken_off)
    for _ in range(done):
        next(running)
    taken_up.load_state_dict(broken_off.state_dict())
    assert len(whole) == 3
    assert same(epoch_of(taken_up, 2), whole[done:])


def test_the_epoch_after_one_taken_up_is_whole(tmp_path: Path) -> None:
    data = photos(tmp_path, 7)
    taken_up = loader(data)
    taken_up.load_state_dict({"batches": 2})
    epoch_of(taken_up, 0)
    assert same(epoch_of(taken_up, 1), epoch_of(loader(data), 1))


def test_a_loader_taken_up_counts_on(tmp_path: Path) -> None:
    taken_up = loader(photos(tmp_path, 7))
    taken_up.load_state_dict({"batches": 1})
    next(iter(taken_up))
    assert taken_up.state_dict() == {"batches": 2}


def test_a_loader_saved_at_the_end_of_an_epoch_begins_the_next(tmp_path: Path) -> None:
    data = photos(tmp_path, 7)
    ended, taken_up = loader(data), loader(data)
    epoch_of(ended, 0)
    taken_up.load_state_dict(ended.state_dict())
    assert same(epoch_of(taken_up, 1), epoch_of(loader(data), 1))


def test_crops_do_not_depend_on_worker_processes(tmp_path: Path) -> None:
    data = photos(tmp_path, 6)
    assert same(epoch_of(loader(data, workers=2), 1), epoch_of(loader(data), 1))


# The sample set


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
        values = set(np.unique(files.read_label(photo.mask or Path())).tolist())
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


# Data modules


def module(root: Path, **settings: Any) -> FolderDataModule:
    """A data module of a folder, set up for training."""
    data = FolderDataModule(str(root), num_workers=0, preprocessing=TINY, **settings)
    data.setup("fit")
    return data


def test_subset_draws_the_same_share_again_and_keeps_the_order(sample: Path) -> None:
    everything = [photo.name for photo in module(sample).train_photos]
    one, other = ([photo.name for photo in module(sample, subset=0.5).train_photos] for _ in range(2))
    assert one == other == sorted(one)
    assert len(one) == len(everything) / 2
    assert set(one) < set(everything)


def test_subset_of_another_seed_is_another_one(sample: Path) -> None:
    draws = {tuple(photo.name for photo in module(sample, subset=0.5, seed=seed).train_photos) for seed in range(4)}
    assert len(draws) > 1


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
    data.done = lambda: frozenset(names[1:])
    assert [batch["name"] for batch in data.predict_dataloader()] == [[names[0]]]
