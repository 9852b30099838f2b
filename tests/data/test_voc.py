from collections.abc import Callable
from pathlib import Path

import pytest

from tag2mask.data import voc
from tag2mask.errors import InputError
from tests.folders import annotation


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


def test_columns_of_a_list_of_a_class_are_left_out(devkit: Path) -> None:
    (devkit / "ImageSets" / "Segmentation" / "cat_train.txt").write_text("a -1\nb.jpg  1\nb  0\n")
    assert voc.split_names(devkit, "cat_train") == ["a", "b"]


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
    return f"no folder {root / 'JPEGImages'}"


def an_empty_list(root: Path) -> str:
    path = root / "ImageSets" / "Segmentation" / "train.txt"
    path.write_text("\n")
    return f"{path} is empty"


def an_id_without_image(root: Path) -> str:
    (root / "JPEGImages" / "b.jpg").unlink()
    return f"1 of 2 names of the split train have no photograph in {root / 'JPEGImages'}, the first 'b'"


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
    return f"{path} cannot be read as XML"


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
