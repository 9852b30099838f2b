"""Masks, tags and lists of COCO: exact on drawn annotations, against pycocotools on real ones; faults are named."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools.coco import COCO

from tag2mask.cli.main import main
from tag2mask.data import coco
from tag2mask.data.photos import read_mask
from tag2mask.data.prepare import coco as prepare_coco
from tag2mask.data.prepare import instances
from tag2mask.data.prepare.fetch import Archive
from tag2mask.io.files import read_json
from tag2mask.io.images import read_image
from tag2mask.io.labels import read_label, write_label
from tag2mask.io.records import RUN_FILE, digest_of_file
from tests.coco_scenes import (
    CAT,
    DOG,
    EXPECTED,
    LAST,
    PICTURES,
    SIZE,
    TRAIN,
    VAL,
    annotations,
    category,
    command,
    drawn,
    name_of,
    write,
)
from tests.commands import hear_ctrl_c, line


@pytest.fixture(autouse=True)
def large_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for the archives, which nobody fetches here, on any machine."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**12))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Drawn annotations in COCO's layout."""
    write(tmp_path / "coco", "train", TRAIN)
    write(tmp_path / "coco", "val", VAL)
    return tmp_path / "coco"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the records, which name the time."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RUN_FILE)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# What is made


def test_masks_tags_and_sizes_are_as_drawn(root: Path, out: Path) -> None:
    assert main(command(root, out)) == 0
    table = [line.split(",") for line in (out / "tags_train2014.csv").read_text().splitlines()]
    assert table[0] == ["name", "tags", "height", "width", "mask"]
    assert [row[0] for row in table[1:]] == sorted(name_of(title) for title in PICTURES)
    rows = {row[0]: row[1:] for row in table[1:]}
    for title, (tags, expected) in EXPECTED.items():
        found = read_label(out / "masks" / "train2014" / f"{name_of(title)}.png")
        np.testing.assert_array_equal(found, drawn(expected), err_msg=title)
        assert rows[name_of(title)][:3] == [tags, "6", "8"]
    assert not list(out.rglob("*.part"))


def test_the_data_module_reads_what_was_made(root: Path, out: Path) -> None:
    assert main(command(root, out)) == 0
    photos = {photo.name: photo for photo in coco.coco_photos(root, out, "train")}
    assert list(photos) == sorted(name_of(title) for title in PICTURES)
    assert photos[name_of("wholly covered")].tags == (CAT, LAST)
    assert photos[name_of("nothing")].tags == ()
    assert read_mask(photos[name_of("two polygons")], SIZE, 80).max() == DOG


@pytest.mark.parametrize(("lists", "train", "val"), [("all", 8, 2), ("annotated", 6, 1)])
def test_both_lists_are_to_be_had(lists: str, train: int, val: int, root: Path, out: Path) -> None:
    assert main(command(root, out, "--lists", lists)) == 0
    names = (out / "train.txt").read_text().split()
    assert (len(names), len((out / "val.txt").read_text().split())) == (train, val)
    assert names == sorted(names)
    assert (name_of("a crowd alone") in names) == (name_of("nothing") in names) == (lists == "all")


def test_without_out_all_lies_beside_the_photographs(root: Path) -> None:
    assert main(["prepare", "coco", "--root", str(root), "--no-download", "--workers", "1"]) == 0
    assert {path.name for path in root.iterdir()} >= {"masks", "tags_train2014.csv", "tags_val2014.csv", "val.txt"}


def test_the_table_counts_and_says_what_was_published(
    root: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(coco.PUBLISHED, "all", {"train": 82783, "val": 2})
    assert main(command(root, out)) == 0
    train, val = capsys.readouterr().out.splitlines()[1:]
    assert train.split()[:3] == ["train", "8", "6"]
    assert train.endswith("the published one has 82,783")
    assert val.endswith("as published")
    checksum = read_json(out / "masks" / "train2014" / "run.json")["checksum"]
    assert train.split()[3] == checksum[:16]


def test_several_processes_write_what_one_writes(root: Path, out: Path) -> None:
    assert main(command(root, out / "one")) == 0
    assert main(command(root, out / "two", "--workers", "2")) == 0
    assert contents(out / "one") == contents(out / "two")


def test_the_order_of_the_file_matters_for_equal_areas_only(root: Path, out: Path) -> None:
    assert main(command(root, out / "one")) == 0
    turned = copy.deepcopy(TRAIN)
    for key in ("annotations", "images", "categories"):
        turned[key].reverse()
    write(root, "train", {key: turned[key] for key in ("categories", "annotations", "images")})
    assert main(command(root, out / "two")) == 0
    one, two = contents(out / "one"), contents(out / "two")
    tie = name_of("equal, the later wins")
    assert {key for key in one if one[key] != two[key]} == {f"masks/train2014/{tie}.png", "tags_train2014.csv"}
    found = read_label(out / "two" / "masks" / "train2014" / f"{tie}.png")
    np.testing.assert_array_equal(found, drawn("ddd..... ddd..... dddcc... ..ccc... ..ccc... ........"))


# Again, and after an end in the middle


def test_a_finished_split_is_neither_read_nor_painted_again(
    root: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(command(root, out)) == 0
    shown = capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    monkeypatch.setattr(instances, "read_scenes", lambda _: pytest.fail("read again"))
    before = contents(out)
    assert main(command(root, out, "--verify")) == 0
    assert capsys.readouterr().out == shown
    assert contents(out) == before
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}


def test_only_masks_that_are_missing_are_written_again(root: Path, out: Path) -> None:
    assert main(command(root, out)) == 0
    before = contents(out)
    gone = out / "masks" / "train2014" / f"{name_of('compressed')}.png"
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png") if path != gone}
    gone.unlink()
    (gone.parent / f".{gone.name}.99.part").write_bytes(b"half")
    assert main(command(root, out)) == 0
    assert contents(out) == before
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many scenes that their masks take seconds."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    objects = {f"p{k:03d}": [(1 + k % 80, 9, [rng.uniform(0, 480, 40).tolist()])] for k in range(250)}
    data = annotations(objects)
    for image in data["images"]:
        image |= {"height": 480, "width": 640}
    write(root, "train", data)
    write(root, "val", VAL)
    return root


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def started(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def begin(many: Path, out: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start two processes, in a group of their own, and wait for their first masks."""
    words = [sys.executable, "-m", "tag2mask", *command(many, out, "--workers", "2")]
    alone = {"start_new_session": True, "preexec_fn": hear_ctrl_c}
    process = subprocess.Popen(words, text=True, stderr=subprocess.PIPE, **alone)
    wait_until(lambda: len(list((out / "masks" / "train2014").glob("[!.]*.png"))) > 5)
    return process, started(process.pid)


@pytest.mark.slow
def test_killed_in_the_middle_it_leaves_no_process_and_ends_with_the_same_files(many: Path, out: Path) -> None:
    assert main(command(many, out / "unbroken")) == 0
    broken = out / "broken"
    process, children = begin(many, broken)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 30)
    there = {path: path.stat().st_mtime_ns for path in (broken / "masks" / "train2014").glob("[!.]*.png")}
    assert 5 < len(there) < 250
    assert not (broken / "tags_train2014.csv").exists()
    assert main(command(many, broken)) == 0
    assert contents(broken) == contents(out / "unbroken")
    assert there == {path: path.stat().st_mtime_ns for path in there}


@pytest.mark.parametrize(
    ("who", "stop", "status", "told"),
    [
        ("a child", signal.SIGKILL, 2, "tag2mask: a process was killed, most likely for want of memory"),
        ("all", signal.SIGINT, 130, "tag2mask: interrupted; the same command goes on where it stopped"),
    ],
)
def test_an_end_in_the_middle_is_one_line(
    who: str, stop: signal.Signals, status: int, told: str, many: Path, out: Path
) -> None:
    process, children = begin(many, out)
    if who == "all":  # as a terminal does
        os.killpg(process.pid, stop)
    else:
        os.kill(children[-1], stop)
    lines = process.communicate(timeout=60)[1].strip().splitlines()
    assert process.returncode == status
    assert lines[-1].startswith(told)
    assert all(line.startswith("reading ") or " masks to write into " in line for line in lines[:-1])


def test_other_annotations_stop_and_overwrite_replaces(
    root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(root, out)) == 0
    before = contents(out)
    other = copy.deepcopy(TRAIN)
    other["annotations"][0]["category_id"] = category(CAT)
    write(root, "train", other)
    assert main(command(root, out)) == 2
    message = line(capsys)
    assert "masks/train2014 was made with another configuration (annotations: " in message
    assert "--overwrite" in message
    assert contents(out) == before
    assert main(command(root, out, "--overwrite")) == 0
    changed = {name for name, content in contents(out).items() if content != before[name]}
    assert changed == {f"masks/train2014/{name_of('two polygons')}.png", "tags_train2014.csv"}
    assert contents(out).keys() == before.keys()


def test_pngs_of_somebody_else_are_never_touched(root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = out / "masks" / "train2014" / f"{name_of('nothing')}.png"
    write_label(path, np.ones(SIZE))
    before = contents(out)
    for more in ((), ("--overwrite",)):
        assert main(command(root, out, *more)) == 2
        assert "holds PNG files that were not made here" in line(capsys)
    assert contents(out) == before


def test_another_list_is_not_replaced_unasked(root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(root, out)) == 0
    before = contents(out)
    assert main(command(root, out, "--lists", "annotated")) == 2
    assert "train.txt is not the list that --lists annotated makes" in line(capsys)
    (out / "val.txt").write_text("COCO_val2014_none\n")
    assert main(command(root, out)) == 2
    assert "val.txt is not the list that --lists all makes" in line(capsys)
    (out / "val.txt").unlink()
    assert main(command(root, out)) == 0
    assert contents(out) == before
    assert main(command(root, out, "--lists", "annotated", "--overwrite")) == 0
    assert len((out / "train.txt").read_text().split()) == 6


# What spoils a mask, a table, or a photograph


@pytest.mark.parametrize(
    ("damage", "reason"), [("cut", "cannot be read"), ("turned", "pixels, expected"), ("pixels", "other pixels")]
)
def test_verify_names_the_first_mask_that_is_not_as_painted_and_says_why(
    damage: str, reason: str, root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(root, out)) == 0
    before = contents(out)
    first, second = sorted((out / "masks" / "train2014").glob("*.png"))[2:4]
    for path in (second, first):
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-40])
        else:
            write_label(path, read_label(path).reshape(SIZE[::-1]) if damage == "turned" else np.full(SIZE, 3))
    assert main(command(root, out)) == 0
    for workers in ("1", "2"):
        assert main(command(root, out, "--verify", "--workers", workers)) == 2
        said = line(capsys)
        assert f"2 of 8 masks in {first.parent} are not as painted, the first {first.name}: " in said
        assert reason in said
    first.unlink()
    second.unlink()
    capsys.readouterr()
    assert main(command(root, out, "--verify")) == 0
    assert f"2 masks are missing in {first.parent} and are painted again" in capsys.readouterr().err
    assert contents(out) == before


def test_a_changed_table_is_named_and_made_again_once_deleted(
    root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(root, out)) == 0
    before, table = contents(out), out / "tags_train2014.csv"
    table.write_text(table.read_text().replace("dog", "cat"))
    assert main(command(root, out)) == 2
    assert f"{table} has not the checksum" in line(capsys)
    table.unlink()
    assert main(command(root, out)) == 0
    assert contents(out) == before


@pytest.mark.parametrize("finished", [False, True])
def test_missing_photographs_are_counted_and_the_first_named(
    finished: bool, root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not finished or main(command(root, out)) == 0
    for title in ("nothing", "compressed"):
        (root / "train2014" / f"{name_of(title)}.jpg").unlink()
    assert main(command(root, out)) == 2
    message = line(capsys)
    assert "2 of 8 names of instances_train2014.json have no photograph" in message
    assert f"the first '{name_of('compressed')}'" in message
    assert finished or not out.exists()


@pytest.mark.parametrize(("more", "told"), [(("--workers", "0"), "--workers 0"), (("--lists", "some"), "'some'")])
def test_a_wrong_word_is_one_line(
    more: tuple[str, ...], told: str, root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(root, out, *more)) == 2
    assert told in line(capsys)
    assert not out.exists()


# The network


@pytest.mark.parametrize("what", ["train2014", "val2014", "annotations/instances_val2014.json"])
def test_without_download_what_is_missing_is_named_with_its_source(
    what: str, root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / what).rename(root / "away")
    assert main(command(root, out)) == 2
    message = line(capsys)
    assert message.startswith(f"tag2mask: no whole {root}")
    assert "leave out --no-download, or put http://images.cocodataset.org/" in message


@pytest.fixture
def site(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The drawn data set as the archives that COCO publishes, on a site."""
    folder = root.parent / "site"
    folder.mkdir()
    for name in ("train2014", "val2014", "annotations"):
        path = folder / Path(prepare_coco.ARCHIVES[name].address).name
        with zipfile.ZipFile(path, "w") as packed:
            for each in sorted((root / name).iterdir()):
                packed.write(each, f"{name}/{each.name}")
        archive = Archive(path.as_uri(), digest_of_file(path, "md5"), path.stat().st_size)
        monkeypatch.setitem(prepare_coco.ARCHIVES, name, archive)
    return folder


def fetching(root: Path, out: Path) -> list[str]:
    return [word for word in command(root, out) if word != "--no-download"]


def test_a_refused_download_is_one_line_that_names_the_way_round(
    site: Path, root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "val2014")
    (site / "val2014.zip").unlink()
    assert main(fetching(root, out)) == 2
    message = line(capsys)
    assert "val2014.zip cannot be fetched (" in message
    assert message.endswith(f"or fetch it by hand and put it into {root}")
    assert {path.name for path in root.iterdir()} == {"train2014", "annotations"}


def test_only_what_is_missing_is_fetched_and_an_archive_cut_short_is_not_taken_for_whole(
    site: Path, root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(root)
    shutil.rmtree(root / "val2014")
    whole = (site / "val2014.zip").read_bytes()
    (root / "val2014.zip").write_bytes(whole[:50])
    assert main(command(root, out)) == 2
    assert not (root / "val2014").exists()
    for _ in range(2):
        assert main(fetching(root, out)) == 0
        assert "train2014.zip" not in capsys.readouterr().err
    assert {path.name for path in root.iterdir()} == {"train2014", "val2014", "annotations", "val2014.zip"}
    (root / "val2014.zip").unlink()
    assert contents(root) == before


def test_an_archive_put_there_by_hand_needs_no_network(site: Path, root: Path, out: Path) -> None:
    shutil.rmtree(root / "val2014")
    shutil.move(site / "val2014.zip", root)
    assert main(command(root, out)) == 0


def test_killed_while_unpacking_it_goes_on(site: Path, root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(root / "val2014")
    (root / ".val2014.zip.unpacked" / "val2014").mkdir(parents=True)
    assert main(fetching(root, out)) == 0
    assert {path.name for path in root.iterdir()} == {"train2014", "val2014", "annotations", "val2014.zip"}


def test_a_lacking_annotation_file_is_put_beside_the_other(site: Path, root: Path, out: Path) -> None:
    changed = json.dumps(TRAIN, indent=1)
    (root / "annotations" / "instances_train2014.json").write_text(changed)
    (root / "annotations" / "instances_val2014.json").unlink()
    assert main(fetching(root, out)) == 0
    assert (root / "annotations" / "instances_train2014.json").read_text() == changed
    assert json.loads((root / "annotations" / "instances_val2014.json").read_text()) == VAL


# Real photographs


@pytest.fixture(scope="module")
def real(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of the real photographs, made by the command."""
    out = tmp_path_factory.mktemp("real")
    assert main(command(photographs / "coco", out, "--verify")) == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_masks_are_pycocotools_with_the_smallest_area_on_top(split: str, photographs: Path, real: Path) -> None:
    truth = COCO(str(photographs / "coco" / "annotations" / f"instances_{split}2014.json"))
    ids = sorted(truth.cats)
    overlapping = 0
    for photo in coco.coco_photos(photographs / "coco", real, split):
        image = int(photo.name[-12:])
        objects = [entry for entry in truth.imgToAnns[image] if not entry["iscrowd"]]
        label, smallest, covered = (np.zeros(read_image(photo.image).shape[:2]) for _ in range(3))
        smallest += np.inf
        for entry in objects:  # in the order of the file
            mine = truth.annToMask(entry).astype(bool)
            wins = mine & (entry["area"] <= smallest)
            label[wins], smallest[wins] = ids.index(entry["category_id"]) + 1, entry["area"]
            covered += mine
        assert photo.mask is not None
        np.testing.assert_array_equal(read_label(photo.mask), label, err_msg=photo.name)
        assert photo.tags == tuple(sorted({ids.index(entry["category_id"]) + 1 for entry in objects}))
        overlapping += int((covered > 1).sum())
    assert overlapping > 10000


@pytest.mark.slow
def test_the_real_lists_are_of_all_photographs(photographs: Path, real: Path) -> None:
    for split in ("train", "val"):
        there = sorted(path.stem for path in (photographs / "coco" / f"{split}2014").glob("*.jpg"))
        assert (real / f"{split}.txt").read_text().split() == there
