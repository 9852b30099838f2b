"""The training of DeepLabV3+: its loss, what it learns and logs, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from tag2mask.callbacks.writers import LabelWriter
from tag2mask.classes import IGNORE
from tag2mask.cli.main import main
from tag2mask.data.datamodules import FolderDataModule
from tag2mask.data.transforms import Preprocessing
from tag2mask.errors import InputError
from tag2mask.io.images import write_picture
from tag2mask.io.labels import write_label
from tag2mask.losses import CollisionCrossEntropy, CrossEntropy, PixelLoss, SoftCrossEntropy
from tag2mask.metrics.evaluation import Task, evaluate
from tag2mask.metrics.functional import THRESHOLDS
from tag2mask.models.backbones import Backbone
from tag2mask.tasks import checkpoints
from tag2mask.tasks.optim import SGD
from tag2mask.tasks.segmentation import MaskInference, SegmentationTask

SMALL = Backbone("resnet18", weights=None, freeze_norm=True)
ONCE = MaskInference(scales=(1.0,), flip=False)


# loss


# training


def trainer(folder: Path, **settings: object) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0}
    return Trainer(accelerator="cpu", default_root_dir=folder, **(quiet | settings))  # type: ignore[arg-type]


def data(sample: Path, **settings: object) -> FolderDataModule:
    small = Preprocessing(long_side=(48, 80), crop_size=64)
    given = {"batch_size": 4, "num_workers": 0, "predict_split": "val", "labels": str(sample / "masks")} | settings
    return FolderDataModule(str(sample), preprocessing=small, **given)  # type: ignore[arg-type]


def task(**settings: object) -> SegmentationTask:
    torch.manual_seed(1)
    return SegmentationTask(5, backbone=SMALL, inference=ONCE, **settings)  # type: ignore[arg-type]


def boxes(root: Path) -> Path:
    """Ten photographs of a bright box on a dark ground, the tenth for validation."""
    rng = np.random.default_rng(0)
    for number in range(10):
        image = np.full((64, 64, 3), 60, np.uint8)
        x, y = rng.integers(4, 28, 2)
        image[y : y + 32, x : x + 32] = 200
        write_picture(root / "images" / f"{number}.png", image)
        write_label(root / "masks" / f"{number}.png", (image[..., 0] == 200).astype(np.uint8))
    (root / "tags.csv").write_text("name,tags\n" + "".join(f"{number},box\n" for number in range(10)))
    (root / "train.txt").write_text("".join(f"{number}\n" for number in range(9)))
    (root / "val.txt").write_text("9\n")
    return root


@pytest.mark.slow
def test_training_finds_the_objects_it_is_shown(tmp_path: Path) -> None:
    root = boxes(tmp_path / "own")
    how = Preprocessing(long_side=(64, 64), crop_size=64)
    module = FolderDataModule(str(root), batch_size=9, num_workers=0, preprocessing=how, labels=str(root / "masks"))
    torch.manual_seed(0)
    learner = SegmentationTask(1, ("box",), Backbone("resnet18", weights=None), SGD(lr=0.02))
    run = trainer(tmp_path, max_epochs=16, check_val_every_n_epoch=16)
    run.fit(learner, datamodule=module)
    assert run.callback_metrics["val_iou/box"] > 0.75
    assert run.callback_metrics["val/miou"] > 0.75


def test_scores_while_training_are_those_of_the_masks_that_predict_writes(sample: Path, tmp_path: Path) -> None:
    learner, run = task(), trainer(tmp_path, max_epochs=1, callbacks=[LabelWriter()])
    run.fit(learner, datamodule=data(sample))
    logged = dict(run.callback_metrics)
    run.predict(learner, datamodule=data(sample), return_predictions=False)
    names = (sample / "val.txt").read_text().split()
    score = evaluate(Task(tmp_path / "masks" / "val", sample / "masks", names, ("background", *"12345")), THRESHOLDS)[
        "best"
    ]
    expected = {key: score[key] for key in ("miou", "mfdr", "mfnr", "miou_foreground", "mfnr_foreground")}
    named = {"background": "background"} | {value: f"class {value}" for value in "12345"}
    expected = {f"val/{key}": value for key, value in expected.items()}
    by_class = {f"val_{key}/{named[n]}": value for key in ("iou", "fdr", "fnr") for n, value in score[key].items()}
    for name, value in (expected | by_class).items():
        assert logged[name].item() == pytest.approx(np.nan if value is None else value, abs=1e-6, nan_ok=True)
    assert 0 < logged["val/miou"] < 1


def test_a_batch_without_any_label_changes_nothing_but_is_no_fault(tmp_path: Path) -> None:
    learner = task()
    learner.log = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    batch = {"image": torch.rand(2, 3, 32, 32), "mask": torch.full((2, 32, 32), IGNORE), "name": ["a", "b"]}
    loss = learner.training_step(batch, 0)
    loss.backward()
    assert loss.item() == 0
    assert all((weight.grad == 0).all() for weight in learner.parameters() if weight.grad is not None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image": torch.full((2, 3, 32, 32), torch.nan)}, "not finite at step 0: loss nan; images cat, dog"),
        ({"image": torch.rand(1, 3, 32, 32)}, "batch of one image"),
        ({"mask": None}, "--data.init_args.labels"),
    ],
)
def test_what_cannot_be_trained_on_is_said(change: dict[str, object], told: str) -> None:
    batch = {"image": torch.rand(2, 3, 32, 32), "mask": torch.zeros(2, 32, 32).long(), "name": ["cat", "dog"]}
    given = {key: value for key, value in (batch | change).items() if value is not None}
    learner = task()
    learner.log = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    with pytest.raises(InputError, match=told):
        learner.training_step(given, 0)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (CollisionCrossEntropy(), "CollisionCrossEntropy needs the cam of each label"),
        (CrossEntropy(pairwise=1.0), "CrossEntropy needs the edge of each label"),
        (SoftCrossEntropy(pairwise=1.0), "needs the cam and edge of each label; give --data.init_args.soft true"),
    ],
)
def test_a_loss_of_soft_labels_does_not_learn_from_hard_ones(loss: PixelLoss, told: str) -> None:
    batch = {"image": torch.rand(2, 3, 32, 32), "mask": torch.zeros(2, 32, 32).long(), "name": ["a", "b"]}
    with pytest.raises(InputError, match=told):
        task(loss=loss).training_step(batch, 0)


@pytest.mark.slow
def test_soft_labels_train_the_network_and_their_loss_is_in_the_checkpoint(
    cams: Path, sample: Path, edge_checkpoint: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels"
    walk = {"class_path": "EdgeWalk", "init_args": {"checkpoint": str(edge_checkpoint), "steps": 8}}
    recipe = ["--recipe", "tag2mask.refine.recipes.PseudoLabels", "--recipe.init_args.walk", json.dumps(walk)]
    where = ["--cams", str(cams), "--photos", str(sample), "--out", str(labels), "--workers", "1", "--device", "cpu"]
    assert main(["labels", *recipe, *where, "--soft", "true"]) == 0
    names = sorted(path.stem for path in labels.glob("*.png"))
    (tmp_path / "own").mkdir()
    shutil.copytree(sample, tmp_path / "own", dirs_exist_ok=True)
    (tmp_path / "own" / "train.txt").write_text("\n".join(names))
    learner = task(loss=CollisionCrossEntropy(pairwise=0.5))
    keep = ModelCheckpoint(tmp_path, "last")
    run = trainer(tmp_path, max_epochs=1, limit_val_batches=0, callbacks=[keep], enable_checkpointing=True)
    run.fit(learner, datamodule=data(tmp_path / "own", labels=str(labels), soft=True))
    assert 0 < run.callback_metrics["train/loss_pairwise"] < run.callback_metrics["train/loss"]
    assert checkpoints.load(SegmentationTask, tmp_path / "last.ckpt", "cpu").loss == CollisionCrossEntropy(pairwise=0.5)


def test_a_run_taken_up_in_mid_epoch_ends_as_an_unbroken_one(sample: Path, tmp_path: Path) -> None:
    def fitted(path: Path | None) -> dict[str, Tensor]:
        learner = task(optimizer=SGD(lr=0.01))
        keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=6, save_top_k=-1)
        run = trainer(tmp_path, max_epochs=2, limit_val_batches=0, callbacks=[keep], enable_checkpointing=True)
        run.fit(learner, datamodule=data(sample, batch_size=2), ckpt_path=path)
        assert run.global_step == 8
        return {name: value.clone() for name, value in learner.state_dict().items()}

    unbroken = fitted(None)
    torch.rand(1)  # whatever else drew in between
    resumed = fitted(tmp_path / "step=6.ckpt")  # the second of 4 steps of the second epoch
    assert all(torch.equal(value, resumed[name]) for name, value in unbroken.items())


def test_the_decoder_learns_faster_than_the_encoder() -> None:
    optimizer = task(optimizer=SGD(lr=0.007, new_factor=10)).configure_optimizers()["optimizer"]
    rates = sorted({round(group["initial_lr"], 6) for group in optimizer.param_groups})
    assert rates == [0.007, 0.07, 0.14]  # weights of the encoder, of the decoder, biases of the decoder


def test_a_checkpoint_of_another_network_and_none_are_refused(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="checkpoint of the cam network"):
        task().on_load_checkpoint({"tag2mask": {"task": "cam", "classes": list("abcde")}})
    with pytest.raises(InputError, match="not trained"):
        trainer(tmp_path).predict(task(), datamodule=data(sample))


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (9.0,)])
def test_impossible_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="expected one or more numbers"):
        MaskInference(scales)
