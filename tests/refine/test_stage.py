"""The stage ``labels``: what it writes, and that nothing is lost or done twice."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.cli.labels import on_this_machine, which_shard
from tag2mask.cli.main import main
from tag2mask.errors import MissingError, SettingError
from tag2mask.inference.cams import load_guide
from tag2mask.io.cams import read_cam, write_cam
from tag2mask.io.files import read_json
from tag2mask.io.images import read_image, write_picture
from tag2mask.io.labels import read_label, write_label
from tag2mask.io.records import write_run
from tag2mask.refine.recipes import EdgeWalk, FeatureWalk, PseudoLabels
from tag2mask.refine.stage import Made, cam_names, made_of, shard
from tag2mask.tasks.checkpoints import file_digest
from tests.commands import fault

PSEUDO = "tag2mask.refine.recipes.PseudoLabels"
EDGES = {"--recipe.init_args.walk": "EdgeWalk"}


def command(cams: Path, sample: Path, out: Path, *more: str, recipe: str = PSEUDO) -> list[str]:
    where = ["--cams", str(cams), "--photos", str(sample / "images"), "--out", str(out)]
    return ["labels", "--recipe", recipe, *where, "--device", "cpu", "--workers", "1", *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".png", ".npz", ".part")
    }


def test_a_data_folder_names_its_photographs(cams: Path, sample: Path, tmp_path: Path) -> None:
    for photos in (sample, sample / "images"):
        one = command(cams, sample, tmp_path / photos.name, "--photos", str(photos), "--recipe.init_args.walk", "null")
        assert main([*one, "--list", str(sample / "val.txt")]) == 0
    assert contents(tmp_path / sample.name) == contents(tmp_path / "images")


def test_labels_are_palette_pngs_of_the_size_of_the_photograph(cams: Path, sample: Path, tmp_path: Path) -> None:
    assert main(command(cams, sample, tmp_path / "out")) == 0
    names = {path.stem for path in cams.glob("*.npz")}
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == names
    for name in names:
        label, truth = (read_label(folder / f"{name}.png") for folder in (tmp_path / "out", sample / "masks"))
        assert label.shape == truth.shape
        assert set(np.unique(label)) <= set(np.unique(truth))
    record = read_json(tmp_path / "out" / "run.json")
    assert record["finished"]
    assert record["config"]["recipe"]["init_args"]["crf"]["steps"] == 10


@pytest.mark.slow
def test_steps_and_soft_maps_come_on_request(
    cams: Path, sample: Path, edge_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    walk = ["--recipe.init_args.walk", "EdgeWalk", "--recipe.init_args.walk.checkpoint", str(edge_checkpoint)]
    walk += ["--recipe.init_args.walk.steps", "8"]
    assert main(command(cams, sample, out, *walk, "--steps", "true", "--soft", "true")) == 0
    assert {path.name for path in (out / "steps").iterdir()} == {"seed", "walk"}
    soft = read_cam(out / "soft" / "scene_0000.npz")
    assert 0 <= soft.cam.min() <= soft.cam.max() <= 1
    edges = load_guide(EdgeWalk(str(edge_checkpoint)), "cpu")(read_image(sample / "images" / "scene_0000.jpg"))
    with Image.open(out / "edges" / "scene_0000.png") as image:
        np.testing.assert_allclose(np.asarray(image) / 255, edges.numpy(), atol=0.003)
    capsys.readouterr()
    assert main(["evaluate", str(cams), str(out), str(out / "soft"), "--masks", str(sample / "masks")]) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()[2:7]] == [cams.name, *["labels:"] * 3, "soft"]
    result = json.loads((tmp_path / "labels_evaluation.json").read_text())
    assert list(result["steps"]) == ["seed", "walk", "crf"]
    assert result["steps"]["crf"] == result["best"]
    assert result["steps"]["seed"]["miou"] != result["best"]["miou"]
    seeds = ["--recipe.init_args.walk", "null", "--recipe.init_args.crf", "null", "--overwrite"]
    assert main(command(cams, sample, out, *seeds)) == 0
    assert {path.parent for path in out.rglob("*.*z")} | {path.parent for path in out.rglob("*.png")} == {out}


def test_a_threshold_is_chosen_from_the_cams(cams: Path, sample: Path, tmp_path: Path, capsys: Any) -> None:
    auto, out = ["--recipe.init_args.seed.threshold", "auto", "--recipe.init_args.crf", "null"], tmp_path / "labels"
    maps = [read_cam(path).cam.float() for path in sorted(cams.glob("*.npz"))]
    expected = round(float(np.mean([(each.amax(0) ** 1.5).mean() for each in maps]) ** (2 / 3)), 2)
    assert main([*command(cams, sample, out, *auto), "--list", str(sample / "val.txt")]) == 0
    assert f"chosen from the CAMs: threshold {expected}" in capsys.readouterr().out
    assert main(command(cams, sample, out, *auto)) == 0  # the others, with the same threshold
    assert main(command(cams, sample, tmp_path / "by_hand", *auto[:1], str(expected), *auto[2:])) == 0
    assert contents(out) == contents(tmp_path / "by_hand")
    assert read_json(out / "run.json")["config"]["recipe"]["init_args"]["seed"]["threshold"] == expected

    both = ["--recipe.init_args.foreground", "auto", "--recipe.init_args.background", "auto"]
    confident = "tag2mask.refine.recipes.ConfidentSeeds"
    assert main(command(cams, sample, tmp_path / "seeds", *both, recipe=confident)) == 0
    chosen = read_json(tmp_path / "seeds" / "run.json")["config"]["recipe"]["init_args"]
    assert (chosen["foreground"], chosen["background"]) == pytest.approx((1.5 * expected, expected / 2), abs=1e-3)
    error = str(fault(command(cams, sample, tmp_path / "seeds", *both[:2], recipe=confident)))
    assert "expected auto for both" in error


def test_a_threshold_cannot_be_chosen_from_nothing(cams: Path, sample: Path, tmp_path: Path) -> None:
    empty = Path(shutil.copytree(cams, tmp_path / "cams"))
    for path in empty.glob("*.npz"):
        write_cam(path, read_cam(path)._replace(cam=torch.zeros(0, 3, 4), classes=torch.zeros(0, dtype=torch.int16)))
    error = str(fault(command(empty, sample, tmp_path / "out", "--recipe.init_args.seed.threshold", "auto")))
    assert f"no CAM in {empty} to choose a threshold from" in error


@pytest.fixture
def cams_of_a_network(cams: Path, runs: Path, tmp_path: Path) -> Path:
    """CAM files whose record names the network that made them, as `tag2mask predict` writes it."""
    folder = Path(shutil.copytree(cams, tmp_path / "cams"))
    config = read_json(cams / "run.json")["config"] | {"weights": read_json(runs / "full" / "run.json")["weights"]}
    write_run(folder, config, checkpoint=str(runs / "full" / "checkpoints" / "last.ckpt"))
    return folder


FEATURES = ["--recipe.init_args.walk", "FeatureWalk", "--recipe.init_args.walk.layer", "layer1"]
FEATURES += ["--recipe.init_args.walk.steps", "4", "--recipe.init_args.crf", "null"]


def test_a_walk_over_features_takes_the_network_that_made_the_cams(
    cams_of_a_network: Path, sample: Path, runs: Path, tmp_path: Path
) -> None:
    out, checkpoint = tmp_path / "out", runs / "full" / "checkpoints" / "last.ckpt"
    words = command(cams_of_a_network, sample, out, *FEATURES, "--steps", "true", "--list", str(sample / "val.txt"))
    assert main(words) == 0
    walk = FeatureWalk("layer1", str(checkpoint), steps=4)
    guide = pickle.loads(pickle.dumps(partial(load_guide, walk)))("cpu")  # as each worker process does
    assert guide(np.zeros((75, 90, 3), np.uint8)).shape == (64, 20, 24)  # the nearest size of whole strides, over 4
    for path in sorted(out.glob("*.png")):
        cam, image = read_cam(cams_of_a_network / f"{path.stem}.npz"), sample / "images" / f"{path.stem}.jpg"
        expected = PseudoLabels(walk=walk, crf=None)(cam, read_image(image), guide, "cpu").steps
        assert (read_label(path) == expected["walk"]).mean() > 0.999
        assert (read_label(out / "steps" / "seed" / path.name) == expected["seed"]).all()
        assert (expected["walk"] != expected["seed"]).any()
    config = read_json(out / "run.json")["config"]
    assert config["recipe"]["init_args"]["walk"]["checkpoint"] == str(checkpoint)
    assert config["walk_network"] == file_digest(checkpoint) == read_json(runs / "full" / "run.json")["weights"]


def test_labels_of_another_network_for_the_walk_are_not_mixed(
    cams_of_a_network: Path, sample: Path, runs: Path, tmp_path: Path
) -> None:
    few = ["--list", str(sample / "val.txt"), "--recipe.init_args.walk.checkpoint"]
    words = [*command(cams_of_a_network, sample, tmp_path / "out", *FEATURES), *few]
    checkpoint = runs / "plain" / "checkpoints" / "last.ckpt"
    other = Path(shutil.copy(checkpoint, tmp_path / "other.ckpt"))
    assert main([*words, str(other)]) == 0
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["net.classifier.weight"] += 1
    torch.save(content, other)
    error = fault([*words, str(other)])
    assert "walk_network" in str(error)


def test_a_layer_that_is_not_there_is_named(cams_of_a_network: Path, sample: Path, tmp_path: Path) -> None:
    words = command(cams_of_a_network, sample, tmp_path / "out", *FEATURES, "--recipe.init_args.walk.layer", "layer9")
    assert "layer9" in str(fault([*words, "--workers", "2"]))
    assert not (tmp_path / "out").exists()


def test_a_walk_over_features_wants_a_network(cams: Path, sample: Path, tmp_path: Path) -> None:
    error = fault(command(cams, sample, tmp_path / "out", *FEATURES))
    assert isinstance(error, MissingError)
    assert str(cams / "run.json") in str(error)


@pytest.mark.slow
def test_several_processes_write_what_one_writes(cams: Path, sample: Path, tmp_path: Path) -> None:
    assert main(command(cams, sample, tmp_path / "one")) == 0
    assert main([*command(cams, sample, tmp_path / "two"), "--workers", "2"]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_shards_together_are_the_whole(cams: Path, sample: Path, tmp_path: Path) -> None:
    assert main(command(cams, sample, tmp_path / "one")) == 0
    for part in ("3/3", "1/3", "2/3"):
        assert main(command(cams, sample, tmp_path / "parts", "--shard", part)) == 0
        record = read_json(tmp_path / "parts" / "run.json")
        assert record["finished"] == (part == "2/3")
    assert contents(tmp_path / "one") == contents(tmp_path / "parts")


def test_of_two_shards_that_end_together_the_slower_one_records_all(
    cams: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "parts"
    assert main(command(cams, sample, out, "--shard", "1/2")) == 0
    assert main(command(cams, sample, out, "--shard", "2/2")) == 0
    late = sorted(out.glob("*.png"))[0]
    late.rename(out / "late")
    write = write_run

    def slow(folder: Path, config: dict[str, Any], **facts: Any) -> None:
        if facts.get("files") == 11:
            (out / "late").rename(late)  # the other shard's last label, and its record, come before this one's
        write(folder, config, **facts)

    monkeypatch.setattr("tag2mask.cli.labels.write_run", slow)
    assert main(command(cams, sample, out, "--shard", "2/2")) == 0
    record = read_json(out / "run.json")
    assert (record["finished"], record["files"]) == (True, 12)


def test_shards_are_disjoint_and_complete() -> None:
    names = [str(number) for number in range(11)]
    parts = [shard(names, index, 4) for index in range(1, 5)]
    assert sorted((name for part in parts for name in part), key=int) == names
    for wrong in ((0, 4), (5, 4)):
        with pytest.raises(SettingError, match="expected 1/4 to 4/4"):
            shard(names, *wrong)


@pytest.mark.parametrize(
    ("option", "environment", "expected"),
    [
        (None, {}, (1, 1)),
        ("2/5", {"RANK": "0", "WORLD_SIZE": "8"}, (2, 5)),
        (None, {"RANK": "3", "WORLD_SIZE": "8"}, (4, 8)),
        (None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, (1, 2)),
        (None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (1, 1)),
        (
            None,
            {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "4"},
            (3, 4),
        ),
    ],
)
def test_which_part_of_the_work(option: str | None, environment: dict[str, str], expected: tuple[int, int]) -> None:
    assert which_shard(option, environment) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8", "RANK": "9"}, (1, 8)),
        ({"SLURM_LOCALID": "3", "SLURM_NTASKS_PER_NODE": "4"}, (3, 4)),
        ({"SLURM_LOCALID": "0"}, (0, 1)),
    ],
)
def test_processes_on_one_machine_share_its_cores_and_gpus(
    environment: dict[str, str], expected: tuple[int, int]
) -> None:
    assert on_this_machine(environment) == expected


def test_a_label_says_what_it_was_made_from(tmp_path: Path) -> None:
    made = Made("CAM 12", (3, 7), 4)
    write_label(tmp_path / "a.png", np.zeros((2, 3)), json.dumps(made._asdict()))
    assert made_of(tmp_path / "a.png") == made
    for number, note in enumerate((None, "of somebody else", "[1]", '{"cam": "CAM 12"}')):
        write_label(tmp_path / f"{number}.png", np.zeros((2, 3)), note)
        assert made_of(tmp_path / f"{number}.png") is None
    assert made_of(tmp_path / "none.png") is None


def test_work_that_is_done_is_not_done_again(cams: Path, sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(command(cams, sample, out)) == 0
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    gone = out / "scene_0003.png"
    kept = gone.read_bytes()
    gone.unlink()
    part = out / ".scene_0003.png.99.part"
    part.write_bytes(b"half")
    assert main(command(cams, sample, out)) == 0
    assert gone.read_bytes() == kept
    assert not part.exists()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != gone)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_files(cams: Path, sample: Path, tmp_path: Path) -> None:
    assert main(command(cams, sample, tmp_path / "unbroken", "--steps", "true")) == 0
    slow = "import time, tag2mask.refine.stage as l; w = l._Worker._write\n"
    slow += "def wait(self, *a):\n    time.sleep(0.2); w(self, *a); time.sleep(0.2)\n"
    slow += "l._Worker._write = wait; from tag2mask.cli.main import main; import sys; sys.exit(main())"
    words = command(cams, sample, tmp_path / "broken", "--steps", "true")
    for wanted in (1, 4, 8):
        process = subprocess.Popen([sys.executable, "-c", slow, *words], stderr=subprocess.DEVNULL)
        wait_until(lambda wanted=wanted: len(list((tmp_path / "broken").glob("*.png"))) >= wanted)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert main(words) == 0
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_processes_do_not_outlive_a_killed_parent(cams: Path, sample: Path, tmp_path: Path) -> None:
    words = [*command(cams, sample, tmp_path / "out"), "--workers", "2"]
    process = subprocess.Popen([sys.executable, "-m", "tag2mask", *words], stderr=subprocess.DEVNULL)
    wait_until(lambda: (tmp_path / "out" / "run.json").exists() and len(children(process.pid)) >= 2)
    started = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 30)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def test_a_damaged_cam_file_is_named_and_the_rest_is_done(
    cams: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = Path(shutil.copytree(cams, tmp_path / "cams"))
    whole = (spoilt / "scene_0002.npz").read_bytes()
    (spoilt / "scene_0002.npz").write_bytes(whole[:200])
    out = tmp_path / "out"
    assert main(command(spoilt, sample, out)) == 1
    output = capsys.readouterr().err
    assert "skipped scene_0002: " in output
    assert "1 photographs were skipped: scene_0002" in output
    assert "Traceback" not in output
    assert len(list(out.glob("*.png"))) == 11
    assert not read_json(out / "run.json")["finished"]
    (spoilt / "scene_0002.npz").write_bytes(whole)
    assert main(command(spoilt, sample, out)) == 0
    assert read_json(out / "run.json")["finished"]


def test_another_configuration_stops_and_says_what_differs(
    cams: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(cams, sample, out)) == 0
    other = command(cams, sample, out, "--recipe.init_args.crf.steps", "3")
    before = contents(out)
    assert main(other) == 2
    assert "recipe.init_args.crf.steps: 10, now 3" in capsys.readouterr().err
    assert contents(out) == before
    assert main([*other, "--overwrite"]) == 0
    assert contents(out) != before


def test_pngs_of_somebody_else_are_never_deleted(
    cams: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(sample / "masks", tmp_path / "masks"))
    before = contents(own)
    assert main(command(cams, sample, own)) == 2
    assert "did not make" in capsys.readouterr().err
    assert contents(own) == before


@pytest.mark.parametrize(
    ("over", "fact"),
    [
        ({"--cams": "/nowhere"}, "no CAM files in /nowhere"),
        ({"--photos": "/nowhere"}, "no folder /nowhere"),
        ({"--list": "/nowhere.txt"}, "/nowhere.txt"),
        ({"--shard": "5/4"}, "shard 5/4; expected 1/4 to 4/4"),
        ({"--shard": "one"}, "--shard one; expected i/n"),
        ({**EDGES, "--recipe.init_args.walk.checkpoint": "/nowhere.ckpt"}, "no checkpoint /nowhere.ckpt"),
        ({"--recipe.init_args.crf.stepps": "3"}, "stepps"),
        ({"--recipe": "tag2mask.refine.recipes.Nothing"}, "Nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_input_is_one_line(
    cams: Path, sample: Path, tmp_path: Path, over: dict[str, str], fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [word for pair in over.items() for word in pair]
    assert main(command(cams, sample, tmp_path / "out", *more)) == 2
    output = capsys.readouterr().err
    assert "Traceback" not in output
    assert fact in output.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_a_cam_network_has_no_edges(cams: Path, sample: Path, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"tag2mask": {"task": "cam", "classes": ["a"], "version": "0"}}, path)
    words = ["--recipe.init_args.walk", "EdgeWalk", "--recipe.init_args.walk.checkpoint", str(path)]
    assert "affinity" in str(fault(command(cams, sample, tmp_path / "out", *words)))


def test_a_photograph_of_another_size_is_skipped(
    cams: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(sample / "images", tmp_path / "own" / "images")).parent
    write_picture(own / "images" / "scene_0001.jpg", np.zeros((20, 20, 3), np.uint8))
    assert main(command(cams, own, tmp_path / "out")) == 1
    assert "they must be of one size" in capsys.readouterr().err


def test_a_class_beyond_those_of_the_network_is_named(
    cams: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = Path(shutil.copytree(cams, tmp_path / "cams"))
    cam = read_cam(spoilt / "scene_0002.npz")
    write_cam(spoilt / "scene_0002.npz", cam._replace(classes=torch.arange(len(cam.classes)) + 6))
    assert main(command(spoilt, sample, tmp_path / "out")) == 1
    assert "scene_0002.npz holds the class" in capsys.readouterr().err
    assert not (tmp_path / "out" / "scene_0002.png").exists()


def test_the_size_is_compared_where_the_photograph_is_not_needed(
    cams: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(sample / "images", tmp_path / "own" / "images")).parent
    write_picture(own / "images" / "scene_0001.jpg", np.zeros((20, 20, 3), np.uint8))
    (own / "images" / "scene_0003.jpg").unlink()
    assert main(command(cams, own, tmp_path / "out", "--recipe.init_args.crf", "null")) == 1
    assert "scene_0001 is of a photograph of" in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*.png"))) == 11


def test_photographs_and_lists_are_found_as_by_the_training(cams: Path, sample: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(sample / "images", tmp_path / "own" / "images")).parent
    (own / "images" / "scene_0001.jpg").rename(own / "images" / "scene_0001.Jpg")
    (own / "images" / "._scene_0001.jpg").write_bytes(b"of macOS")
    (tmp_path / "list.txt").write_text("scene_0001.JPG\nscene_0002.jpg\n")
    more = ("--list", str(tmp_path / "list.txt"))
    assert main(command(cams, own, tmp_path / "out", *more)) == 0
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {"scene_0001", "scene_0002"}


def test_a_name_with_blanks_may_stand_on_a_list(cams: Path, tmp_path: Path) -> None:
    shutil.copytree(cams, tmp_path / "cams")
    (tmp_path / "cams" / "scene_0001.npz").rename(tmp_path / "cams" / "my scene.npz")
    (tmp_path / "list.txt").write_text("my scene.jpg\n")
    assert cam_names(tmp_path / "cams", tmp_path / "list.txt") == ["my scene"]


def test_photographs_of_one_name_are_refused_before_anything_is_written(
    cams: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(sample / "images", tmp_path / "own" / "images")).parent
    shutil.copy(own / "images" / "scene_0001.jpg", own / "images" / "scene_0001.jpeg")
    assert main(command(cams, own, tmp_path / "out")) == 2
    assert "scene_0001.jpeg and scene_0001.jpg in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
