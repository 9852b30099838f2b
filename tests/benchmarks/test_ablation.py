import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.ablation.__main__ import main
from benchmarks.ablation.cache import CachedSet, Views, cached, squeezed
from benchmarks.ablation.score import scored
from benchmarks.ablation.settings import PRESETS, ROWS, with_options, with_row
from benchmarks.ablation.table import markdown, summary
from benchmarks.ablation.train import CachedTask, data_module, evaluated, fit, inference, training_views
from benchmarks.limit import OutOfTime
from tag2mask.errors import InputError
from tag2mask.io.images import read_image
from tag2mask.metrics.scores import ThresholdSweep
from tag2mask.models.attention import Attention
from tag2mask.models.cam import two_steps
from tag2mask.tasks.cam import CAMInference, CAMTask, Tiles

SMOKE = PRESETS["smoke"]
RANDOM = replace(SMOKE.backbone, weights=None)  # no package of weights is needed


def run(sample: Path, out: Path, *words: str) -> dict[str, Any]:
    options = ["--set", "backbone.weights=none", *words]
    where = ["--data", str(sample), "--out", str(out), "--cache", str(out / "cache")]
    main(["smoke", *where, "--rows", "both-trained", *options])
    return json.loads((out / "smoke" / "both-trained-seed0.json").read_text())


def test_the_smallest_preset_ends_in_a_table_and_is_not_run_twice(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(sample, tmp_path)
    assert record["steps"] == 2
    assert [point["step"] for point in record["curve"]] == [2]
    assert {"loss_cfc", "attention_entropy", "cfc_similarity", "loss_re"} <= set(record["curve"][0])
    rows = json.loads((tmp_path / "smoke" / "table.json").read_text())
    assert rows["both-trained"]["all/fixed/miou"]["mean"] == record["scores"]["all"]["fixed"]["miou"]
    assert (tmp_path / "smoke" / "curves.png").stat().st_size > 1000
    assert "| both-trained | 1 |" in (tmp_path / "smoke" / "table.md").read_text()
    stamp = (tmp_path / "smoke" / "both-trained-seed0.json").stat().st_mtime_ns
    assert run(sample, tmp_path) == record
    assert (tmp_path / "smoke" / "both-trained-seed0.json").stat().st_mtime_ns == stamp
    capsys.readouterr()
    other = run(sample, tmp_path, "tiles.contrast.lam=0.25")
    assert other["settings"]["tiles"]["contrast"]["lam"] == 0.25
    assert "again, for tiles.contrast.lam: 0.02, now 0.25" in capsys.readouterr().out


def test_rows_that_differ_in_how_cams_are_made_are_trained_once(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)  # of the random network below the trained stages
    trainings = []
    monkeypatch.setattr("benchmarks.ablation.train.fit", lambda *given: (trainings.append(given), fit(*given)))

    def records(out: Path, *rows: str) -> list[dict[str, Any]]:
        where = ["--data", str(sample), "--out", str(out), "--cache", str(tmp_path / "cache")]
        main(["smoke", *where, "--rows", *rows, "--set", "backbone.weights=none"])
        found = [json.loads((out / "smoke" / f"{row}-seed0.json").read_text()) for row in rows]
        return [{key: one[key] for key in ("scores", "curve", "settings")} for one in found]

    tiles, rsa = records(tmp_path / "together", "tiles", "rsa")
    assert len(trainings) == 1
    table = json.loads((tmp_path / "together" / "smoke" / "table.json").read_text())
    assert "attention_entropy" not in table["tiles"]
    assert 0 < table["rsa"]["attention_entropy"]["mean"] < 1  # of the finished CAM: none is trained with
    assert tiles["scores"] != rsa["scores"]
    assert records(tmp_path / "alone", "rsa") == [rsa]


@pytest.mark.slow
def test_a_panel_shows_photographs_under_each_row_with_its_threshold(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "smoke"

    where = ["--data", str(sample), "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]

    def drawn(*words: str) -> tuple[int, int]:
        main(["smoke", *where, *words, "--set", "backbone.weights=none"])
        return read_image(out / "panel-seed0.png").shape[:2] if "--panel" in words else (0, 0)

    drawn("--rows", "plain")
    stamp = (out / "plain-seed0.json").stat().st_mtime_ns
    height, one_row = drawn("--rows", "plain", "--panel", "2")  # trains again, for no weights were kept
    with_weights = (out / "plain-seed0.json").stat().st_mtime_ns
    assert with_weights > stamp
    assert height > 4 * 160  # two lines a photograph
    _, two_rows = drawn("--rows", "plain", "plain-rsa", "--panel", "2")
    assert (out / "plain-seed0.json").stat().st_mtime_ns == with_weights, "plain was trained again"
    assert two_rows == pytest.approx(1.5 * one_row, rel=0.05)
    assert (out / "plain-seed0.pt").is_file()
    main(["smoke", *where, "--rows", "plain", "--set", "backbone.weights=none", "optimizer.lr=0.1"])
    assert not (out / "plain-seed0.pt").exists(), "weights of other settings beside the record"


def test_the_whole_network_is_trained_where_nothing_is_cached(sample: Path, tmp_path: Path) -> None:
    small = ["preprocessing.long_side=[48, 80]", "preprocessing.crop_size=64", "trained=null", "tune=2"]
    record = run(sample, tmp_path, *small)
    assert record["settings"]["trained"] is None
    assert record["steps"] == 2
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_training_without_time_goes_on_step_by_step_and_ends_as_an_unbroken_one(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two rows of one training, which stops in mid-epoch, at the end of an epoch, and before it is scored."""
    where = ["--data", str(sample), "--cache", str(tmp_path / "cache"), "--rows", "both-full", "both-full-made"]
    small = ["preprocessing.long_side=[48, 80]", "preprocessing.crop_size=64", "trained=null", "tune=2", "points=4"]
    small += ["backbone.weights=none", "epochs=2"]

    def records(out: Path, *words: str) -> list[dict[str, Any]]:
        main(["smoke", *where, "--out", str(out), *words, "--set", *small])
        found = [json.loads((out / "smoke" / f"{row}-seed0.json").read_text()) for row in where[-2:]]
        return [{key: one[key] for key in ("scores", "curve", "steps", "attention_entropy")} for one in found]

    unbroken = records(tmp_path / "unbroken")
    assert [one["steps"] for one in unbroken] == [4, 4]
    stops = []
    for _ in range(4):
        with pytest.raises(OutOfTime) as stop:
            records(tmp_path / "broken", "--minutes", "0")
        stops.append(str(stop.value).split(":")[0].split(" after")[0])
    assert stops == ["step 1 of 4", "step 2 of 4", "step 3 of 4", "trained, not yet scored"]
    assert capsys.readouterr().out.count("going on with") == 3
    assert records(tmp_path / "broken") == unbroken
    assert not list((tmp_path / "broken").rglob("*.ckpt"))


@pytest.mark.parametrize("min_side", [0, 64])
def test_cached_features_train_as_the_whole_network_does(sample: Path, tmp_path: Path, min_side: int) -> None:
    tiles = Tiles(attention=Attention(layer="blocks.2"), min_side=min_side)
    photos = data_module(sample).photos("train")[:3]
    torch.manual_seed(0)
    whole = CAMTask(5, backbone=RANDOM, tiles=tiles).eval()
    torch.manual_seed(0)  # the cache makes a network of its own
    how = replace(SMOKE, backbone=RANDOM, tiles=tiles, side=64, mirror=True)
    cache = cached(photos, RANDOM, training_views(how), SMOKE.preprocessing, tmp_path)
    samples = [CachedSet(photos, cache, 5)[index, 0] for index in range(3)]
    batch = {name: torch.stack([s[name] for s in samples]) for name in samples[0] if name != "name"}
    images = torch.stack([squeezed(photo, 64, SMOKE.preprocessing) for photo in photos])
    expected = two_steps(whole.net, images, 2, tiles.attention, min_side, "target")
    below = CachedTask(5, backbone=RANDOM, tiles=tiles)
    below.load_state_dict(whole.state_dict())
    found = below.cut(1).eval().branches(tiles, batch)
    for a, b in zip(found, expected, strict=True):
        assert a is not None
        torch.testing.assert_close(a, b, rtol=0, atol=1e-2 * float(b.detach().abs().max()))  # half precision


def test_cams_of_cached_features_spread_as_those_of_the_whole_network_do(sample: Path, tmp_path: Path) -> None:
    """A photograph's image is its maps below the trained stages and of the layer that the attention looks at."""
    how = CAMInference((1.0,), flip=False, attention=Attention(layer="blocks.2", temperature=0.3))
    run_of = replace(SMOKE, backbone=RANDOM, inference=how)
    photos = data_module(sample).photos("val")[:2]
    torch.manual_seed(0)
    whole = CAMTask(5, backbone=RANDOM, tiles=None).eval()
    torch.manual_seed(0)  # the cache makes a network of its own
    samples = evaluated(run_of, photos, 5, tmp_path)
    below = CachedTask(5, backbone=RANDOM, tiles=None)
    below.load_state_dict(whole.state_dict())
    below.cut(1).eval()
    for photo, made_of in zip(photos, (samples[0], samples[1]), strict=True):
        rest = made_of["label"][None], made_of["size"][None]
        expected, *_ = whole.cams(squeezed(photo, 64, SMOKE.preprocessing)[None], *rest, how)
        found, *_ = below.cams(made_of["image"][None], *rest, inference(run_of))
        torch.testing.assert_close(found.cam, expected.cam, rtol=0, atol=1e-2)  # half precision


def test_the_mirror_image_is_cached_beside_each_photograph(sample: Path, tmp_path: Path) -> None:
    photos = data_module(sample).photos("train")[:1]
    cache = cached(photos, RANDOM, Views(1, 64, True, "tiles2x1"), SMOKE.preprocessing, tmp_path)
    assert cache["full/below"].shape[:2] == (1, 2)
    assert cache["tiles2x1/below"].shape[:3] == (1, 2, 4)
    straight, mirrored = (CachedSet(photos, cache, 5)[0, seed]["image"] for seed in (0, 1))
    assert not torch.equal(straight, mirrored)
    again = cached(photos, RANDOM, Views(1, 64, True, "tiles2x1"), SMOKE.preprocessing, tmp_path)
    assert (again["full/below"] == cache["full/below"]).all()  # of another random network, were it computed again


def test_the_threshold_is_chosen_on_the_tuning_photographs_alone() -> None:
    """They want 0.2, the scored ones 0.6."""
    tune, other = ThresholdSweep(2, (0.2, 0.6)), ThresholdSweep(2, (0.2, 0.6))
    score, winner = torch.tensor([[0.1, 0.4, 0.8]]), torch.ones(1, 3, dtype=torch.long)
    tune.update(score, winner, torch.tensor([[0, 1, 1]]))
    other.update(score, winner, torch.tensor([[0, 0, 1]]))
    found = scored(tune, {"val": other}, ())
    assert found["val"]["fixed"]["threshold"] == pytest.approx(0.2)
    assert found["val"]["fixed"]["miou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["val"]["best"] == {
        "threshold": 0.6, "miou": 1.0, "mfdr": 0.0, "mfnr": 0.0, "lowest": 1.0, "iou_0": 1.0, "iou_1": 1.0
    }  # fmt: skip
    assert found["tune"]["best"]["miou"] == 1
    assert found["all"] == found["val"]


def test_the_lowest_class_is_one_that_the_photographs_show() -> None:
    counts = ThresholdSweep(3, (0.5,))
    counts.update(torch.tensor([[0.9, 0.9, 0.1]]), torch.ones(1, 3, dtype=torch.long), torch.tensor([[1, 0, 0]]))
    found = scored(counts, {"val": counts}, (0, 1, 2))["val"]["fixed"]
    assert {key: value for key, value in found.items() if key.startswith(("iou", "lowest"))} == pytest.approx(
        {"iou_0": 0.5, "iou_1": 0.5, "lowest": 0.5}
    )


def test_a_setting_is_changed_in_the_rows_that_have_it() -> None:
    options = ["tiles.attention.temperature=0.3", "epochs=2", "inference.scales=[0.5, 1.0]"]
    both = with_options(with_row(SMOKE, "both-trained"), [*options, "inference.attention.temperature=0.4"])
    assert both.tiles is not None
    assert both.tiles.attention is not None
    assert both.inference.attention is not None
    assert (both.tiles.attention.temperature, both.inference.attention.temperature) == (0.3, 0.4)
    assert (both.epochs, both.inference.scales) == (2, (0.5, 1.0))
    assert with_options(with_row(SMOKE, "puzzle"), options).tiles == ROWS["puzzle"].tiles
    plain = with_options(with_row(SMOKE, "plain"), [*options, "inference.attention.temperature=0.4"])
    assert (plain.tiles, plain.inference.attention) == (None, None)


@pytest.mark.parametrize("option", ["epoch=2", "tiles.beta.x=1", "epochs"])
def test_an_unknown_setting_is_named(option: str) -> None:
    with pytest.raises(InputError, match="--set"):
        with_options(with_row(SMOKE, "both"), [option])


def test_the_grid_is_table_1_and_an_unknown_row_is_named() -> None:
    tiles = with_row(SMOKE, "both-lam1.5-beta3.0").tiles
    assert tiles is not None
    assert tiles.contrast is not None
    assert (tiles.contrast.lam, tiles.beta) == (1.5, 3.0)
    with pytest.raises(InputError, match="no row 'boht'"):
        with_row(SMOKE, "boht")


def test_the_table_shows_mean_deviation_and_range_over_seeds() -> None:
    def record(miou: float, lowest: float) -> dict[str, Any]:
        kind = {"threshold": 0.3, "miou": miou, "mfdr": 0.5, "mfnr": 0.4, "lowest": lowest}
        return {"scores": {"all": {"fixed": kind, "best": kind}}, "curve": [], "seconds": {"training": 60.0}}

    rows = summary({"plain": [record(0.40, 0.02), record(0.44, 0.31)]})
    assert rows["plain"]["all/fixed/miou"] == pytest.approx(
        {"mean": 0.42, "sd": 0.02828, "low": 0.40, "high": 0.44}, abs=1e-4
    )
    assert "| plain | 2 | 0.30 | 42.0 ± 2.8 | 50.0 ± 0.0 | 40.0 ± 0.0 | 40.0 to 44.0 | 42.0 | 2.0 |" in markdown(rows)
