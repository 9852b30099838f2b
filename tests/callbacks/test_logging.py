"""What a training leaves to look at: the W&B run, read back from its file, and the same as files in the run folder."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from tag2mask.cli.main import main
from tag2mask.data.sample import CLASSES
from tag2mask.io.files import read_json
from tag2mask.io.labels import read_label
from tests.commands import SMALL_NET, WANDB, words
from tests.wandb_file import WandbRun

pytestmark = pytest.mark.slow

NAMES = ["background", *CLASSES]
SETTINGS = {
    "trainer__max_epochs": "2",
    "trainer__check_val_every_n_epoch": "1",
    "trainer__log_every_n_steps": "1",
    "trainer__logger": WANDB,
}


def fit(config: str, sample: Path, run: Path, **settings: str) -> Path:
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    assert main([*words("fit", config, sample, run, **(SETTINGS | settings)), *small]) == 0
    return run


@pytest.fixture(scope="module")
def cam(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CAM network trained for two epochs of four steps, in the pipeline ``mine``."""
    return fit("configs/demo/cam_tuned.yaml", sample, tmp_path_factory.mktemp("cam") / "mine" / "full")


@pytest.fixture(scope="module")
def segmentation(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmentation network trained likewise on the masks, in a group that was named."""
    run = tmp_path_factory.mktemp("segmentation") / "mine" / "weak"
    over = {"data__init_args__labels": str(sample / "masks"), "trainer__logger__init_args__group": "another"}
    return fit("configs/demo/segmentation.yaml", sample, run, **over)


@pytest.fixture(scope="module")
def cam_run(cam: Path) -> WandbRun:
    return WandbRun(cam)


@pytest.fixture(scope="module")
def segmentation_run(segmentation: Path) -> WandbRun:
    return WandbRun(segmentation)


def names(sample: Path) -> list[str]:
    return (sample / "val.txt").read_text().split()


def test_the_keys_of_a_cam_run_fall_into_sections(cam_run: WandbRun, sample: Path) -> None:
    sections: dict[str, set[str]] = {}
    for key in cam_run.keys - {"epoch", "trainer/global_step"}:
        section, _, rest = key.partition("/")
        sections.setdefault(section, set()).add(rest)
    losses = {"loss", "loss_cls", "loss_cls_tiled", "loss_re", "loss_cfc", "loss_repel", "beta", "cfc_similarity"}
    assert sections == {
        "train": (losses - {"cfc_similarity"}) | {"attention_entropy"},  # no two photographs of a batch share a class
        "val": {"loss_cls", "attention_entropy", "cam_miou", "cam_mfdr", "cam_mfnr", "cam_threshold"},
        **{f"val_{score}": set(NAMES) for score in ("iou", "fdr", "fnr")},
        "lr": {"pretrained", "pretrained_bias", "new", "new_bias"} & sections["lr"],
        "throughput": {"images_per_second"},
        "table": {"classes"},
        **{section: set(names(sample)) for section in ("panel", "heat")},
        **{section: set("1234") for section in ("worst", "worst_heat")},
    }
    assert {"pretrained", "new"} <= sections["lr"]
    assert all(value > 0 for value in cam_run.values("throughput/images_per_second"))


def test_a_segmentation_run_has_the_same_sections_and_its_own_scores(segmentation_run: WandbRun) -> None:
    keys = segmentation_run.keys
    means = {f"val/{mean}{where}" for mean in ("miou", "mfdr", "mfnr") for where in ("", "_foreground")}
    assert {key for key in keys if key.startswith("val/")} == means
    assert {key for key in keys if key.startswith("train/")} == {"train/loss"}
    sections = {key.split("/")[0] for key in keys} - {"epoch", "trainer"}
    assert sections == {
        *("train", "val", "val_iou", "val_fdr", "val_fnr", "lr", "throughput"),
        *("table", "panel", "heat", "worst", "worst_heat"),
    }


@pytest.mark.parametrize(
    ("run", "maps"), [("cam", ("prediction", "seed", "truth")), ("segmentation", ("prediction", "truth"))]
)
def test_photographs_carry_label_maps_with_class_names(
    run: str, maps: tuple[str, ...], sample: Path, request: pytest.FixtureRequest
) -> None:
    logged: WandbRun = request.getfixturevalue(f"{run}_run")
    for name in names(sample):
        pictures = logged.values(f"panel/{name}")
        assert len(pictures) == 2  # validations
        truth = read_label(sample / "masks" / f"{name}.png")
        for one in pictures:
            assert (one["height"], one["width"]) == truth.shape
            assert one["captions"] == [name]
            (masks,) = one["all_masks"]
            assert set(masks) == set(maps)
            stored = {key: np.array(Image.open(logged.folder / "files" / mask["path"])) for key, mask in masks.items()}
            assert np.array_equal(stored["truth"], truth)
            assert {mask.shape for mask in stored.values()} == {truth.shape}
            assert all(set(np.unique(mask)) <= {*range(6), 255} for mask in stored.values())
            (picture,) = one["filenames"]
            assert Image.open(logged.folder / "files" / picture).size == truth.shape[::-1]
        labels = logged.config["_wandb"]["mask/class_labels"]
        for key in maps:
            class_names = labels[f"panel/{name}_wandb_delimeter_{key}"]["value"]
            assert class_names == {**{str(value): text for value, text in enumerate(NAMES)}, "255": "ignored"}


def test_the_worst_photographs_are_those_of_the_lowest_miou_of_their_own(cam_run: WandbRun, cam: Path) -> None:
    for rank in "1234":
        assert len(cam_run.values(f"worst/{rank}")) == 2
    captions = [cam_run.values(f"worst/{rank}")[-1]["captions"][0] for rank in "1234"]
    own = [float(caption.rpartition(" ")[2]) for caption in captions]
    assert own == sorted(own)
    last = max((cam / "pictures").iterdir())
    drawn = [path.stem.split("_", 1) for path in sorted((last / "worst").iterdir())]
    assert drawn == [[rank, caption.split(",")[0]] for rank, caption in zip("1234", captions, strict=True)]


def test_the_table_has_a_row_a_class_and_is_a_file_too(cam_run: WandbRun, cam: Path) -> None:
    stored = cam_run.values("table/classes")
    assert len(stored) == 2
    assert (stored[-1]["ncols"], stored[-1]["nrows"]) == (4, 6)
    table = json.loads((cam_run.folder / "files" / stored[-1]["path"]).read_text())
    assert table["columns"] == ["class", "iou", "fdr", "fnr"]
    assert [row[0] for row in table["data"]] == NAMES
    as_file = read_json(max((cam / "scores").iterdir()))
    assert as_file == {"columns": table["columns"], "data": table["data"]}
    logged = {key: cam_run.values(f"val_iou/{key}")[-1] for key in NAMES}
    for name, iou, _, _ in table["data"]:
        assert iou == (None if np.isnan(logged[name]) else pytest.approx(logged[name]))


def test_the_same_is_in_files_of_the_run_folder(cam_run: WandbRun, cam: Path, sample: Path) -> None:
    steps = sorted((cam / "pictures").iterdir())
    assert [step.name for step in steps] == ["step_000004", "step_000008"]
    for number, step in enumerate(steps):
        assert sorted(path.stem for path in step.glob("*.png")) == sorted(names(sample))
        assert len(list((step / "worst").glob("*.png"))) == 4
        for name in names(sample):
            (stored,) = cam_run.values(f"heat/{name}")[number]["filenames"]
            logged, as_file = (Image.open(path) for path in (cam_run.folder / "files" / stored, step / f"{name}.png"))
            assert logged.size == as_file.size
            assert np.abs(np.asarray(logged, int) - np.asarray(as_file, int)).mean() < 8  # the one is a JPEG
    assert "train/loss" in next((cam / "logs").rglob("metrics.csv")).read_text()


def test_config_commit_and_data_hash_are_in_wandb_and_in_run_json(
    cam_run: WandbRun, cam: Path, segmentation: Path
) -> None:
    record = read_json(cam / "run.json")
    assert cam_run.config["commit"] == record["commit"]
    assert cam_run.config["data_hash"] == record["data_hash"]
    assert record["data_hash"] != read_json(segmentation / "run.json")["data_hash"]  # of labels, not of tags
    assert cam_run.config["model"] == record["config"]["model"]
    assert cam_run.config["images_a_step"] == 2
    assert (cam / "config.yaml").is_file()


def test_runs_side_by_side_share_a_group_unless_one_is_named(cam_run: WandbRun, segmentation_run: WandbRun) -> None:
    assert (cam_run.group, cam_run.job_type, cam_run.name) == ("mine", "cam", "mine/full")
    assert (segmentation_run.group, segmentation_run.job_type) == ("another", "segmentation")


def test_the_sweep_is_the_grid_of_table_1_and_its_command_line_parses(
    voc: Path, cam_run: WandbRun, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep: dict[str, Any] = yaml.safe_load(Path("configs/voc/sweep_lambda_beta.yaml").read_text())
    grid = {key: setting["values"] for key, setting in sweep["parameters"].items()}
    assert list(grid.values()) == [[0.5, 1.0, 1.5], [1.0, 2.0, 3.0]]
    assert sweep["metric"]["name"] in cam_run.keys
    arguments = create_sweep_command_args({"args": {key: {"value": values[-1]} for key, values in grid.items()}})[
        "args"
    ]
    bash, c, line, *rest = create_sweep_command(sweep["command"])
    assert rest == ["sweep", "${args}"]
    printing = line.replace("exec tag2mask", "printf '%s\\n'")
    printed = subprocess.run(
        [bash, c, printing, "sweep", *arguments], env={"WANDB_RUN_ID": "abc"}, capture_output=True, text=True
    )
    command = printed.stdout.splitlines()
    assert command[0] == "fit"
    with pytest.raises(SystemExit):
        main([*command, "--data.init_args.root", str(voc), "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    tiles = config["model"]["init_args"]["tiles"]
    assert (tiles["contrast"]["lam"], tiles["beta"]) == (1.5, 3.0)
    assert config["trainer"]["default_root_dir"] == "runs/voc/sweep_lambda_beta/abc"
    assert config["trainer"]["logger"][0]["init_args"]["project"] == sweep["project"]
