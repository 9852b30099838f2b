"""What `make` adds to the commands: what a configuration leaves open, and what a person gives; never anything else."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FULL = {"voc": "data/VOCdevkit/VOC2012/SegmentationClassAug", "coco": "data/coco/masks/train2014"}
ADDED = re.compile(r"--(?:data|trainer|recipe|cams|out|photos)\S* \S+")


def told(stage: str, *given: str, **environment: str) -> list[str]:
    """The commands of a stage, without running them."""
    command = ["make", "-n", "-o", ".venv/.done", stage, *given]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"} | environment
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()).replace(".venv/bin/tag2mask ", "") for line in lines if "tag2mask" in line]


def added(stage: str, *given: str, **environment: str) -> list[list[str]]:
    """The options that each command of a stage has besides its configuration."""
    return [ADDED.findall(line) for line in told(stage, *given, **environment)]


@pytest.mark.parametrize("data", ["voc", "coco"])
@pytest.mark.parametrize("net", ["resnet50", "lite0"])
def test_the_upper_bound_keeps_its_true_masks(data: str, net: str) -> None:
    config = f"SEGMENTATION=configs/{data}/segmentation_{net}_full.yaml"
    assert added(f"seg-{data}", config) == [[], []]


@pytest.mark.parametrize(
    ("data", "given", "masks"),
    [
        ("voc", ["DATA=/other"], "/other/SegmentationClassAug"),
        ("coco", ["DATA=/other"], "/other/masks/train2014"),
        ("coco", ["DATA=/other", "PREPARED=/made"], "/made/masks/train2014"),
        ("coco", ["PREPARED=/made"], "/made/masks/train2014"),
    ],
)
def test_the_upper_bound_of_another_data_folder_has_the_true_masks_there(
    data: str, given: list[str], masks: str
) -> None:
    train, _ = added(f"seg-{data}", f"SEGMENTATION=configs/{data}/segmentation_resnet50_full.yaml", *given)
    assert train[-1] == f"--data.init_args.labels {masks}"


@pytest.mark.parametrize("net", ["resnet50", "lite0"])
@pytest.mark.parametrize("data", ["voc", "coco"])
def test_a_network_chains_to_its_own_labels(data: str, net: str) -> None:
    config, run = f"CONFIG=configs/{data}/cam_{net}.yaml", f"runs/{data}/cam_{net}"
    labels = [f"--cams {run}/cams", f"--out {run}/labels"]
    walk = f"--recipe.init_args.walk.checkpoint runs/{data}/affinity_resnet50/checkpoints/last.ckpt"
    assert added(f"train-{data}", config)[-1] == []
    assert added(f"affinity-{data}", config) == [
        [f"--cams {run}/cams", f"--out {run}/seeds"],
        [f"--data.init_args.labels {run}/seeds"],
    ]
    assert added(f"labels-{data}", config) == [[*labels, walk]]
    assert added(f"seg-{data}", config)[0] == [f"--data.init_args.labels {run}/labels"]
    assert f"evaluate {run}/cams" in told(f"eval-{data}", config)[0]


@pytest.fixture(params=["block", "flow"])
def mine(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A configuration of one's own, in either form of YAML."""
    text = """
trainer: # default_root_dir: runs/wrong
  default_root_dir: "/mine/run" # here
data:
  init_args:
    root: '/mine/voc'
    labels: /mine/labels
"""
    if request.param == "flow":
        text = "trainer: {default_root_dir: /mine/run}\ndata: {init_args: {root: /mine/voc, labels: /mine/labels}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    return tmp_path / "mine.yaml"


def test_a_configuration_of_ones_own_keeps_what_it_says(mine: Path) -> None:
    for stage, variable in (("train", "CONFIG"), ("affinity", "AFFINITY"), ("seg", "SEGMENTATION")):
        assert added(f"{stage}-voc", f"{variable}={mine}")[-1] == []
    assert told("train-voc", f"CONFIG={mine}")[0] == "prepare voc --tags --devkit /mine/voc"
    assert added("labels-voc", f"CONFIG={mine}", f"AFFINITY={mine}") == [
        [
            "--cams /mine/run/cams",
            "--out /mine/run/labels",
            "--recipe.init_args.walk.checkpoint /mine/run/checkpoints/last.ckpt",
        ]
    ]
    assert told("eval-voc", f"CONFIG={mine}", f"SEGMENTATION={mine}") == [
        "evaluate /mine/run/cams --masks /mine/voc/SegmentationClass --list /mine/voc/ImageSets/Segmentation/train.txt",
        "if test -d /mine/run/masks/val; then evaluate /mine/run/masks/val --masks /mine/voc/SegmentationClass "
        "--list /mine/voc/ImageSets/Segmentation/val.txt; fi",
    ]


@pytest.mark.parametrize("from_environment", [False, True])
def test_variables_of_the_person_win(mine: Path, from_environment: bool) -> None:
    def options(stage: str, **given: str) -> list[list[str]]:
        given |= {"DATA": "/my/data"}
        return added(stage, **given) if from_environment else added(stage, *map("=".join, given.items()))

    root = "--data.init_args.root /my/data"
    own = [root, "--trainer.default_root_dir /my/run"]
    assert options("train-voc", CONFIG=str(mine), RUN="/my/run")[-1] == own
    assert options("cams-voc", CONFIG=str(mine), RUN="/my/run") == [own]
    seeds, train = options("affinity-voc", RUN="/cam", AFFINITY_RUN="/my/run")
    assert seeds == ["--cams /cam/cams", "--out /cam/seeds", "--photos /my/data/JPEGImages"]
    assert train == [*own, "--data.init_args.labels /cam/seeds"]
    assert options("labels-coco", RUN="/cam", AFFINITY_RUN="/my/run")[0] == [
        "--cams /cam/cams",
        "--out /cam/labels",
        "--photos /my/data/train2014",
        "--recipe.init_args.walk.checkpoint /my/run/checkpoints/last.ckpt",
    ]
    train, predict = options("seg-voc", SEGMENTATION_RUN="/my/run", RUN="/cam")
    assert train == [*own, "--data.init_args.labels /cam/labels"]
    assert predict == own


def test_the_data_set_is_prepared_where_it_is_named() -> None:
    assert told("train-voc", "DATA=/other")[0] == "prepare voc --tags --devkit /other"
    assert told("train-voc")[0] == "prepare voc --tags --devkit data/VOCdevkit/VOC2012"
    assert told("train-coco", "DATA=/other")[0] == "prepare coco --root /other --out /other"
    assert told("train-coco", "PREPARED=/made")[0] == "prepare coco --root data/coco --out /made"


@pytest.mark.parametrize("data", ["voc", "coco"])
def test_labels_settled_in_their_configurations_stay(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("configs", tmp_path / "configs")
    shutil.copy("Makefile", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("seeds", "labels"):
        path = tmp_path / "configs" / data / f"{name}.yaml"
        path.write_text(
            path.read_text().replace("checkpoint: null", "checkpoint: /e.ckpt") + f"\ncams: /c\nout: /{name}\n"
        )
    assert added(f"affinity-{data}") == [["--cams /c", "--out /seeds"], ["--data.init_args.labels /seeds"]]
    assert added(f"labels-{data}") == [["--cams /c", "--out /labels", "--recipe.init_args.walk.checkpoint /e.ckpt"]]
    assert added(f"seg-{data}")[0] == ["--data.init_args.labels /labels"]
    assert "--out /r/labels" in added(f"labels-{data}", "RUN=/r")[0]
    for walk in ("null # none", "{class_path: tag2mask.refine.recipes.FeatureWalk}"):
        path.write_text(f"recipe:\n  init_args:\n    walk: {walk}\n")
        assert not any("walk" in option for option in added(f"labels-{data}")[0])


@pytest.mark.parametrize("data", ["voc", "coco"])
def test_a_second_round_learns_from_labels_of_the_first_network(data: str) -> None:
    network, labels = f"runs/{data}/segmentation_resnet50", f"runs/{data}/cam_resnet50/labels"
    (made,) = told(f"labels-{data}", "ROUND=3")
    assert f"--config configs/{data}/labels_round2.yaml" in made
    assert f"--cams runs/{data}/cam_resnet50/cams --out {labels}_round3" in made
    assert f"--network {network}_round2/checkpoints/last.ckpt" in made
    for line in told(f"seg-{data}", "ROUND=3"):
        assert f"--trainer.default_root_dir {network}_round3" in line
    assert f"--data.init_args.labels {labels}_round3" in told(f"seg-{data}", "ROUND=3")[0]
    assert f"--network {network}/checkpoints/last.ckpt" in told(f"labels-{data}", "ROUND=2")[0]
    assert "--network" not in told(f"labels-{data}")[0]
    whole = [line.split()[2:] for line in told(data, "ROUNDS=2") if line.startswith(("labels", "fit"))]
    assert [line[0].split("/")[-1] for line in whole] == [
        *("cam_resnet50.yaml", "seeds.yaml", "affinity_resnet50.yaml"),
        *("labels.yaml", "segmentation_resnet50.yaml", "labels_round2.yaml", "segmentation_resnet50.yaml"),
    ]


def test_options_of_the_person_come_last() -> None:
    assert told("affinity-voc", "SEED_ARGS=--out x", "ARGS=--data.init_args.labels y")[0].endswith("--out x")
    assert told("affinity-voc", "ARGS=--data.init_args.labels y")[1].endswith("--data.init_args.labels y")
    assert told("labels-voc", "LABEL_ARGS=--out x")[0].endswith("--out x")
