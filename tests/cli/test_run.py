"""The verb ``run``: one command from a folder of photographs with tags to masks."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import tag2mask
from tag2mask.cli import labels, plan
from tag2mask.cli.configs import shipped
from tag2mask.cli.main import main
from tag2mask.cli.run import Clock
from tag2mask.errors import MismatchError, MissingError, SettingError
from tag2mask.io.labels import read_label
from tests.commands import TINY, fault

FORTY = plan.Facts(40, 40, 384, 2)
SMALL = {key: yaml.safe_load(value) for key, value in TINY.items()} | {
    "model.init_args.backbone": {"name": "resnet18", "output_stride": 16, "weights": "none", "freeze_norm": True}
}


def test_epochs_are_those_that_were_measured_with_forty_and_with_2281_photographs() -> None:
    forty, many = plan.usual(FORTY), plan.usual(replace(FORTY, tagged=2281, photographs=2281))
    assert (forty.cam_epochs, forty.mask_epochs, forty.edges, forty.rounds) == (15, 30, False, 2)
    assert (many.cam_epochs, many.mask_epochs, many.edges, many.rounds) == (3, 6, True, 0)


@pytest.mark.parametrize("until", plan.UNTIL)
def test_a_budget_gets_the_most_work_that_fits(until: str) -> None:
    usual = plan.usual(FORTY)
    whole = sum(plan.seconds(usual, FORTY, until).values())
    assert plan.within(whole, usual, FORTY, until, speed=1) == usual
    assert plan.within(whole / 2, usual, FORTY, until, speed=2) == usual
    costs = []
    for share in (0.9, 0.75, 0.6):
        choice = plan.within(share * whole, usual, FORTY, until, speed=1)
        costs.append(sum(plan.seconds(choice, FORTY, until).values()))
        assert costs[-1] <= share * whole
    assert sorted(costs, reverse=True) == costs
    with pytest.raises(SettingError, match="--time is too short: the least takes about"):
        plan.within(5, usual, FORTY, until, speed=1)


def test_quick_is_less_than_two_thirds_of_the_work() -> None:
    for facts in (FORTY, replace(FORTY, tagged=300, photographs=500)):
        usual = plan.usual(facts)
        quick, whole = (sum(plan.seconds(choice, facts).values()) for choice in (usual.quick, usual))
        assert quick < 2 / 3 * whole


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5H", 5400), ("7", 420)])
def test_times(text: str, seconds: float) -> None:
    assert plan.duration(text) == seconds


@pytest.mark.parametrize("text", ["0m", "-3s", "soon", "", "infm", "10d", "nan"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(SettingError, match="expected a time above 0"):
        plan.duration(text)


def test_the_time_left_follows_what_stages_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tag2mask.cli.run.monotonic", lambda: now[0])
    clock = Clock({"a": 100.0, "b": 100.0, "c": 200.0}, speed=1.0)
    assert clock.line("a") == "1 of 3: a, 25% of the work; about 7 min to the end"
    now[0] += 1  # it was done before
    assert "about 5 min to the end" in clock.line("b")
    now[0] += 25  # four times as fast
    assert "about 50 s to the end" in clock.line("c")


@pytest.mark.parametrize("tagged", [40, 400])
@pytest.mark.parametrize("gpu", [False, True])
def test_configurations_are_whole_and_understood(tagged: int, gpu: bool, tmp_path: Path) -> None:
    facts = plan.Facts(tagged, tagged, 500, 8, gpu)
    found = plan.configurations(plan.usual(facts), facts, "photographs", "runs/photographs")
    assert ("affinity" in found) == (tagged == 400)
    for name, changes in found.items():
        before = yaml.safe_load(shipped(f"folder/{name}").read_text())
        settings = plan.edited(before, changes)
        assert set(settings) == set(before)
        if name in ("labels", "seeds"):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
            args = labels.parse(["--config", str(tmp_path / f"{name}.yaml")])
            assert args.out == Path(f"runs/photographs/cam/{name}")
            if name == "labels":
                assert (args.probe is None) == (tagged == 400)
                assert args.recipe.walk.checkpoint == (
                    "runs/photographs/affinity/checkpoints/last.ckpt" if tagged == 400 else None
                )
        else:
            assert settings["trainer"]["default_root_dir"].startswith("runs/photographs/")
            crop = settings["data"]["init_args"]["preprocessing"]["crop_size"]
            assert crop == (512 if gpu else 320 if name == "affinity" else 256)


@pytest.fixture(scope="module")
def photographs(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scenes with tags and without masks."""
    root = tmp_path_factory.mktemp("run") / "pets"
    shutil.copytree(sample / "images", root / "images")
    shutil.copy(sample / "tags.csv", root)
    return root


def small_configurations(photographs: Path, out: Path) -> None:
    """Put configurations into a run folder that let its networks learn in seconds."""
    facts = plan.Facts(12, 12, 64, 1)
    choice = replace(plan.usual(facts), cam_epochs=1, mask_epochs=1, scales=(1.0,), flip=False)
    for name, changes in plan.configurations(choice, facts, str(photographs), str(out)).items():
        before = yaml.safe_load(shipped(f"folder/{name}").read_text())
        small = {} if name == "labels" else {key: SMALL[key] for key in SMALL if "inference" not in key}
        features = {
            "workers": 1,
            "probe.rounds": 1,
            "recipe.init_args.crf": None,
            "probe.layers": ["layer3"],
            "recipe.init_args.walk.init_args.layer": "layer3",
        }
        small |= features if name == "labels" else {}
        out.mkdir(exist_ok=True)
        (out / f"{name}.yaml").write_text(yaml.safe_dump(plan.edited(plan.edited(before, changes), small)))


@pytest.mark.slow
def test_one_command_makes_masks_a_network_and_a_report_and_goes_on(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    small_configurations(photographs, out)
    command = ["run", str(photographs), "--out", str(out)]
    assert main([*command, "--until", "labels"]) == 0
    said = capsys.readouterr().out
    assert "3 of 3: pseudo-labels" in said
    assert not (out / "segmentation").exists()
    found = tag2mask.run(photographs, out)
    assert found == (out / "masks", out / "report.html", out / "segmentation/checkpoints/last.ckpt")
    said = capsys.readouterr().out
    assert "12 labels are in" in said
    assert "5 of 5: masks" in said
    assert f"next: tag2mask segment OTHER_PHOTOGRAPHS --checkpoint {out}/segmentation/checkpoints/last.ckpt" in said
    assert (out / "report.html").is_file()
    assert len([read_label(path) for path in (out / "masks").glob("*.png")]) == 12
    error = fault([*command, "--quick"])
    assert isinstance(error, MismatchError)
    assert "quick: False, now True" in str(error)
    elsewhere = shutil.copytree(photographs, tmp_path / "elsewhere")
    assert "folder: " in str(fault(["run", str(elsewhere), "--out", str(out)]))  # its photographs would not be read


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    error = fault(["run", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    assert isinstance(error, MissingError)
    assert not (tmp_path / "out").exists()
