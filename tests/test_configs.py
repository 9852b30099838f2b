from pathlib import Path

import pytest

from tag2mask.cli import main
from tests.commands import words

CONFIGS = sorted(Path("configs").rglob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: "/".join(path.parts[1:]))
def test_every_config_trains_and_validates(config: Path, sample: Path, voc: Path, tmp_path: Path) -> None:
    root = voc if "voc" in config.parts else sample
    assert main(words("fit", config, root, tmp_path, trainer__fast_dev_run="2")) == 0


def test_the_three_methods_have_a_config_for_each_backbone() -> None:
    names = {path.stem for path in CONFIGS if path.parent.name == "voc"}
    backbones = ("resnet50", "resnest101", "lite0")
    assert {f"cam_{net}{method}" for net in backbones for method in ("", "_puzzle", "_plain")} <= names
