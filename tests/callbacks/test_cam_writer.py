"""What `predict` says of the CAM files that it has written."""

from pathlib import Path

import pytest
import torch

from tag2mask.cli.main import main
from tests.commands import SMALL_NET, words


def test_empty_cams_are_told(sample: Path, runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = runs / "full" / "checkpoints" / "last.ckpt"
    content = torch.load(trained, weights_only=True)
    content["state_dict"]["net.classifier.weight"].fill_(-1)  # every score is negative: ReLU leaves nothing
    torch.save(content, tmp_path / "empty.ckpt")
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    for checkpoint, told in ((trained, False), (tmp_path / "empty.ckpt", True)):
        command = words("predict", "configs/demo/cam_tuned.yaml", sample, tmp_path / checkpoint.stem)
        assert main([*command, *small, "--ckpt_path", str(checkpoint), "--data.init_args.predict_split", "val"]) == 0
        told_now = "4 of 4 CAM files looked at are empty" in caplog.text
        assert told_now == told
