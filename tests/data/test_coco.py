"""COCO as a data set: tables, lists and the data module, on what `tag2mask prepare coco` would have left."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tag2mask import classes
from tag2mask.cli.main import main
from tag2mask.data import coco
from tag2mask.data.coco import Row, Split, coco_photos
from tag2mask.data.datamodules import COCODataModule
from tag2mask.data.folder import folder_photos
from tag2mask.data.transforms import IMAGENET_MEAN
from tag2mask.errors import InputError
from tag2mask.io.files import read_json
from tag2mask.io.labels import read_label, write_label
from tag2mask.io.records import RUN_FILE
from tag2mask.tasks.checkpoints import check_file
from tests.commands import SMALL_NET, words

ROWS = {
    "train": {
        "COCO_train2014_01": Row((1, 80), 6, 8, "aa"),
        "COCO_train2014_02": Row((), 6, 8, "bb"),
        "plain": Row((10, 64), 6, 8, "cc"),
    },
    "val": {"COCO_val2014_03": Row((17,), 5, 9, "dd"), "COCO_val2014_04": Row((12,), 5, 9, "ee")},
}


def write(split: Split, rows: dict[str, Row]) -> None:
    """Write table and list of a split."""
    split.table.parent.mkdir(exist_ok=True)
    split.table.write_text(coco.table_text(rows))
    split.names.write_text("\n".join([*rows, ""]))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Photographs, all of them empty: nobody may open one."""
    for name, rows in ROWS.items():
        split = Split(name, tmp_path / "coco", tmp_path / "prepared")
        write(split, rows)
        split.photos.mkdir(parents=True)
        for photo in rows:
            (split.photos / f"{photo}{'.png' if photo == 'plain' else '.jpg'}").touch()
    return tmp_path / "coco"


@pytest.fixture
def prepared(root: Path) -> Path:
    return root.parent / "prepared"


# Tables


def test_a_table_is_read_as_it_was_written(prepared: Path) -> None:
    text = (prepared / "tags_train2014.csv").read_text()
    assert text.splitlines()[:3] == [
        "name,tags,height,width,mask",
        "COCO_train2014_01,person;toothbrush,6,8,aa",
        "COCO_train2014_02,,6,8,bb",
    ]
    assert coco.read_table(prepared / "tags_train2014.csv") == ROWS["train"]


def test_every_class_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = {"all": Row(tuple(range(1, 81)), 1, 2, "f")}
    (tmp_path / "t.csv").write_text(coco.table_text(rows))
    assert coco.read_table(tmp_path / "t.csv") == rows


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "does not start with name,tags,height,width,mask"),
        ("name,tags\na,dog\n", "does not start with name,tags,height,width,mask"),
        ("name,tags,height,width,mask\na,dog,6,8\n", "line 2: 'a,dog,6,8'"),
        ("name,tags,height,width,mask\na,dog,6,8,ff\nb,unicorn,6,8,ff\n", "line 3: 'b,unicorn,6,8,ff'"),
        ("name,tags,height,width,mask\na,background,6,8,ff\n", "line 2: 'a,background,6,8,ff'"),
        ("name,tags,height,width,mask\na,dog,six,8,ff\n", "line 2: 'a,dog,six,8,ff'"),
    ],
)
def test_a_damaged_table_is_named_with_its_line(text: str, told: str, root: Path, prepared: Path) -> None:
    path = prepared / "tags_train2014.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        coco_photos(root, prepared, "train")
    assert f"{path}" in str(caught.value)
    assert told in str(caught.value)
    assert "`tag2mask prepare coco`" in str(caught.value)


def test_a_table_of_other_bytes_is_named(root: Path, prepared: Path) -> None:
    (prepared / "tags_train2014.csv").write_bytes(b"name,tags,height,width,mask\n\xff")
    with pytest.raises(InputError, match=r"tags_train2014\.csv is not UTF-8 text"):
        coco_photos(root, prepared, "train")


# Photographs


def test_photographs_have_tags_and_the_paths_of_their_masks(root: Path, prepared: Path) -> None:
    photos = coco_photos(root, prepared, "train")
    assert [(photo.name, photo.tags) for photo in photos] == [(name, row.tags) for name, row in ROWS["train"].items()]
    assert [photo.image for photo in photos] == [
        root / "train2014" / "COCO_train2014_01.jpg",
        root / "train2014" / "COCO_train2014_02.jpg",
        root / "train2014" / "plain.png",
    ]
    assert photos[0].mask == prepared / "masks" / "train2014" / "COCO_train2014_01.png"


def test_masks_and_lists_may_lie_beside_the_photographs(root: Path, prepared: Path) -> None:
    shutil.copytree(prepared, root, dirs_exist_ok=True)
    assert coco_photos(root, root, "val")[1].mask == root / "masks" / "val2014" / "COCO_val2014_04.png"


def test_a_list_of_ones_own_may_hold_names_of_both_in_any_order(root: Path, prepared: Path) -> None:
    (prepared / "some.txt").write_text("COCO_val2014_04\n\nplain\r\nCOCO_train2014_01.jpg\nplain\n")
    photos = coco_photos(root, prepared, "some")
    assert [photo.name for photo in photos] == ["COCO_val2014_04", "plain", "COCO_train2014_01"]
    assert [photo.image.parent.name for photo in photos] == ["val2014", "train2014", "train2014"]
    assert photos[1].mask == prepared / "masks" / "train2014" / "plain.png"


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_needs_nothing_of_the_other(split: str, root: Path, prepared: Path) -> None:
    other = Split("val" if split == "train" else "train", root, prepared)
    other.table.unlink()
    shutil.rmtree(other.photos)
    assert len(coco_photos(root, prepared, split)) == len(ROWS[split])


def no_list(root: Path, prepared: Path) -> str:
    (prepared / "train.txt").unlink()
    return f"no split 'train': {prepared / 'train.txt'} does not exist"


def no_table(root: Path, prepared: Path) -> str:
    (prepared / "tags_train2014.csv").unlink()
    return (
        f"3 of 3 names in {prepared / 'train.txt'} are in no table tags_*2014.csv beside it, the first COCO_train2014"
    )


def a_name_in_no_table(root: Path, prepared: Path) -> str:
    (prepared / "train.txt").write_text("plain\nghost\n")
    return f"1 of 2 names in {prepared / 'train.txt'} are in no table tags_*2014.csv beside it, the first ghost"


def an_empty_list(root: Path, prepared: Path) -> str:
    (prepared / "train.txt").write_text("\n")
    return f"{prepared / 'train.txt'} is empty"


def no_photographs(root: Path, prepared: Path) -> str:
    shutil.rmtree(root / "train2014")
    return f"no folder {root / 'train2014'}"


def a_photograph_missing(root: Path, prepared: Path) -> str:
    (root / "train2014" / "plain.png").rename(root / "train2014" / "plain.gif")
    return f"1 of 3 names of train.txt have no photograph in {root / 'train2014'}, the first 'plain'"


@pytest.mark.parametrize(
    "spoil",
    [no_list, no_table, a_name_in_no_table, an_empty_list, no_photographs, a_photograph_missing],
    ids=lambda spoil: spoil.__name__,
)
def test_what_is_missing_is_named(spoil: Callable[[Path, Path], str], root: Path, prepared: Path) -> None:
    told = spoil(root, prepared)
    with pytest.raises(InputError) as caught:
        coco_photos(root, prepared, "train")
    assert told in str(caught.value)


def test_a_missing_preparation_names_the_command(root: Path, prepared: Path) -> None:
    shutil.rmtree(prepared)
    for folder, out in ((root, ""), (prepared, f" --out {prepared}")):
        with pytest.raises(InputError) as caught:
            coco_photos(root, folder, "val")
        assert str(caught.value).endswith(f"`tag2mask prepare coco --root {root}{out}`")


def test_an_unknown_split_is_named_with_those_there_are(root: Path, prepared: Path) -> None:
    with pytest.raises(InputError, match=r"no split 'trian'.*trian\.txt.*train, val or a list"):
        coco_photos(root, prepared, "trian")


# The data module


def test_the_data_module_takes_prepared_or_else_the_root(root: Path, prepared: Path) -> None:
    data = COCODataModule(str(root), str(prepared), val_split="val")
    data.setup("validate")
    assert [photo.name for photo in data.val_photos] == list(ROWS["val"])
    with pytest.raises(InputError, match=f"{root / 'val.txt'} does not exist"):
        COCODataModule(root=str(root)).setup("validate")


def test_the_data_module_has_the_80_classes_and_records_its_settings(root: Path) -> None:
    data = COCODataModule(str(root), batch_size=3)
    assert data.num_classes == 80
    assert data.class_names[0] == "person"
    assert data.hparams["prepared"] is None
    assert data.hparams["batch_size"] == 3
    assert data.preprocessing.crop_size == 512


@pytest.fixture
def scenes(sample: Path, tmp_path: Path) -> Path:
    """The scenes of the sample set as COCO's, prepared in ``tmp_path/prepared``; classes by COCO's first names."""
    for name in ("train", "val"):
        split = Split(name, tmp_path / "scenes", tmp_path / "prepared")
        split.photos.mkdir(parents=True)
        rows = {}
        for photo in folder_photos(sample, name):
            shutil.copy(photo.image, split.photos / f"{photo.name}.jpg")
            mask = read_label(photo.mask or Path())
            write_label(split.masks / f"{photo.name}.png", mask)
            rows[photo.name] = Row(photo.tags or (), *mask.shape, "0")
        write(split, rows)
    return tmp_path / "scenes"


def test_a_configuration_trains_scores_and_leaves_a_checkpoint_that_knows_its_preprocessing(
    scenes: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load(Path("configs/voc/cam_lite0_plain.yaml").read_text())
    splits = {"train_split": "train", "predict_split": "val", "prepared": str(tmp_path / "prepared")}
    data = {"class_path": "tag2mask.data.datamodules.COCODataModule"}
    config["data"] = data | {"init_args": config["data"]["init_args"] | splits}
    (tmp_path / "cam.yaml").write_text(yaml.safe_dump(config))
    over = {"trainer__max_epochs": "1", "trainer__check_val_every_n_epoch": "1", "trainer__limit_train_batches": "1"}
    over |= {"trainer__limit_val_batches": "1", "trainer__logger": "false"}
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    command = words("fit", tmp_path / "cam.yaml", scenes, tmp_path / "run", **over)
    assert main([*command, *small]) == 0
    found = check_file(tmp_path / "run" / "checkpoints" / "last.ckpt")["tag2mask"]["preprocessing"]
    assert found["crop_size"] == 64
    assert found["mean"] == IMAGENET_MEAN  # of ResNet-18
    assert main(["predict", *command[1:], *small]) == 0
    cams = sorted((tmp_path / "run" / "cams").glob("*.npz"))
    assert [path.stem for path in cams] == (tmp_path / "prepared" / "val.txt").read_text().split()
    record = read_json(tmp_path / "run" / "cams" / RUN_FILE)
    assert record["config"]["classes"] == list(classes.COCO[1:])
