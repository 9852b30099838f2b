import time

import pytest

from tag2mask.progress import progress


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


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(progress(range(3), 3, "photographs")) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err
