from pathlib import Path

import pytest

from tag2mask.cli.main import main
from tests.commands import line, words

CONFIGS = sorted(path for path in Path("configs").rglob("*.yaml") if not path.stem.startswith("sweep"))
LABELS = [path for path in CONFIGS if path.stem in ("labels", "seeds")]
RUNS = [path for path in CONFIGS if path not in LABELS]


def name(path: Path) -> str:
    return "/".join(path.parts[1:])


MASKS = {"voc": "SegmentationClass", "coco": "masks/train2014"}


@pytest.mark.parametrize("config", RUNS, ids=name)
def test_every_config_trains_and_validates(config: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    data = config.parent.name
    root: Path = request.getfixturevalue(data if data in MASKS else "sample")
    over = {"trainer__fast_dev_run": "2"}
    if config.stem.startswith(("affinity", "segmentation")):
        over["data__init_args__labels"] = str(root / MASKS.get(data, "masks"))
    assert main(words("fit", config, root, tmp_path, **over)) == 0


@pytest.mark.parametrize("config", LABELS, ids=name)
def test_every_config_of_labels_makes_them(
    config: Path, sample: Path, cams: Path, edge_checkpoint: Path, tmp_path: Path
) -> None:
    over = {"cams": cams, "photos": sample / "images", "out": tmp_path / "out", "list": sample / "val.txt"}
    if config.stem == "labels":
        over |= {"recipe.init_args.walk": "EdgeWalk", "recipe.init_args.walk.checkpoint": edge_checkpoint}
    command = ["labels", "--config", str(config), "--workers", "1"]
    assert main([*command, *(word for key, value in over.items() for word in (f"--{key}", str(value)))]) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


@pytest.mark.parametrize("network", ["affinity", "segmentation"])
@pytest.mark.parametrize("data", ["voc", "coco"])
def test_labels_are_left_to_make_and_by_hand_asked_for(
    data: str, network: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    root: Path = request.getfixturevalue(data)
    over = {"trainer__fast_dev_run": "2", "trainer__logger": "false"}
    assert main(words("fit", Path(f"configs/{data}/{network}_lite0.yaml"), root, tmp_path, **over)) == 2
    assert "learns from labels; give their folder with --data.init_args.labels" in line(capsys)


def test_every_backbone_has_a_segmentation_network_and_two_have_their_upper_bound() -> None:
    names = {path.stem for path in CONFIGS if path.parent.name == "voc"}
    assert {f"segmentation_{net}" for net in ("resnet50", "resnet101", "resnest101", "lite0")} <= names
    assert {f"segmentation_{net}_full" for net in ("resnet50", "lite0")} <= names


def test_the_four_methods_have_a_config_for_each_backbone() -> None:
    names = {path.stem for path in CONFIGS if path.parent.name == "voc"}
    backbones = ("resnet50", "resnest101", "lite0")
    assert {f"cam_{net}{method}" for net in backbones for method in ("", "_printed", "_puzzle", "_plain")} <= names
