import time
from pathlib import Path

import pytest

from tag2mask.cli.main import main
from tag2mask.utils.progress import Lines, progress
from tests.commands import SMALL_NET, words


def test_a_file_gets_a_line_now_and_then_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(1000), 1000, "photographs")) == list(range(1000))
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert shown.startswith("1000 of 1000 photographs, ")
    assert shown.endswith(" a second, 00:00 left\n")
    list(progress(range(3), 3, "files", seconds=0))
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["1", "2", "3"]


def test_the_rate_and_the_time_left_are_right(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    list(progress(range(40), 100, "photographs", seconds=60))
    assert capsys.readouterr().err == "30 of 100 photographs, 0.50 a second, 02:20 left\n"


def test_what_was_done_before_does_not_count_for_the_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 10.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    Lines(100, "steps", seconds=5, before=80).tell(90, lambda: "epoch 2 of 2")
    assert capsys.readouterr().err == "90 of 100 steps, 1.00 a second, 00:10 left; epoch 2 of 2\n"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(progress(range(3), 3, "photographs")) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err


@pytest.mark.slow
def test_training_scoring_and_prediction_tell_lines_to_a_file_without_bars_or_colours(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over = {"trainer__enable_progress_bar": "true", "trainer__max_epochs": "1", "trainer__check_val_every_n_epoch": "1"}
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    command = [*words("fit", "configs/demo/cam_plain.yaml", sample, tmp_path, **over), *small]
    for verb in ("fit", "validate", "predict"):
        assert main([verb, *command[1:]]) == 0
    out, told = capsys.readouterr()
    assert "\n4 of 4 steps, " in f"\n{told}"
    assert "00:00 left; epoch 1 of 1, train/loss 0." in told
    assert told.count("4 of 4 photographs scored, ") == 2
    assert "4 of 4 photographs predicted, " in told
    assert not set(out + told) & set("\r\x1b")
