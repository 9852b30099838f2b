"""Room on the disk: estimates against real files, and the stop of each stage where there is too little."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tag2mask.cli.main import main
from tag2mask.errors import SpaceError
from tag2mask.io import disk
from tag2mask.io.cams import CAMs, write_cam
from tests.coco_scenes import TRAIN, VAL, write
from tests.commands import SMALL_NET, line, words


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with two blocks left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * disk.BLOCK))


def test_files_take_whole_blocks() -> None:
    line = disk.require_room(Path("not/there/yet"), 1000, [1, disk.BLOCK, disk.BLOCK + 1], "things")
    assert line.startswith(
        f"1,000 things to write into not/there/yet: about {disk.readable_size(1000 * disk.BLOCK * 4 / 3)}, "
    )


@pytest.mark.usefixtures("full")
def test_two_blocks_fit_and_three_do_not(tmp_path: Path) -> None:
    assert "about 8.2 kB, 8.2 kB free" in disk.require_room(tmp_path, 2, [1], "labels")
    with pytest.raises(SpaceError, match=r"3 labels need about 12 kB in .*, where 8\.2 kB are free"):
        disk.require_room(tmp_path, 3, [1], "labels")


def test_a_million_photographs_are_estimated_from_few() -> None:
    found = disk.sample(range(1_000_000))
    assert len(found) == 200
    assert list(disk.sample(range(7))) == list(range(7))


@pytest.mark.parametrize(
    ("size", "expected"),
    [(5e2, "0.5 kB"), (9.96e3, "10 kB"), (9.994e5, "999 kB"), (9.996e5, "1.0 MB"), (3e12, "3.0 TB")],
)
def test_sizes_are_shown_in_a_unit_that_suits_them(size: float, expected: str) -> None:
    assert disk.readable_size(size) == expected


def test_the_estimate_of_a_cam_file_is_near_what_smooth_maps_take(tmp_path: Path) -> None:
    coarse = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    cam = F.interpolate(coarse, (94, 125), mode="bicubic").clamp(0, 1)[0].numpy()
    write_cam(tmp_path / "a.npz", CAMs(torch.as_tensor(cam), torch.tensor([1, 2, 3]), (375, 500)))
    assert disk.cam_bytes(94, 125, 3) == pytest.approx((tmp_path / "a.npz").stat().st_size, rel=0.25)


@pytest.mark.usefixtures("full")
def test_predict_stops_before_it_writes(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    limits = {"trainer__max_epochs": "1", "trainer__limit_train_batches": "1", "trainer__limit_val_batches": "0"}
    command = [*words("fit", "configs/demo/cam_plain.yaml", sample, tmp_path / "run", **limits), *small]
    assert main(command) == 0
    assert main(["predict", *command[1:]]) == 2
    assert "CAM files need about" in line(capsys)
    assert not list((tmp_path / "run" / "cams").glob("*.npz"))


@pytest.mark.usefixtures("full")
def test_labels_stop_before_they_are_written(cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {"class_path": "tag2mask.refine.recipes.PseudoLabels", "init_args": {"walk": None, "crf": None}}
    (tmp_path / "labels.yaml").write_text(json.dumps({"recipe": recipe}))
    command = ["labels", "--config", str(tmp_path / "labels.yaml"), "--cams", str(cams), "--out", str(tmp_path / "out")]
    assert main([*command, "--workers", "1"]) == 2
    assert f"12 labels need about 49 kB in {tmp_path / 'out'}, where 8.2 kB are free" in line(capsys)
    assert not list((tmp_path / "out").glob("*.png"))
    assert main([*command, "--workers", "1", "--shard", "1/4"]) == 2
    assert "12 labels of all shards need about 49 kB" in line(capsys)


@pytest.mark.usefixtures("full")
def test_masks_of_coco_stop_before_any_is_painted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "train", TRAIN)
    write(tmp_path, "val", VAL)
    assert main(["prepare", "coco", "--root", str(tmp_path), "--no-download", "--workers", "1"]) == 2
    assert "10 masks need about 41 kB" in line(capsys)
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.usefixtures("full")
def test_archives_are_not_fetched_to_a_disk_that_cannot_hold_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "coco", "--root", str(tmp_path)]) == 2
    assert "2 copies of train2014.zip, packed and unpacked, need about 26 GB" in line(capsys)
    assert not list(tmp_path.iterdir())
