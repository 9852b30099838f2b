"""What `evaluate` scores, and what it refuses to."""

from pathlib import Path

import numpy as np
import pytest

from tag2mask.cli.main import main
from tag2mask.io.labels import write_label
from tag2mask.metrics.evaluation import Task, evaluate, read_names

LABEL = np.array([[0, 1], [1, 2]], np.uint8)


@pytest.fixture
def scored(tmp_path: Path) -> tuple[Path, Path]:
    """Labels and masks of ``a``, ``b`` and ``my cat``, all right; one of the masks has its ending in capitals."""
    for name in ("a", "b", "my cat"):
        write_label(tmp_path / "labels" / f"{name}.png", LABEL)
        write_label(tmp_path / "masks" / f"{name}.{'PNG' if name == 'b' else 'png'}", LABEL)
    (tmp_path / "masks" / "._a.png").write_bytes(b"of macOS")
    return tmp_path / "labels", tmp_path / "masks"


def last_line(given: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["evaluate", *map(str, given)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_masks_with_their_ending_in_capitals_are_scored(scored: tuple[Path, Path]) -> None:
    names = read_names(*scored, None)
    assert names == ["a", "b", "my cat"]
    assert evaluate(Task(*scored, names, ("background", "cat", "dog")), ())["best"]["miou"] == 1


def test_a_list_is_read_as_that_of_a_training_is(scored: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("my cat.JPG\nb.jpeg\nb\n")
    assert read_names(*scored, tmp_path / "val.txt") == ["my cat", "b"]


def test_masks_of_black_and_white_are_refused(scored: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for path in scored[1].glob("[!.]*"):
        write_label(path, LABEL.clip(0, 1) * 255)
    assert "masks hold only 0 and 255" in last_line([scored[0], "--masks", scored[1]], capsys)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("cat\nBackground\n", "line 2: 'Background' is the background"),
        ("cat\ncat\n", "has 2 names, 1 of them different"),
        ("\n", "names no class"),
    ],
)
def test_a_spoilt_list_of_classes_is_named(
    lines: str, said: str, scored: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "classes.txt").write_text(lines)
    assert said in last_line([scored[0], "--masks", scored[1], "--classes", tmp_path / "classes.txt"], capsys)


def test_the_background_has_one_row(
    scored: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "classes.txt").write_text("_Background_\ncat\ndog\n")
    given = [scored[0], "--masks", scored[1], "--classes", tmp_path / "classes.txt"]
    assert main(["evaluate", *map(str, given)]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert rows[2:5] == ["background", "cat", "dog"]


def test_predictions_without_a_mask_are_counted(
    scored: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scored[1] / "a.png").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    given = [scored[0], "--masks", scored[1], "--classes", tmp_path / "classes.txt"]
    assert main(["evaluate", *map(str, given)]) == 0
    assert "1 of 3 files in " in (said := capsys.readouterr().err)
    assert "are not scored" in said
