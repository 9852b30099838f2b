"""What `tag2mask evaluate` scores, what it refuses, and what it prints."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.classes import IGNORE
from tag2mask.cli.main import main
from tag2mask.errors import DamagedError, InputError, MismatchError, MissingError, SettingError
from tag2mask.io.cams import CAMs, write_cam
from tag2mask.io.labels import write_label
from tag2mask.io.records import write_run
from tag2mask.metrics.evaluation import WORST, Task, evaluate, mean_over, read_names, steps_table, table
from tests.commands import fault

LABEL = np.array([[0, 1], [1, 2]], np.uint8)
CLASSES = ("background", "cat", "dog")


@pytest.fixture
def scored(tmp_path: Path) -> tuple[Path, Path]:
    """Labels and masks of ``a``, ``b`` and ``my cat``, all right; one of the masks has its ending in capitals."""
    for name in ("a", "b", "my cat"):
        write_label(tmp_path / "labels" / f"{name}.png", LABEL)
        write_label(tmp_path / "masks" / f"{name}.{'PNG' if name == 'b' else 'png'}", LABEL)
    (tmp_path / "masks" / "._a.png").write_bytes(b"of macOS")
    return tmp_path / "labels", tmp_path / "masks"


def command(scored: tuple[Path, Path], *more: object) -> list[str]:
    return ["evaluate", str(scored[0]), "--masks", str(scored[1]), *map(str, more)]


def test_masks_with_their_ending_in_capitals_are_scored(scored: tuple[Path, Path]) -> None:
    names = read_names(*scored, None)
    assert names == ["a", "b", "my cat"]
    assert evaluate(Task(*scored, names, CLASSES), ())["best"]["miou"] == 1


def test_a_list_is_read_as_that_of_a_training_is(scored: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("my cat.JPG\nb.jpeg\nb\n")
    assert read_names(*scored, tmp_path / "val.txt") == ["my cat", "b"]


def test_masks_of_black_and_white_are_refused(scored: tuple[Path, Path]) -> None:
    for path in scored[1].glob("[!.]*"):
        write_label(path, LABEL.clip(0, 1) * 255)
    error = fault(command(scored))
    assert isinstance(error, DamagedError)
    assert "masks hold only 0 and 255" in str(error)


@pytest.mark.parametrize(
    ("lines", "fact"),
    [
        ("cat\nBackground\n", "'Background', the background"),
        ("cat\ncat\n", "has 2 names, 1 of them different"),
        ("\n", "names no class"),
    ],
)
def test_a_spoilt_list_of_classes_is_named(lines: str, fact: str, scored: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(lines)
    assert fact in str(fault(command(scored, "--classes", tmp_path / "classes.txt")))


def without_a_mask(labels: Path, masks: Path) -> None:
    (masks / "a.png").unlink()


def without_a_label(labels: Path, masks: Path) -> None:
    (labels / "a.png").unlink()


def of_another_size(labels: Path, masks: Path) -> None:
    write_label(labels / "a.png", LABEL[:, :1])


def turned(labels: Path, masks: Path) -> None:
    write_label(labels / "a.png", LABEL[:1])
    write_label(masks / "a.png", LABEL[:, :1])


def beyond_the_classes(labels: Path, masks: Path) -> None:
    write_label(labels / "a.png", LABEL + 1)


def ignoring(labels: Path, masks: Path) -> None:
    write_label(labels / "a.png", np.where(LABEL == 0, IGNORE, LABEL))


def of_other_truths(labels: Path, masks: Path) -> None:
    write_label(masks / "a.png", LABEL + 1)


def a_cam_of_other_classes(labels: Path, masks: Path) -> None:
    for name in ("a", "b", "my cat"):
        write_cam(labels / f"{name}.npz", CAMs(torch.zeros(1, 1, 1), torch.tensor([3]), (2, 2)))


@pytest.mark.parametrize(
    ("spoil", "kind", "fact"),
    [
        (without_a_mask, MissingError, "1 of 3 listed photographs have no .png file in"),
        (without_a_label, MissingError, "1 of 3 listed photographs have no .png file in"),
        (of_another_size, MismatchError, "2 x 1 pixels"),
        (turned, MismatchError, "EXIF"),
        (beyond_the_classes, MismatchError, "labels/a.png holds the value 3; expected 0 to 2"),
        (ignoring, MismatchError, "labels/a.png holds the value 255; expected 0 to 2"),
        (of_other_truths, MismatchError, "masks/a.png holds the value 3; expected 0 to 2"),
        (a_cam_of_other_classes, MismatchError, "labels/my cat.npz holds the value 3; expected 0 to 2"),
    ],
)
def test_what_cannot_be_scored_is_named(
    spoil: object, kind: type[InputError], fact: str, scored: tuple[Path, Path]
) -> None:
    spoil(*scored)  # type: ignore[operator]
    with pytest.raises(kind) as caught:
        evaluate(Task(*scored, ["my cat", "a", "b"], CLASSES), [0.5])
    assert fact in str(caught.value)


def test_folders_without_a_name_in_common_are_refused(scored: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "none"):
        with pytest.raises(MissingError, match=folder):
            read_names(scored[0], tmp_path / folder, None)


def test_the_background_has_one_row(
    scored: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "classes.txt").write_text("_Background_\ncat\ndog\n")
    assert main(command(scored, "--classes", tmp_path / "classes.txt")) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert rows[2:5] == list(CLASSES)


def test_predictions_without_a_mask_are_counted(
    scored: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scored[1] / "a.png").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert main(command(scored, "--classes", tmp_path / "classes.txt")) == 0
    printed = capsys.readouterr().err
    assert "1 of 3 files in " in printed
    assert "are not scored" in printed


def test_the_tables_by_hand(tmp_path: Path) -> None:
    """The cat is half found and the dog never occurs: background 2 / 3, cat 1 / 2; the step before found no cat."""
    for folder, label in (("labels", [[0, 0, 0, 1]]), ("labels/steps/seed", [[0, 0, 0, 0]]), ("masks", [[0, 0, 1, 1]])):
        write_label(tmp_path / folder / "a.png", np.array(label))
    write_cam(tmp_path / "cams" / "a.npz", CAMs(torch.tensor([[[0, 0, 0.4, 0.9]]]), torch.tensor([1]), (1, 4)))
    write_run(tmp_path / "labels", {"step_names": ["seed", "crf"]})
    tasks = [Task(tmp_path / name, tmp_path / "masks", ["a"], CLASSES) for name in ("labels", "cams")]
    results = {task.predictions: evaluate(task, [0.25, 0.5], 0.5) for task in tasks}
    labels = results[tmp_path / "labels"]
    assert steps_table(results).splitlines() == [
        "1 images, percent",
        "               mIoU   mFDR   mFNR  threshold",
        "labels: seed   25.0   50.0   50.0          -",
        "labels: crf    58.3   16.7   25.0          -",
        "cams           58.3   16.7   25.0       0.50",
    ]
    labels["best"] |= mean_over(labels["best"], ["cat", "dog"])
    assert table(labels).splitlines() == [
        "1 images, percent",
        "class               IoU    FDR    FNR",
        "background         66.7   33.3    0.0",
        "cat                50.0    0.0   50.0",
        "dog                   -      -      -",
        "mean               58.3   16.7   25.0",
        "mean foreground    50.0    0.0   50.0",
        "mean of 2          50.0    0.0   50.0",
    ]
    cams = results[tmp_path / "cams"]
    assert table(cams).splitlines()[0] == "1 images, percent, threshold 0.50 (given)"
    assert (cams["best"]["threshold"], cams["best"]["miou"]) == (0.25, 1)
    assert [score["threshold"] for score in cams["sweep"]] == [0.25, 0.5]
    with pytest.raises(SettingError, match="no class 'cow' among background, cat, dog"):
        mean_over(labels["best"], ["cow"])


TRUTH = [[0, 0, 1, 1]]


def task(folder: Path, predicted: dict[str, list[list[int]]], truth: dict[str, list[list[int]]]) -> Task:
    for name, label in predicted.items():
        write_label(folder / "labels" / f"{name}.png", np.array(label))
        write_label(folder / "masks" / f"{name}.png", np.array(truth.get(name, TRUTH)))
    return Task(folder / "labels", folder / "masks", list(predicted), CLASSES)


def test_worst_labels_by_hand(tmp_path: Path) -> None:
    predicted = {
        "right": [[0, 0, 1, 1]],
        "half": [[0, 0, 0, 1]],  # background 2 / 3, cat 1 / 2
        "wrong": [[0, 0, 2, 2]],  # background 1, cat 0; dog is predicted only and does not count
        "ignored": [[2, 2, 2, 2]],
        "partly": [[2, 2, 1, 1]],  # only the cat is scored
    }
    truth = {"ignored": [[IGNORE] * 4], "partly": [[IGNORE, IGNORE, 1, 1]]}
    worst = evaluate(task(tmp_path, predicted, truth), ())["images_worst"]
    assert [image["name"] for image in worst] == ["wrong", "half", "partly", "right"]
    assert [image["miou"] for image in worst] == pytest.approx([0.5, (2 / 3 + 1 / 2) / 2, 1, 1])


def test_only_the_worst_are_named(tmp_path: Path) -> None:
    predicted = {f"{number:02d}": [[0, 0, 1, 1]] for number in range(WORST + 3)} | {"99": [[1, 1, 0, 0]]}
    worst = evaluate(task(tmp_path, predicted, {}), ())["images_worst"]
    assert len(worst) == WORST
    assert worst[0] == {"name": "99", "miou": 0.0}


@pytest.mark.parametrize(("threshold", "expected"), [(None, ("a", 1.0)), (0.75, ("b", 0.5 * 0.5))])
def test_worst_cams_are_at_the_scored_threshold(
    tmp_path: Path, threshold: float | None, expected: tuple[str, float]
) -> None:
    for name, high in (("a", 0.9), ("b", 0.6)):
        cam = CAMs(torch.as_tensor(np.array([[[0, 0, high, high]]])), torch.tensor([1]), (1, 4))
        write_cam(tmp_path / "cams" / f"{name}.npz", cam)
        write_label(tmp_path / "masks" / f"{name}.png", np.array(TRUTH))
    cams = Task(tmp_path / "cams", tmp_path / "masks", ["a", "b"], ("background", "cat"))
    worst = evaluate(cams, [0.5, 0.75], threshold)["images_worst"][0]
    assert (worst["name"], worst["miou"]) == (expected[0], pytest.approx(expected[1]))


def test_images_are_known_by_a_digest_that_ignores_their_order(tmp_path: Path) -> None:
    predicted = {"a": TRUTH, "b": TRUTH}
    one = evaluate(task(tmp_path, predicted, {}), ())["images_digest"]
    assert one == evaluate(task(tmp_path, dict(reversed(predicted.items())), {}), ())["images_digest"]
    assert one != evaluate(task(tmp_path, {"a": TRUTH}, {}), ())["images_digest"]
