"""Labels of later rounds: by a segmentation network, and by linear probes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tag2mask.cli.main import main
from tag2mask.errors import MismatchError
from tag2mask.inference.second_round import Positions, ProbeMaps, TagMaps
from tag2mask.io.cams import read_cam, write_cam
from tag2mask.io.files import read_json
from tag2mask.io.images import read_image
from tag2mask.io.labels import read_label, write_label
from tag2mask.io.records import write_run
from tag2mask.refine.probe import Fitted, Probe, fit
from tag2mask.refine.recipes import PseudoLabels, Seed
from tag2mask.tasks.checkpoints import file_digest
from tests.commands import fault
from tests.refine.test_stage import command, contents


def test_labels_of_a_second_round_come_from_a_segmentation_network(
    cams: Path, sample: Path, segmentation_checkpoint: Path, edge_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels"
    few = ["--list", str(sample / "val.txt"), "--recipe.init_args.crf", "null", "--soft", "true"]
    words = command(cams, sample, out, *few, "--recipe.init_args.seed.threshold", "0.5")
    assert main([*words, "--network", str(segmentation_checkpoint)]) == 0
    network, names = TagMaps(segmentation_checkpoint), (sample / "val.txt").read_text().split()
    for name in names:
        before = read_cam(cams / f"{name}.npz")
        own = network(name, read_image(sample / "images" / f"{name}.jpg"), before)
        torch.testing.assert_close(read_cam(out / "soft" / f"{name}.npz").cam.float(), own.cam, atol=1e-3, rtol=0)
        expected = PseudoLabels(seed=Seed(0.5), crf=None)(own, None, None, "cpu").steps["seed"]
        assert (read_label(out / f"{name}.png") == expected).all()
        assert set(np.unique(expected)) <= {0, *before.classes.tolist()}
    assert read_json(out / "run.json")["config"]["network"] == file_digest(segmentation_checkpoint)
    assert main([*words, "--network", str(segmentation_checkpoint)]) == 0  # all is there
    assert "network" in str(fault(words))  # labels of the first round are not mixed with those of the second
    assert "affinity" in str(fault([*words, "--network", str(edge_checkpoint)]))
    assert "no checkpoint" in str(fault([*words, "--network", str(tmp_path / "none.ckpt")]))
    old = read_json(cams / "run.json")["config"]
    other = Path(shutil.copytree(cams, tmp_path / "cams"))
    write_run(other, old | {"classes": ["apple", *old["classes"][1:]]})
    elsewhere = [*command(other, sample, tmp_path / "other"), "--network", str(segmentation_checkpoint)]
    assert "apple" in str(fault(elsewhere))


def test_maps_that_are_no_numbers_make_no_labels(
    cams: Path,
    sample: Path,
    segmentation_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.setattr(TagMaps, "__call__", lambda self, name, image, cams: cams._replace(cam=cams.cam / 0))
    words = [*command(cams, sample, tmp_path / "out"), "--network", str(segmentation_checkpoint)]
    assert main(words) == 1
    assert "hold what is no finite number" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.png"))
    assert "to choose a threshold from" in str(fault([*words, "--recipe.init_args.seed.threshold", "auto"]))


@pytest.fixture
def probed(cams: Path, sample: Path, runs: Path, tmp_path: Path) -> list[str]:
    """The command of labels with two rounds of a linear probe, into ``labels``."""
    probe = {"layers": "[layer3, layer4]", "folds": "3"}
    probe["checkpoint"] = str(runs / "full" / "checkpoints" / "last.ckpt")
    settings = [word for key, value in probe.items() for word in (f"--probe.{key}", value)]
    few = ["--recipe.init_args.crf", "null", "--recipe.init_args.seed.threshold", "0.5"]
    return [*command(cams, sample, tmp_path / "labels", *few), *settings]


def fitted(probe: Probe, sample: Path, names: list[str], labels: Path) -> Fitted:
    take = Positions(probe, len(names), 5)
    return fit({name: take(name, photo(sample, name), labels / f"{name}.png") for name in names}, probe)


def photo(sample: Path, name: str) -> Path:
    return sample / "images" / f"{name}.jpg"


def test_a_linear_probe_learns_from_the_labels_of_the_round_before(
    probed: list[str], cams: Path, sample: Path, tmp_path: Path
) -> None:
    out, names = tmp_path / "labels", sorted(path.stem for path in cams.glob("*.npz"))
    assert main([*probed, "--soft", "true"]) == 0
    settings = read_json(out / "run.json")["config"]["probe"]
    probe = Probe(**settings | {"layers": ("layer3", "layer4")})
    seeds = PseudoLabels(seed=Seed(0.5), crf=None)
    before = out / "rounds" / "0"
    for name in names:
        first = seeds(read_cam(cams / f"{name}.npz"), None, None, "cpu").steps["seed"]
        assert (read_label(before / f"{name}.png") == first).all()
    for now in (out / "rounds" / "1", out):
        maps = ProbeMaps(probe, fitted(probe, sample, names, before))
        for name in names[:3]:
            own = maps(name, read_image(photo(sample, name)), tags := read_cam(cams / f"{name}.npz"))
            assert own.cam.shape[0] == len(tags.classes)
            assert 0 <= own.cam.min() <= own.cam.max() <= 1
            assert (read_label(now / f"{name}.png") == seeds(own, None, None, "cpu").steps["seed"]).all()
        before = now
    assert not (out / "rounds" / "1" / "soft").exists()
    torch.testing.assert_close(read_cam(out / "soft" / f"{name}.npz").cam.float(), own.cam, atol=1e-3, rtol=0)


def test_a_class_that_no_first_label_shows_has_an_empty_map(cams: Path, sample: Path, runs: Path) -> None:
    probe = Probe(layers=("layer3", "layer4"), checkpoint=str(runs / "full" / "checkpoints" / "last.ckpt"))
    shows = {path.stem: 1 in read_label(path) for path in sorted((sample / "masks").glob("*.png"))}
    maps = ProbeMaps(probe, fitted(probe, sample, [name for name in shows if not shows[name]], sample / "masks"))
    name = next(name for name in shows if shows[name])
    own = maps(name, read_image(photo(sample, name)), read_cam(cams / f"{name}.npz"))
    assert own.classes[0] == 1
    assert own.cam[0].abs().max() == 0
    assert own.cam.isfinite().all()


def test_each_round_makes_what_is_missing(probed: list[str], sample: Path, tmp_path: Path, capsys: Any) -> None:
    out, few = tmp_path / "labels", sample / "val.txt"
    assert main([*probed, "--list", str(few)]) == 0
    whole = contents(out)
    for folder, name in zip((out, out / "rounds" / "1", out / "rounds" / "0"), few.read_text().split(), strict=False):
        (folder / f"{name}.png").unlink()
    capsys.readouterr()
    assert main([*probed, "--list", str(few)]) == 0
    assert contents(out) == whole
    assert capsys.readouterr().out.count("1 labels made, 4 of 4") == 3


@pytest.mark.slow
def test_rounds_in_several_processes_are_the_same(probed: list[str], sample: Path, tmp_path: Path) -> None:
    few = ["--list", str(sample / "val.txt")]
    assert main([*probed, *few]) == 0
    assert main([*probed, *few, "--workers", "2", "--out", str(tmp_path / "other")]) == 0
    assert contents(tmp_path / "other") == contents(tmp_path / "labels")


@pytest.mark.parametrize("threshold", ["0.5", "auto"])
def test_after_a_changed_cam_all_rounds_are_those_of_a_new_run(
    probed: list[str], cams: Path, sample: Path, tmp_path: Path, capsys: Any, threshold: str
) -> None:
    own, few = Path(shutil.copytree(cams, tmp_path / "cams")), sample / "val.txt"
    words = [*probed, "--list", str(few), "--cams", str(own), "--recipe.init_args.seed.threshold", threshold]
    assert main(words) == 0
    before = contents(tmp_path / "labels")
    name = few.read_text().split()[0]
    write_cam(own / f"{name}.npz", (old := read_cam(own / f"{name}.npz"))._replace(cam=old.cam.flip(-1) ** 0.2))
    capsys.readouterr()
    assert main(words) == 0
    assert "all labels are made again" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "new")]) == 0
    assert before != contents(tmp_path / "labels") == contents(tmp_path / "new")


def test_another_recipe_is_refused_before_a_round_is_made(probed: list[str], sample: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "labels", [*probed, "--list", str(sample / "val.txt")]
    assert main(words) == 0
    whole = contents(out)
    assert "weight_decay" in str(fault([*words, "--probe.weight_decay", "2"]))
    assert "threshold" in str(fault([*words, "--recipe.init_args.seed.threshold", "0.4"]))
    assert "probe" in str(fault([*words, "--probe", "null"]))
    assert contents(out) == whole
    assert main([*words, "--probe.rounds", "1", "--overwrite"]) == 0
    assert {path.name for path in (out / "rounds").iterdir()} == {"0"}
    assert main([*words, "--probe", "null", "--overwrite"]) == 0
    assert not (out / "rounds").exists()
    assert "probe" in str(fault(words))
    assert not (out / "rounds" / "0" / "run.json").exists()


def test_one_bad_photograph_or_label_does_not_end_the_rounds(
    probed: list[str], sample: Path, tmp_path: Path, capsys: Any
) -> None:
    data, few = Path(shutil.copytree(sample, tmp_path / "data")), sample / "train.txt"
    words = [*probed, "--list", str(few), "--photos", str(data)]
    assert main(words) == 0
    gone, spoilt, cut, *_ = few.read_text().split()
    photo(data, gone).unlink()
    photo(data, spoilt).write_bytes(b"no picture")
    first = tmp_path / "labels" / "rounds" / "0" / f"{cut}.png"
    first.write_bytes(first.read_bytes()[:60])
    for path in (tmp_path / "labels").glob("*.png"):
        path.unlink()
    capsys.readouterr()
    assert main(words) == 1
    told = capsys.readouterr().err
    assert f"skipped {gone}: no photograph" in told
    assert f"skipped {spoilt}: " in told
    assert f"the probe does not learn from {cut}: " in told
    assert f"the probe does not learn from {spoilt}: " in told


def test_what_a_probe_cannot_learn_from_is_refused(
    probed: list[str], sample: Path, segmentation_checkpoint: Path, tmp_path: Path
) -> None:
    assert "no part 'layer9'" in str(fault([*probed, "--probe.layers", "[layer9]"]))
    assert "leave one of them out" in str(fault([*probed, "--network", str(segmentation_checkpoint)]))
    assert "cam network" in str(fault([*probed, "--probe.checkpoint", str(tmp_path / "none.ckpt")]))
    assert "leave shards out" in str(fault([*probed, "--shard", "1/2"]))
    assert not (tmp_path / "labels").exists()
    few = [*probed, "--list", str(sample / "val.txt")]
    assert "a probe learns nothing" in str(fault([*few, "--recipe.init_args.seed.threshold", "1"]))
    (tmp_path / "one.txt").write_text("scene_0000\n")
    one = [*probed, "--list", str(tmp_path / "one.txt"), "--out", str(tmp_path / "one")]
    assert "needs two or more" in str(fault(one))


def test_a_label_of_another_size_or_class_is_named(sample: Path, runs: Path, tmp_path: Path) -> None:
    probe = Probe(layers=("layer3",), checkpoint=str(runs / "full" / "checkpoints" / "last.ckpt"))
    take, label, image = Positions(probe, 1, 5), tmp_path / "label.png", photo(sample, "scene_0000")
    write_label(label, np.ones((3, 4), np.uint8))
    with pytest.raises(MismatchError, match="3 x 4 pixels"):
        take("scene_0000", image, label)
    write_label(label, np.full(read_image(image).shape[:2], 9, np.uint8))
    with pytest.raises(MismatchError, match="holds the class 9 of 5"):
        take("scene_0000", image, label)
