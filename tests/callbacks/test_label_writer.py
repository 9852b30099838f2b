"""The masks that `predict` writes, and the CRF that may sharpen them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.cli.main import main
from tag2mask.errors import OccupiedError
from tag2mask.io.files import read_json
from tag2mask.io.labels import read_label, write_label
from tag2mask.refine.dense_crf import TEST_TIME
from tests.commands import SMALL_NET, fault, words

CONFIG = "configs/demo/segmentation.yaml"


# CRF


def test_the_crf_draws_probabilities_to_the_outline() -> None:
    image = np.full((40, 60, 3), (20, 30, 60), np.uint8)
    image[:, :30] = (220, 40, 40)
    probabilities = torch.full((21, 40, 60), 0.001)
    probabilities[7] = torch.linspace(0.9, 0.1, 60)  # of the left half, blurred and too wide
    probabilities[7, :, 30:36] = 0.55
    probabilities[0] = 1 - probabilities[1:].sum(0)
    truth = torch.where(torch.arange(60) < 30, 7, 0).expand(40, 60)
    after = TEST_TIME.sharpen(image, probabilities)
    assert (after.argmax(0) == truth).float().mean() > 0.97 > (probabilities.argmax(0) == truth).float().mean()
    torch.testing.assert_close(after.sum(0), torch.ones(40, 60))
    assert (after[1:7] == 0).all()


def test_the_crf_leaves_a_photograph_without_objects_as_it_is() -> None:
    probabilities = torch.tensor([0.8, 0.2])[:, None, None].expand(2, 5, 6)
    assert TEST_TIME.sharpen(np.zeros((5, 6, 3), np.uint8), probabilities) is probabilities


# predict


def command(verb: str, sample: Path, run: Path, **over: str) -> list[str]:
    settings = {"data__init_args__labels": str(sample / "masks")} | over
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    return [*words(verb, CONFIG, sample, run, **settings), *small]


@pytest.fixture
def trained(segmentation_checkpoint: Path) -> list[str]:
    """Words that name the checkpoint."""
    return ["--ckpt_path", str(segmentation_checkpoint)]


@pytest.mark.slow
def test_predict_writes_masks_goes_on_and_stops_at_another_network(
    sample: Path, trained: list[str], tmp_path: Path
) -> None:
    words = [*command("predict", sample, tmp_path), *trained]
    assert main(words) == 0
    folder = tmp_path / "masks" / "val"
    names = (sample / "val.txt").read_text().split()
    assert {path.stem for path in folder.glob("*.png")} == set(names)
    for name in names:
        truth = read_label(sample / "masks" / f"{name}.png")
        assert read_label(folder / f"{name}.png").shape == truth.shape
    assert len(np.unique(np.concatenate([read_label(path).flatten() for path in folder.glob("*.png")]))) > 1
    assert read_json(folder / "run.json")["finished"]
    kept, gone = folder / f"{names[0]}.png", folder / f"{names[1]}.png"
    before, time = gone.read_bytes(), kept.stat().st_mtime_ns
    gone.unlink()
    assert main(words) == 0
    assert gone.read_bytes() == before
    assert kept.stat().st_mtime_ns == time
    other = [*words, "--model.init_args.inference.flip", "false"]
    error = str(fault(other))
    assert str(folder) in error
    assert "inference.flip: True, now False" in error
    assert main([*other, "--overwrite"]) == 0


@pytest.mark.slow
def test_predict_with_the_crf_writes_other_masks(sample: Path, trained: list[str], tmp_path: Path) -> None:
    crf = "{steps: 3, certainty: null, bilateral: {sxy: 80, srgb: 13, compat: 10}}"
    writer = f"[{{class_path: tag2mask.callbacks.writers.LabelWriter, init_args: {{crf: {crf}}}}}]"
    words = [*command("predict", sample, tmp_path), *trained]
    assert main(words) == 0
    plain = {path: read_label(path) for path in (tmp_path / "masks" / "val").glob("*.png")}
    assert main([*words, "--trainer.callbacks", writer, "--overwrite"]) == 0
    assert any((read_label(path) != label).any() for path, label in plain.items())
    record = read_json(tmp_path / "masks" / "val" / "run.json")
    assert record["config"]["crf"]["bilateral"]["sxy"] == 80
    assert record["files"] == 4


def test_masks_that_predict_did_not_make_are_never_replaced(sample: Path, trained: list[str], tmp_path: Path) -> None:
    name = (sample / "val.txt").read_text().split()[0]
    own = tmp_path / "masks" / "val" / f"{name}.png"
    write_label(own, np.ones((3, 3)))
    before = own.read_bytes()
    words = [*command("predict", sample, tmp_path), *trained]
    for more in ([], ["--overwrite"]):
        error = fault([*words, *more])
        assert isinstance(error, OccupiedError)
        assert str(own.parent) in str(error)
    assert own.read_bytes() == before


def test_a_checkpoint_of_another_task_is_refused(sample: Path, edge_checkpoint: Path, tmp_path: Path) -> None:
    error = str(fault([*command("predict", sample, tmp_path), "--ckpt_path", str(edge_checkpoint)]))
    assert all(kind in error for kind in ("segmentation", "affinity"))
