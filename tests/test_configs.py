import json
import re
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

from tag2mask.cli.main import main
from tag2mask.models.attention import Attention
from tag2mask.models.backbones import Backbone, build, freeze
from tag2mask.tasks.cam import CAMTask
from tests.commands import line, words

CONFIGS = sorted(path for path in Path("configs").rglob("*.yaml") if not path.stem.startswith("sweep"))
LABELS = [path for path in CONFIGS if path.stem.startswith(("labels", "seeds"))]
RUNS = [path for path in CONFIGS if path not in LABELS]


def name(path: Path) -> str:
    return "/".join(path.parts[1:])


MASKS = {"voc": "SegmentationClass", "coco": "masks/train2014"}


def of_every(configs: list[Path]) -> list[Any]:
    """Parameters of a test; large networks and COCO are slow."""
    large = re.compile("resn|vit|clip")
    slow = [path for path in configs if large.search(path.stem) or path.parent.name == "coco"]
    return [pytest.param(path, marks=pytest.mark.slow if path in slow else (), id=name(path)) for path in configs]


@pytest.mark.parametrize("config", of_every(RUNS))
def test_every_config_trains_and_validates(config: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    data = config.parent.name
    root: Path = request.getfixturevalue(data if data in MASKS else "sample")
    over = {"trainer__fast_dev_run": "2"}
    if config.stem.startswith(("affinity", "segmentation")):
        over["data__init_args__labels"] = str(root / MASKS.get(data, "masks"))
    assert main(words("fit", config, root, tmp_path, **over)) == 0


@pytest.mark.parametrize("config", of_every(LABELS))
def test_every_config_of_labels_makes_them(
    config: Path, sample: Path, cams: Path, edge_checkpoint: Path, lite0_checkpoint: Path, tmp_path: Path
) -> None:
    over = {"cams": cams, "photos": sample / "images", "out": tmp_path / "out", "list": sample / "val.txt"}
    if config.stem.startswith("labels"):
        over |= {"recipe.init_args.walk": "EdgeWalk", "recipe.init_args.walk.checkpoint": edge_checkpoint}
    if "probe:" in config.read_text():
        over |= {"probe.checkpoint": lite0_checkpoint}
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


CAM_CONFIGS = [path for path in CONFIGS if path.stem.startswith("cam_")]
METHODS = ("", "_tuned", "_printed", "_puzzle", "_plain")


def method_of(path: Path) -> str:
    """Return the end of the name that says what is trained; empty for the paper's method."""
    return next((method for method in METHODS[1:] if path.stem.endswith(method)), "")


def settings_of(path: Path) -> dict[str, Any]:
    """Return the settings of the model, as YAML has them."""
    settings: dict[str, Any] = yaml.safe_load(path.read_text())["model"]["init_args"]
    return settings


@pytest.mark.parametrize("path", CAM_CONFIGS, ids=name)
def test_a_cam_config_has_the_parts_that_its_name_and_first_line_say(path: Path) -> None:
    """RSA and the equivariance loss in training, CFC, and self-attention over the image at inference."""
    settings, method = settings_of(path), method_of(path)
    tiles = settings["tiles"] or {}
    contrast = tiles.get("contrast") or {"lam": 0}
    parts = {
        "tiles": bool(tiles),
        "rsa": bool(tiles.get("attention")),
        "equivariance": bool(tiles) and tiles["beta"] > 0,
        "cfc": contrast["lam"] > 0,
        "attention at inference": bool(settings["inference"].get("attention")),
    }
    assert [part for part, on in parts.items() if on] == {
        "": ["tiles", "rsa", "equivariance", "cfc"],
        "_printed": ["tiles", "rsa", "equivariance", "cfc"],
        "_tuned": ["tiles", "rsa", "equivariance", "cfc", "attention at inference"],
        "_puzzle": ["tiles", "equivariance"],
        "_plain": [],
    }[method]
    printed = (tiles.get("distance"), tiles.get("learns"), tiles.get("min_side")) == ("l1", "both", 0)
    assert printed == (method in ("_printed", "_puzzle"))
    if method == "_printed":  # all of it, for what is left out is taken from the defaults
        assert tiles["attention"] == asdict(Attention(kernel="exp_dot", temperature=1.0, center=False))
    first = path.read_text().splitlines()[0]
    begins = {"": "The paper's method", "_tuned": "Tuned", "_printed": "Two-step CAM network (RSA and CFC) as printed"}
    assert first.startswith(f"# {({**begins, '_puzzle': 'Puzzle-CAM', '_plain': 'Plain CAM'})[method]}")
    if path.parent.name in MASKS:
        folder = yaml.safe_load(path.read_text())["trainer"]["default_root_dir"]
        assert folder == f"runs/{path.parent.name}/{path.stem}"


BLOCKS = ("Bottleneck", "ResNestBottleneck", "DepthwiseSeparableConv", "InvertedResidual", "Block")


@pytest.mark.parametrize("path", [path for path in CAM_CONFIGS if method_of(path) == ""], ids=name)
def test_the_affinity_of_rsa_is_made_at_half_the_depth(path: Path) -> None:
    settings = settings_of(path)
    with torch.device("meta"):
        net = timm.create_model(settings["backbone"]["name"])
    ends = [part for part, module in net.named_modules() if type(module).__name__ in BLOCKS]
    layer = settings["tiles"]["attention"]["layer"]
    last = max(number for number, block in enumerate(ends, 1) if f"{block}.".startswith(f"{layer}."))
    assert last / len(ends) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("path", [path for path in CAM_CONFIGS if path.match("configs/[vc]*/*_tuned.yaml")], ids=name)
def test_a_tuned_config_trains_the_papers_method_and_differs_in_how_cams_are_made(path: Path) -> None:
    tuned, paper = (yaml.safe_load(p.read_text()) for p in (path, path.with_stem(path.stem.removesuffix("_tuned"))))
    at_inference = tuned["model"]["init_args"]["inference"].pop("attention")
    trains = tuned["model"]["init_args"]["tiles"]["attention"]
    assert at_inference == {key: trains[key] for key in ("kernel", "center", "layer")}
    assert tuned["model"]["init_args"]["inference"].pop("floor") == 0.5
    assert tuned["trainer"].pop("default_root_dir") == paper["trainer"].pop("default_root_dir") + "_tuned"
    assert tuned == paper


def test_each_method_has_a_config_for_each_backbone() -> None:
    names = {path.stem for path in CONFIGS if path.parent.name == "voc"}
    assert {f"cam_{net}{method}" for net in ("resnet50", "resnest101", "lite0") for method in METHODS} <= names


@pytest.mark.parametrize("stem", ["cam_vit_small", "cam_clip_base"])
def test_of_a_vision_transformer_the_last_block_and_norm_are_trained(stem: str) -> None:
    settings = settings_of(Path(f"configs/voc/{stem}.yaml"))["backbone"]
    with torch.device("meta"):
        model = build(Backbone(settings["name"], settings["output_stride"]))
    freeze(model, norm=False, parts=tuple(settings["frozen"]))
    trained = {name.rsplit(".", 1)[0] for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if not name.startswith("blocks.11.")} == {"norm"}
    assert {"blocks.11.attn.qkv", "blocks.11.mlp.fc2"} <= trained


def test_a_task_without_settings_is_the_default_configuration() -> None:
    """`make train-voc` and ``CAMTask(20)`` train the same method."""
    defaults = {key: parameter.default for key, parameter in signature(CAMTask).parameters.items()}
    settings = settings_of(Path("configs/voc/cam_resnet50.yaml"))
    for key in ("backbone", "tiles", "optimizer", "inference"):
        found = json.loads(json.dumps(asdict(defaults[key])))
        stated = found | settings[key]
        stated |= {part: found[part] | stated[part] for part in ("attention", "contrast") if stated.get(part)}
        stated.pop("for_batch", found.pop("for_batch", None))  # 32 photographs a step, which is the batch
        assert found == stated | ({"name": "resnet50"} if key == "backbone" else {})  # there with its weights: .tv_in1k
