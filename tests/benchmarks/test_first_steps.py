"""The smallest size of the first steps, on drawn scenes."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import first_steps


@pytest.mark.slow
def test_every_term_of_the_first_step_is_recorded_and_the_exit_status_says_whether_all_were_sound(
    voc: Path, tmp_path: Path
) -> None:
    out = tmp_path / "first_steps.json"
    small = ["--configs", "configs/voc/cam_lite0.yaml", "--precisions", "32-true", "--steps", "4", "--side", "64"]
    status = first_steps.main([str(voc), *small, "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text())["configs/voc/cam_lite0.yaml 32-true"]
    assert found["steps"] == 4
    assert found["first_step"].keys() >= {"loss_cls", "loss_cls_tiled", "loss_re", "loss_repel", "beta"}
    assert found["first_step"]["loss_cls"] == pytest.approx(0.69, abs=0.1), "log 2: a network that knows nothing"
    assert status == (0 if found["sound"] else 1)


def test_a_loss_that_is_not_finite_or_does_not_fall_is_not_sound() -> None:
    rows = [{"loss_cls": 0.7, "loss_re": 1.0}, {"loss_cls": 0.3, "loss_re": 1.0}]
    assert first_steps.judged(rows)["sound"]
    assert not first_steps.judged(rows[::-1])["sound"]
    assert not first_steps.judged([rows[0], {**rows[1], "loss_re": float("nan")}])["sound"]
    assert first_steps.judged([rows[0], {**rows[1], "cfc_similarity": float("nan")}])["sound"], "no two share a class"
