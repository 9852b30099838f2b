"""The photographs with the lowest mIoU of their own, as `tag2mask evaluate` names them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.classes import IGNORE
from tag2mask.io.cams import CAMs, write_cam
from tag2mask.io.labels import write_label
from tag2mask.metrics.evaluation import WORST, Task, evaluate

TRUTH = [[0, 0, 1, 1]]


def task(folder: Path, predicted: dict[str, list[list[int]]], truth: dict[str, list[list[int]]]) -> Task:
    for name, label in predicted.items():
        write_label(folder / "labels" / f"{name}.png", np.array(label))
        write_label(folder / "masks" / f"{name}.png", np.array(truth.get(name, TRUTH)))
    return Task(folder / "labels", folder / "masks", list(predicted), ("background", "cat", "dog"))


def test_worst_labels_by_hand(tmp_path: Path) -> None:
    predicted = {
        "right": [[0, 0, 1, 1]],
        "half": [[0, 0, 0, 1]],  # background 2 / 3, cat 1 / 2
        "wrong": [[0, 0, 2, 2]],  # background 1, cat 0; dog is predicted only and does not count
        "ignored": [[2, 2, 2, 2]],
        "partly": [[2, 2, 1, 1]],  # only the cat is scored
    }
    truth = {"ignored": [[IGNORE] * 4], "partly": [[IGNORE, IGNORE, 1, 1]]}
    found = evaluate(task(tmp_path, predicted, truth), ())["images_worst"]
    assert [image["name"] for image in found] == ["wrong", "half", "partly", "right"]
    assert [image["miou"] for image in found] == pytest.approx([0.5, (2 / 3 + 1 / 2) / 2, 1, 1])


def test_only_the_worst_are_named(tmp_path: Path) -> None:
    predicted = {f"{number:02d}": [[0, 0, 1, 1]] for number in range(WORST + 3)} | {"99": [[1, 1, 0, 0]]}
    found = evaluate(task(tmp_path, predicted, {}), ())["images_worst"]
    assert len(found) == WORST
    assert found[0] == {"name": "99", "miou": 0.0}


@pytest.mark.parametrize(("threshold", "expected"), [(None, ("a", 1.0)), (0.75, ("b", 0.5 * 0.5))])
def test_worst_cams_are_at_the_scored_threshold(
    tmp_path: Path, threshold: float | None, expected: tuple[str, float]
) -> None:
    for name, high in (("a", 0.9), ("b", 0.6)):
        cam = CAMs(torch.as_tensor(np.array([[[0, 0, high, high]]])), torch.tensor([1]), (1, 4))
        write_cam(tmp_path / "cams" / f"{name}.npz", cam)
        write_label(tmp_path / "masks" / f"{name}.png", np.array(TRUTH))
    cams = Task(tmp_path / "cams", tmp_path / "masks", ["a", "b"], ("background", "cat"))
    found = evaluate(cams, [0.5, 0.75], threshold)["images_worst"][0]
    assert (found["name"], found["miou"]) == (expected[0], pytest.approx(expected[1]))


def test_images_are_known_by_a_digest_that_ignores_their_order(tmp_path: Path) -> None:
    predicted = {"a": TRUTH, "b": TRUTH}
    one = evaluate(task(tmp_path, predicted, {}), ())["images_digest"]
    assert one == evaluate(task(tmp_path, dict(reversed(predicted.items())), {}), ())["images_digest"]
    assert one != evaluate(task(tmp_path, {"a": TRUTH}, {}), ())["images_digest"]
