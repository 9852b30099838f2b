"""Labels that follow regions: the rule, by hand and on superpixels, and the files of other tools."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask

from tag2mask.cli.main import main
from tag2mask.errors import DamagedError, InputError, MismatchError, MissingError, SettingError
from tag2mask.io.labels import read_label
from tag2mask.io.regions import of_map, read_regions
from tag2mask.refine.regions import Regions
from tests.commands import fault

SUPERPIXELS, FOLDER = (f"--recipe.init_args.regions.{key}" for key in ("superpixels", "folder"))
MAP = np.array([[1, 1, 1, 2, 2], [1, 1, 1, 2, 2], [3, 3, 3, 0, 0]], np.uint8)


def save(folder: Path, regions: Any, name: str = "a") -> Path:
    folder.mkdir(exist_ok=True)
    if isinstance(regions, np.ndarray):
        Image.fromarray(regions).save(folder / f"{name}.png")
    else:
        (folder / f"{name}.json").write_text(json.dumps(regions))
    return folder


def code(pixels: np.ndarray) -> dict[str, Any]:
    packed = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"segmentation": {"size": packed["size"], "counts": packed["counts"].decode()}}


def test_a_region_joins_the_class_that_has_most_of_it(tmp_path: Path) -> None:
    label = np.array([[5, 5, 5, 0, 5], [5, 0, 0, 7, 7], [0, 0, 5, 5, 255]], np.uint8)
    snapped = Regions(str(save(tmp_path / "maps", MAP))).snap(label, None, "a")
    # 1: 4 of 6 are class 5. 2: no class has more than half of 4. 3: background has 2 of 3. 0 is no region.
    assert snapped.tolist() == [[5, 5, 5, 0, 5], [5, 5, 5, 7, 7], [0, 0, 0, 5, 255]]


def test_a_region_that_covers_most_of_a_class_joins_it(tmp_path: Path) -> None:
    label = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 7, 0], [0, 0, 0, 0, 0]], np.uint8)
    folder = str(save(tmp_path / "maps", MAP))
    assert not Regions(folder).snap(label, None, "a").any()
    assert (Regions(folder, covers=0.85).snap(label, None, "a") == 7 * (MAP == 2)).all()


def test_a_small_region_lies_on_top_of_a_large_one(tmp_path: Path) -> None:
    label = np.array([[5, 5, 5, 5, 5], [5, 5, 5, 0, 7], [5, 5, 5, 7, 7]], np.uint8)
    whole, corner = np.ones((3, 5), bool), np.zeros((3, 5), bool)
    corner[1:, 3:] = True
    for order in ([whole, corner], [corner, whole]):
        folder = save(tmp_path / "codes", {"annotations": [code(each) for each in order]})
        snapped = Regions(str(folder)).snap(label, None, "a")
        assert (snapped == np.where(corner, 7, 5)).all()


def test_maps_and_codes_of_the_same_regions_are_read_alike(tmp_path: Path) -> None:
    deep = save(tmp_path / "deep", MAP.astype(np.uint16) * 1000)
    flat = save(tmp_path / "flat", MAP)
    codes = save(tmp_path / "codes", [code(number == MAP) for number in (1, 2, 3)])
    runs = [{"segmentation": {"size": [3, 5], "counts": [0, 2, 1, 2, 1, 2, 7]}}]  # column by column: region 1
    first, second, third = (read_regions(folder, "a", (3, 5)) for folder in (deep, flat, codes))
    assert [each.tolist() for each in first] == [each.tolist() for each in second] == [each.tolist() for each in third]
    assert first[0].tolist() == np.flatnonzero(MAP == 1).tolist()
    (only,) = read_regions(save(tmp_path / "runs", runs), "a", (3, 5))
    assert only.tolist() == first[0].tolist()
    assert of_map(np.zeros((2, 2), int)) == []


@pytest.mark.parametrize(
    ("regions", "kind", "said"),
    [
        (np.zeros((4, 5), np.uint8), MismatchError, "4 x 5"),
        (np.zeros((3, 5, 3), np.uint8), DamagedError, "RGB"),
        ({"masks": []}, DamagedError, "no list"),
        ([{"bbox": [0, 0, 1, 1]}], DamagedError, "run-length code"),
        ([{"segmentation": [[0, 0, 1, 1, 2, 2]]}], DamagedError, "run-length code"),
        ([{"segmentation": {"size": [5, 3], "counts": [15]}}], MismatchError, "size"),
        ([{"segmentation": {"size": [3, 5], "counts": [14]}}], DamagedError, "add up"),
        ([{"segmentation": {"size": [3, 5], "counts": [10**12, 5 - 10**12]}}], DamagedError, "add up"),
        ([{"segmentation": {"size": [3, 5], "counts": "0"}}], DamagedError, "add up"),
        ([{"segmentation": {"size": [3, 5], "counts": "\udcff"}}], DamagedError, "add up"),
        ([{"segmentation": {"size": [3, 5]}}], DamagedError, "add up"),
        (None, DamagedError, "no list"),
    ],
)
def test_regions_that_do_not_fit_are_refused(tmp_path: Path, regions: Any, kind: type[InputError], said: str) -> None:
    folder = save(tmp_path / "x", regions)
    with pytest.raises(kind, match=said) as raised:
        read_regions(folder, "a", (3, 5))
    assert str(folder) in str(raised.value)


def test_regions_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"b\.png or b\.json"):
        read_regions(save(tmp_path / "x", MAP), "b", (3, 5))


@pytest.mark.parametrize("wrong", [{"inside": 0.4}, {"inside": 1.0}, {"covers": 0.0}, {"superpixels": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        Regions(**wrong)  # type: ignore[arg-type]


def words(cams: Path, sample: Path, out: Path, *more: str) -> list[str]:
    where = ["--cams", str(cams), "--photos", str(sample / "images"), "--out", str(out), "--list"]
    recipe = ["--recipe", "PseudoLabels", "--recipe.init_args.crf", "null", "--workers", "1", "--steps", "true"]
    return ["labels", *recipe, *where, str(sample / "val.txt"), *more]


def test_labels_follow_superpixels(cams: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "labels"
    assert main(words(cams, sample, out, SUPERPIXELS, "200")) == 0
    for path in sorted(out.glob("*.png")):
        seed, snapped = read_label(out / "steps" / "seed" / path.name), read_label(path)
        assert 0 < (seed != snapped).mean() < 0.2
        assert set(np.unique(snapped)) <= set(np.unique(seed))
    monkeypatch.setattr("tag2mask.refine.regions.find_spec", lambda name: None)
    assert "pip install tag2mask[regions]" in str(fault(words(cams, sample, tmp_path / "other", SUPERPIXELS, "200")))
    assert not (tmp_path / "other").exists()


def test_one_photograph_without_regions_ends_no_stage(
    cams: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (sample / "val.txt").read_text().split()
    for name in names[1:]:
        with Image.open(sample / "images" / f"{name}.jpg") as image:
            save(tmp_path / "maps", np.ones(image.size[::-1], np.uint8), name)
    assert main(words(cams, sample, tmp_path / "labels", FOLDER, str(tmp_path / "maps"))) == 1
    assert f"skipped {names[0]}: no regions" in capsys.readouterr().err
    assert len(list((tmp_path / "labels").glob("*.png"))) == len(names) - 1
    save(tmp_path / "maps", np.ones((7, 9), np.uint8), names[1])
    again = words(cams, sample, tmp_path / "labels", FOLDER, str(tmp_path / "maps"))
    assert "was made with another configuration (regions" in str(fault(again))  # no labels of older regions are kept
    assert "no folder of regions" in str(fault(words(cams, sample, tmp_path / "x", FOLDER, f"{tmp_path}{os.sep}none")))
