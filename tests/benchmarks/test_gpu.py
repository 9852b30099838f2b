"""The smallest size of `make gpu-evidence`, on a CPU."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.sizes import SIZES, Setup, Size
from benchmarks.gpu.steps import Held
from benchmarks.limit import OutOfTime, TimeLimit
from tag2mask.errors import MissingError, SettingError, UnreachableError

TINY = SIZES["tiny"]


def figures(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pieces, in one call."""
    folder = tmp_path_factory.mktemp("gpu")
    assert gpu.main(["--size", "tiny", "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_every_piece_has_its_figures_and_says_where_they_come_from(out: Path) -> None:
    assert {path.stem for path in out.glob("*.json")} == set(gpu.pieces(TINY))
    for name in gpu.pieces(TINY):
        record = figures(out, name)
        assert record["device"]["name"] == "CPU"
        assert record["settings"]["backbone"]["name"] == "resnet18"
        assert {"commit", "versions", "seconds"} <= record.keys()


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "near"), [("32-true", 1e-5), ("bf16-mixed", 1e-2)])
def test_our_puzzle_cam_and_the_plain_loop_have_the_same_losses(out: Path, precision: str, near: float) -> None:
    """Of the first step, and of the second, which the first step of SGD has changed."""
    found = figures(out, f"step-{precision}")
    first, second = found["puzzle"]["first_losses"]
    assert abs(first - second) > 0.1
    for name in ("loop", "loop, channels last"):
        assert found[name]["first_losses"] == pytest.approx([first, second], rel=near)
        assert found[name]["images_per_second"] > 0
    assert found["plain CAM"]["first_losses"][0] < 0.6 * first  # one branch
    assert found["default"]["first_losses"][0] != pytest.approx(first, rel=1e-3)
    assert found["puzzle"]["steps_timed"] == TINY.steps - TINY.warmup


@pytest.mark.slow
def test_memory_stands_beside_what_is_expected(out: Path) -> None:
    found = [figures(out, f"memory-{name}") for name in ("cam_resnet50", "cam_resnet50_plain")]
    assert [one["measured"] for one in found] == [{"gb_for_2": None}] * 2  # no GPU
    both, one = (of["expected"]["activations_mb_a_crop"] for of in found)
    assert both > 1.1 * one > 0  # two branches keep more than one
    assert "gb_for_2" in found[0]["expected"]


@pytest.mark.slow
def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(out: Path) -> None:
    found = figures(out, "resume-bf16-mixed")
    assert found["killed_at_step"] in (5, 10, 15)
    assert (found["steps"], found["steps_after"]) == (16, 16 - found["killed_at_step"])
    assert found["losses_finite"]
    assert found["last_loss"]["killed"] == found["last_loss"]["unbroken"]
    assert found["weights"] == {"largest": 0.0, "relative": 0.0}


@pytest.mark.slow
def test_the_table_has_every_row_with_all_seeds(out: Path) -> None:
    rows = figures(out, "smoke")["rows"]
    assert {row: found["seeds"] for row, found in rows.items()} == {"tiles": 2, "rsa": 2}
    alone = [figures(out, f"smoke-tiles-rsa-seed{seed}")["rows"]["rsa"]["all/fixed/miou"]["mean"] for seed in (0, 1)]
    assert rows["rsa"]["all/fixed/miou"]["mean"] == pytest.approx(sum(alone) / 2)


@pytest.mark.slow
def test_what_is_there_is_not_run_again(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert gpu.main(["--size", "tiny", "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.json")} == before
    assert capsys.readouterr().out.count(": there, of commit ") == len(before)


@pytest.mark.slow
def test_a_piece_without_time_is_left_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--size", "tiny", "--out", str(tmp_path), "smoke-tiles-rsa-seed0"]
    assert gpu.main([*words, "--minutes", "0"]) == 1
    shown = capsys.readouterr().out
    assert "smoke-tiles-rsa-seed0: left, step 1 of 2" in shown
    assert "left: smoke-tiles-rsa-seed0\nthe same command goes on" in shown
    assert not list(tmp_path.glob("*.json"))
    assert gpu.main(words) == 0
    assert "going on with" in capsys.readouterr().out


def fake(**runs: Callable[[Setup], dict[str, Any]]) -> Callable[[Size], dict[str, gpu.Piece]]:
    return lambda size: {name: gpu.Piece(run) for name, run in runs.items()}


def fails(error: Exception) -> Callable[[Setup], dict[str, Any]]:
    def run(setup: Setup) -> dict[str, Any]:
        raise error

    return run


def test_a_piece_that_fails_notes_its_reason_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
    pieces = fake(
        full=fails(full), late=fails(OutOfTime("step 3 of 9")), bug=fails(KeyError("x")), good=lambda _: {"a": 1}
    )
    monkeypatch.setattr(gpu, "pieces", pieces)
    words = ["--size", "tiny", "--out", str(tmp_path)]
    assert gpu.main(words) == 1
    shown = capsys.readouterr()
    assert figures(tmp_path, "full")["failed"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."
    assert figures(tmp_path, "bug")["failed"] == "KeyError: 'x'"
    assert (figures(tmp_path, "good")["a"], "failed" in figures(tmp_path, "good")) == (1, False)
    assert "failed: full, bug\nleft: late\n" in shown.out
    assert shown.err.count("Traceback") == 1  # of the bug, not of what the machine lacks
    monkeypatch.setattr(gpu, "pieces", fake(full=lambda _: {"a": 2}, good=fails(KeyError("run again"))))
    assert gpu.main(words) == 0  # what failed is tried again
    assert "failed" not in figures(tmp_path, "full")


def test_another_setting_is_measured_again_and_another_commit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = iter(range(9))
    monkeypatch.setattr(gpu, "pieces", fake(good=lambda _: {"a": next(count)}))
    words = ["--size", "tiny", "--out", str(tmp_path)]
    monkeypatch.setattr("benchmarks.record.commit", lambda: "old")
    assert gpu.main(words) == 0
    monkeypatch.setattr("benchmarks.record.commit", lambda: "new")
    assert gpu.main(words) == 0
    assert figures(tmp_path, "good")["a"] == 0
    assert "good: there, of commit old on CPU" in capsys.readouterr().out
    monkeypatch.setitem(gpu.SIZES, "tiny", replace(TINY, photos=3))
    assert gpu.main(words) == 0
    assert (figures(tmp_path, "good")["a"], figures(tmp_path, "good")["commit"]) == (1, "new")
    assert "good: again, for photos: 2, now 3" in capsys.readouterr().out


def test_without_a_gpu_the_full_size_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnreachableError, match="no GPU that torch can use"):
        gpu.main(["--out", str(tmp_path)])
    with pytest.raises(SettingError, match="no piece 'wlak'; expected some of step-bf16-mixed, "):
        gpu.main(["--out", str(tmp_path), "wlak"])
    assert not list(tmp_path.iterdir())


def test_without_photographs_the_ablation_says_so_and_its_table_waits(tmp_path: Path) -> None:
    setup = Setup(SIZES["full"], tmp_path, tmp_path / "VOC2012", TimeLimit())
    with pytest.raises(MissingError, match="no photographs at .*VOC2012; give --data"):
        gpu.pieces(setup.size)["voc-full-plain-seed0"].run(setup)
    with pytest.raises(OutOfTime, match="12 of 12 trainings are not there yet, the first voc-full-plain-seed0"):
        gpu.table(setup)


def test_the_rows_of_one_training_are_one_piece() -> None:
    names = [name for name in gpu.pieces(SIZES["full"]) if name.startswith("voc-full-") and name.endswith("seed2")]
    rows = ["plain", "puzzle", "both-printed", "paper-paper-attended"]
    assert names == [f"voc-full-{row}-seed2" for row in rows]


@pytest.mark.parametrize(("minutes", "handed_out"), [(0, 3), (1, 5)])
def test_a_batch_is_handed_out_less_often_where_the_time_is_over(minutes: float, handed_out: int) -> None:
    batch = {"image": torch.zeros(4, 3, 8, 8)}
    loader = Held(batch, 5, least=3, limit=TimeLimit(minutes))
    assert (len(loader), loader.batch_size) == (5, 4)
    assert [each is batch for each in loader] == [True] * handed_out
