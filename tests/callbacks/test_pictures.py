"""Which photographs are drawn after a validation, without a training."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tag2mask.callbacks.pictures import CAMPictures, MaskPictures
from tag2mask.data.transforms import Preprocessing
from tag2mask.io.cams import CAMs

MODULE: Any = SimpleNamespace(num_classes=2, class_names=("cat", "dog"))


def validate(pictures: MaskPictures, run: Path, shares: list[float], masks: bool = True, **trainer: Any) -> list[str]:
    """Show a photograph for each share of its upper part that is truly a cat, all of it a cat to the network.

    Return the pictures that are drawn, without their folder.
    """
    data = SimpleNamespace(preprocessing=Preprocessing())
    facts = {"sanity_checking": False, "is_global_zero": True, "global_step": 3, "loggers": [], "datamodule": data}
    whole: Any = SimpleNamespace(default_root_dir=run, **(facts | trainer))
    pictures.on_validation_epoch_start(whole, MODULE)
    for index, share in enumerate(shares):
        truth = (torch.arange(20) < 20 * share).long()[:, None].expand(20, 30)[None]
        batch = {"image": torch.zeros(1, 3, 20, 30), "size": torch.tensor([[20, 30]]), "name": [f"photo_{index}"]}
        batch |= {"mask": truth} if masks else {}
        cams = CAMs(torch.ones(1, 5, 8), torch.tensor([1]), (20, 30))
        pictures.on_validation_batch_end(whole, MODULE, cams, batch, index)
    pictures.on_validation_epoch_end(whole, MODULE)
    return sorted(str(path.relative_to(run / "pictures" / "step_000003")) for path in run.rglob("*.png"))


def test_the_first_are_drawn_and_the_worst_from_the_lowest(tmp_path: Path) -> None:
    drawn = validate(CAMPictures(count=1, worst=2), tmp_path, [1.0, 0.5, 0.2, 0.8])
    assert drawn == ["photo_0.png", "worst/1_photo_2.png", "worst/2_photo_1.png"]


def test_no_worst_ones_where_none_are_wanted(tmp_path: Path) -> None:
    assert validate(CAMPictures(count=2, worst=0), tmp_path, [0.5, 0.2, 0.8]) == ["photo_0.png", "photo_1.png"]


def test_without_masks_the_first_are_drawn_and_none_is_the_worst(tmp_path: Path) -> None:
    assert validate(CAMPictures(count=2), tmp_path, [0.5, 0.2, 0.8], masks=False) == ["photo_0.png", "photo_1.png"]


@pytest.mark.parametrize("other", [{"sanity_checking": True}, {"is_global_zero": False}])
def test_sanity_checks_and_further_processes_draw_nothing(other: dict[str, bool], tmp_path: Path) -> None:
    assert validate(CAMPictures(), tmp_path, [0.5, 0.2], **other) == []


def test_the_prediction_is_the_strongest_class_above_the_threshold() -> None:
    cam = torch.tensor([[[0.9, 0.2, 0.4]], [[0.1, 0.25, 0.6]]])
    cams = CAMs(cam, torch.tensor([2, 1]), (1, 3))
    assert CAMPictures(threshold=0.3).labels(cams, (1, 3))["prediction"].tolist() == [[2, 0, 1]]
    assert CAMPictures(threshold=0.2).labels(cams, (1, 3))["prediction"].tolist() == [[2, 1, 1]]
    assert CAMPictures(sure=(0.3, 0.5)).labels(cams, (1, 3))["seed"].tolist() == [[2, 0, 1]]
