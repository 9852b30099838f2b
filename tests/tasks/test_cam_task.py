import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from tag2mask import losses
from tag2mask.callbacks.pictures import CAMPictures
from tag2mask.callbacks.scores import CAMScores
from tag2mask.callbacks.writers import CAMWriter
from tag2mask.data.datamodules import FolderDataModule
from tag2mask.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from tag2mask.errors import InputError, SettingError
from tag2mask.metrics.evaluation import Task, evaluate
from tag2mask.models.attention import Attention
from tag2mask.models.backbones import Backbone
from tag2mask.models.tiling import by_image, tile, untile
from tag2mask.tasks import checkpoints
from tag2mask.tasks.cam import CAMTask
from tag2mask.tasks.optim import SGD
from tag2mask.tasks.settings import CAMInference, Contrast, Tiles

NET = Backbone("resnet18", weights=None, freeze_norm=True)
PUZZLE = Tiles(
    min_side=0, beta=2.0, start=0.0, ramp=0.5, distance="l1", learns="both", attention=None, refined="all",
    contrast=None, moves="network", tags="all",
)  # fmt: skip
PRINTED_RSA = Attention("exp_dot", temperature=1.0, center=False)
PRINTED_CFC = Contrast(lam=0.5, per_class=False, detach_features=False, repel=0.0, least=0.0)
METHODS = {
    "plain": None,
    "puzzle": PUZZLE,
    "rsa": replace(PUZZLE, attention=PRINTED_RSA),
    "cfc": replace(PUZZLE, contrast=PRINTED_CFC),
    "printed": replace(PUZZLE, attention=PRINTED_RSA, contrast=PRINTED_CFC),
    "paper": Tiles(),
    "image": Tiles(attention=Attention(layer="layer2", region="image", detach=True), refined="all", moves="network"),
}


def trainer(folder: Path, **settings: object) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(accelerator="cpu", default_root_dir=folder, enable_checkpointing=False, **quiet, **settings)  # type: ignore[arg-type]


def data(sample: Path) -> FolderDataModule:
    small = Preprocessing(long_side=(48, 80), crop_size=64)
    return FolderDataModule(str(sample), batch_size=4, num_workers=0, preprocessing=small, predict_split="val")


def task(tiles: Tiles | None) -> CAMTask:
    torch.manual_seed(0)
    return CAMTask(5, backbone=NET, tiles=tiles, inference=CAMInference(scales=(1.0,), flip=False))


@pytest.fixture
def batch() -> dict[str, object]:
    torch.manual_seed(1)
    return {
        "image": torch.randn(3, 3, 64, 64),
        "label": torch.tensor([[1.0, 0, 0, 0, 1]]).expand(3, 5),
        "name": ["a"] * 3,
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
def test_every_method_trains_and_logs_its_terms(sample: Path, tmp_path: Path, method: str, precision: str) -> None:
    run = trainer(tmp_path, max_steps=2, limit_val_batches=0, precision=precision)
    run.fit(task(METHODS[method]), datamodule=data(sample))
    logged = {name.removeprefix("train/") for name in run.callback_metrics}
    expected = {"loss", "loss_cls"}
    expected |= set() if method == "plain" else {"loss_cls_tiled", "loss_re", "beta"}
    expected |= {"attention_entropy"} if method in ("rsa", "printed", "paper", "image") else set()
    expected |= {"loss_cfc", "cfc_similarity"} if method in ("cfc", "printed", "paper", "image") else set()
    expected |= {"loss_repel"} if method in ("paper", "image") else set()
    logged |= {"cfc_similarity"} & expected  # with random weights, no tile may show a class
    assert logged == expected
    assert all(torch.isfinite(value) for value in run.callback_metrics.values())


def test_without_attention_and_contrast_the_loss_is_puzzle_cams(batch: dict[str, torch.Tensor]) -> None:
    module = task(METHODS["puzzle"]).eval()
    module.total_steps = 0  # the ramp is over
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    loss, _ = module.two_step_loss(PUZZLE, module.branches(PUZZLE, batch), batch["label"])
    full, merged = module(batch["image"]), untile(module(tile(batch["image"])))
    expected = sum(losses.classification_loss(cam.mean((2, 3)), batch["label"]) for cam in (full, merged))
    expected = expected + 2.0 * ((full - merged).abs() * batch["label"][:, :, None, None]).mean()
    torch.testing.assert_close(loss, expected)


def after_the_ramp() -> CAMTask:
    """Return a network in a training whose ramp of beta is over."""
    module = task(METHODS["paper"]).eval()
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.total_steps = 0
    return module


@pytest.mark.parametrize("tags", ["found", "all"])
def test_cfc_and_the_equivariance_loss_compare_no_class_that_the_tiles_do_not_find(
    batch: dict[str, torch.Tensor], tags: Literal["found", "all"]
) -> None:
    module, tiles = after_the_ramp(), Tiles(tags=tags, moves="network")
    with torch.no_grad():
        steps = module.branches(tiles, batch)
    shift = torch.tensor([1.0, 0, 0, 0, -1]) * (steps.tiled.mean((0, 2, 3)).abs() + 0.01)
    steps = steps._replace(tiled=steps.tiled * 0 + shift[:, None, None])  # class 0 is found, class 4 is not
    with torch.no_grad():
        _, terms = module.two_step_loss(tiles, steps, batch["label"])
    first, both = (batch["label"] * torch.tensor([1.0, 0, 0, 0, last]) for last in (0.0, 1.0))
    compared = first if tags == "found" else both
    expected = losses.correlation_loss(steps.full, steps.target, compared)
    assert terms["loss_re"] == pytest.approx(expected.item())
    assert losses.correlation_loss(steps.full, steps.target, first) != losses.correlation_loss(
        steps.full, steps.target, both
    )
    features, cam = (by_image(x, 2) for x in (steps.tile_features, steps.tile_cam))
    cfc = losses.cross_image_foreground_contrast(features, cam, compared, 0.25, True, 20.0, 0.05)
    assert terms["loss_repel"] == pytest.approx(cfc["loss_repel"].item())


@pytest.mark.parametrize("moves", ["network", "classifier"])
def test_cfc_and_the_equivariance_loss_move_the_class_weights_alone_or_the_features_too(
    batch: dict[str, torch.Tensor], moves: Literal["network", "classifier"]
) -> None:
    module, tiles = after_the_ramp(), Tiles(moves=moves, tags="all")
    loss, terms = module.two_step_loss(tiles, module.branches(tiles, batch), batch["label"])
    rest = loss - terms["loss_cls"] - terms["loss_cls_tiled"]
    expected = tiles.beta * terms["loss_re"] + 0.02 * (terms["loss_cfc"] + 20 * terms["loss_repel"])
    torch.testing.assert_close(rest, expected)
    weights = module.net.classifier.weight, next(module.net.backbone.parameters())
    classifier, features = torch.autograd.grad(expected, weights, allow_unused=True)
    assert classifier.abs().sum() > 0
    assert (features is not None and bool(features.abs().sum() > 0)) == (moves == "network")


@pytest.mark.parametrize(
    "changed",
    [{"refined": "all"}, {"learns": "both"}, {"learns": "tiled"}, {"contrast": Contrast(detach_features=False)}],
)
def test_class_weights_cannot_learn_alone_where_another_setting_moves_the_features(changed: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="give moves: network"):
        Tiles(**changed)
    assert Tiles(**changed, moves="network")
    assert Tiles(contrast=None).moves == "classifier"


def test_beta_grows_over_the_first_half(sample: Path, tmp_path: Path) -> None:
    seen = []

    class Watch(CAMScores):
        def on_train_batch_end(self, trainer: Trainer, *rest: object) -> None:
            seen.append(trainer.callback_metrics["train/beta"].item())

    run = trainer(tmp_path, max_epochs=4, limit_val_batches=0, callbacks=[Watch()])
    run.fit(task(METHODS["puzzle"]), datamodule=data(sample))
    assert seen == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]


def test_scores_pictures_and_files_come_from_one_run_each_alone(sample: Path, tmp_path: Path) -> None:
    module, scores, pictures = task(None), CAMScores(threshold=0.33), CAMPictures(count=2)
    run = trainer(tmp_path, max_epochs=1, callbacks=[scores, pictures, CAMWriter()], num_sanity_val_steps=0)
    run.fit(module, datamodule=data(sample))
    assert len(list((tmp_path / "pictures").glob("*/*.png"))) == 2
    assert len(list((tmp_path / "pictures").glob("*/worst/*.png"))) == 4
    logged = dict(run.callback_metrics)
    run.predict(module, datamodule=data(sample), return_predictions=False)
    names = (sample / "val.txt").read_text().split()
    stored = evaluate(Task(tmp_path / "cams", sample / "masks", names, ("b", *"12345")), scores.thresholds, 0.33)
    assert logged["val/cam_miou"].item() == pytest.approx(stored["best"]["miou"], abs=2e-3)  # files hold half precision
    assert logged["val/cam_miou_fixed"].item() == pytest.approx(stored["fixed"]["miou"], abs=2e-3)
    assert logged["val/cam_mfnr"].item() == pytest.approx(stored["best"]["mfnr"], abs=2e-3)


def test_pictures_go_to_a_logger_that_shows_images(sample: Path, tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    class Showing(CSVLogger):
        shown: list[str]

        def log_image(self, key: str, images: list[object], step: int | None = None, **masks: object) -> None:
            self.shown.append(key)

    logger = Showing(str(tmp_path))
    logger.shown = []
    run = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0, callbacks=[CAMPictures(count=1, worst=1)])
    run.loggers = [logger]
    run.fit(task(None), datamodule=data(sample))
    assert [key.split("/")[0] for key in logger.shown] == ["heat", "panel", "worst_heat", "worst"]
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 2


def test_cams_of_random_weights_are_refused(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not trained"):
        trainer(tmp_path).predict(task(None), datamodule=data(sample))


def test_a_checkpoint_made_from_python_loads(sample: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    module = task(METHODS["printed"])
    run.fit(module, datamodule=data(sample))
    run.save_checkpoint(tmp_path / "x.ckpt")
    loaded = checkpoints.load(CAMTask, tmp_path / "x.ckpt")
    assert loaded.preprocessing == asdict(data(sample).preprocessing.normalized_by(IMAGENET_MEAN, IMAGENET_STD))
    assert not loaded.training
    assert loaded.tiles == METHODS["printed"]
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


def test_training_never_opens_a_mask(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr("tag2mask.io.labels.read_label", refuse)
    run = trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    run.fit(task(None), datamodule=data(sample))
    assert run.global_step == 2


@pytest.mark.parametrize("where", ["tiles", "inference"])
def test_an_unknown_layer_of_an_attention_is_named_before_training(where: str) -> None:
    wrong = Attention(layer="blocks.2")
    tiles = replace(PUZZLE, attention=wrong if where == "tiles" else None)
    how = CAMInference(attention=wrong if where == "inference" else None)
    with pytest.raises(InputError, match="no part 'blocks.2'"):
        CAMTask(5, backbone=NET, tiles=tiles, inference=how)


def test_validation_looks_at_cams_as_they_will_be_made_but_at_one_scale() -> None:
    how = CAMInference((0.5, 1.0), stride=8, attention=Attention(layer="layer2"))
    once = CAMTask(5, backbone=NET, inference=how).validation
    assert once == CAMInference((1.0,), flip=False, stride=8, attention=how.attention)
    assert CAMTask(5, backbone=NET, inference=how, validation=CAMInference()).validation == CAMInference()


def test_cams_stand_above_the_floor(batch: dict[str, torch.Tensor]) -> None:
    made = CAMTask(5, backbone=NET, tiles=None).eval()
    photograph = batch["image"][:1], batch["label"][:1], torch.tensor([[64, 64]])
    with torch.inference_mode():
        low, high = (made.cams(*photograph, CAMInference((1.0,), floor=floor))[0].cam for floor in (0.0, 0.5))
    assert (low < 0.5).any()
    torch.testing.assert_close(high, (2 * low - 1).clamp_min(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("floor", [-0.1, 1.0])
def test_a_floor_that_leaves_nothing_is_refused(floor: float) -> None:
    with pytest.raises(InputError, match=f"floor is {floor}; expected"):
        CAMInference(floor=floor)


@pytest.mark.parametrize("least", [-0.1, 1.5])
def test_a_share_that_leaves_out_every_tile_is_refused(least: float) -> None:
    with pytest.raises(InputError, match=f"least is {least}; expected"):
        Contrast(least=least)


def test_a_checkpoint_keeps_the_attention_of_its_cams(tmp_path: Path) -> None:
    how = CAMInference(attention=Attention(layer="layer2"), floor=0.5)
    made = CAMTask(5, backbone=NET, tiles=None, inference=how)
    run = trainer(tmp_path, max_steps=1)
    run.strategy.connect(made)
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = CAMTask.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.inference == made.inference


def test_untagged_photographs_are_not_counted_as_without_any_class(sample: Path) -> None:
    """In the validation loss: it would be that of the prediction "nothing is here"."""
    module = task(None)
    source = data(sample)
    source.setup("fit")
    batch = next(iter(source.val_dataloader()))
    tagged, untagged = batch, {**batch, "label": torch.full_like(batch["label"], -1)}
    module.log = lambda *args, **named: None  # type: ignore[assignment, method-assign]
    module.eval()
    with torch.no_grad():
        module.validation_step(tagged, 0)
        before = module.val_loss.compute()
        module.validation_step(untagged, 1)
    assert module.val_loss.compute() == before


# plain vision transformers

VIT = Backbone("test_vit", weights=None, frozen=("cls_token", "pos_embed", "patch_embed", "blocks.0"))


@pytest.mark.parametrize(
    "tiles",
    [None, Tiles(attention=Attention(layer="blocks.2")), Tiles(attention=Attention("network"), contrast=None)],
    ids=["plain", "block", "network"],
)
def test_twenty_steps_of_a_vision_transformer_lower_the_loss(
    sample: Path, tmp_path: Path, tiles: Tiles | None, batch: dict[str, torch.Tensor]
) -> None:
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, *rest: object) -> None:
            seen.append({key: value.item() for key, value in trainer.callback_metrics.items()})

    torch.manual_seed(0)
    how = CAMInference((0.5, 1.0), attention=Attention("network", layer=("blocks.4", "blocks.5")))
    module = CAMTask(5, backbone=VIT, tiles=tiles, optimizer=SGD(lr=0.002), inference=how)
    before = {name: p.detach().clone() for name, p in module.net.named_parameters()}
    run = trainer(tmp_path, max_steps=20, limit_val_batches=0, callbacks=[Watch()])
    run.fit(module, datamodule=data(sample))
    assert len(seen) == 20
    assert all(math.isfinite(value) for each in seen for value in each.values())
    first, last = (sum(each["train/loss_cls"] for each in part) for part in (seen[:5], seen[-5:]))
    assert last < 0.9 * first
    moved = {name for name, p in module.net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if not name.removeprefix("backbone.").startswith(VIT.frozen)}
    with torch.inference_mode():
        photograph = batch["image"][:1, :, :40], batch["label"][:1], torch.tensor([[40, 64]])
        cams, _, entropy = module.eval().cams(*photograph, how)
    assert cams.cam.shape == (2, 10, 16)
    assert torch.isfinite(cams.cam).all()
    assert entropy is not None
    assert 0 < entropy <= 1


@pytest.mark.parametrize("where", ["tiles", "inference"])
def test_an_attention_that_a_network_lacks_is_refused_before_training(where: str) -> None:
    wrong = Attention("network")
    tiles = replace(PUZZLE, attention=wrong if where == "tiles" else None)
    how = CAMInference(attention=wrong if where == "inference" else None)
    with pytest.raises(InputError, match="no attention of its own"):
        CAMTask(5, backbone=NET, tiles=tiles, inference=how)
    CAMTask(5, backbone=VIT, tiles=tiles, inference=how)
