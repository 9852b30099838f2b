"""DeepLabV3+, its loss, its training and the masks that `predict` writes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from tag2mask import files, losses
from tag2mask.callbacks.label_writer import LabelWriter
from tag2mask.classes import IGNORE
from tag2mask.cli import main
from tag2mask.data.datamodules import FolderDataModule
from tag2mask.data.transforms import Preprocessing
from tag2mask.errors import InputError
from tag2mask.evaluate import Task, evaluate
from tag2mask.metrics import THRESHOLDS
from tag2mask.models.backbones import Backbone, build, read_weights
from tag2mask.models.segmentation import SegmentationNet, class_probabilities, label_map
from tag2mask.optim import SGD
from tag2mask.refine.test_time import TEST_TIME, photograph, sharpened
from tag2mask.tasks.segmentation import Inference, SegmentationTask
from tests.commands import SMALL_NET, words

NAMES = ["resnet18", "tf_efficientnet_lite0", "resnest14d", "convnext_atto"]
SMALL = Backbone("resnet18", weights=None, freeze_norm=True)
CONFIG = "configs/demo/segmentation.yaml"
ONCE = Inference(scales=(1.0,), flip=False)


def net(name: str = "resnet18", stride: int = 16, **settings: object) -> SegmentationNet:
    torch.manual_seed(0)
    return SegmentationNet(4, Backbone(name, output_stride=stride, weights=None, **settings)).eval()  # type: ignore[arg-type]


# network


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", NAMES)
def test_scores_have_the_size_of_an_image_of_any_size(name: str, stride: int) -> None:
    network = net(name, stride)
    with torch.no_grad():
        for size in ((64, 64), (65, 41), (1, 1), (30, 7)):
            assert network(torch.rand(2, 3, *size)).shape == (2, 4, *size)


def test_padding_is_all_that_another_size_changes() -> None:
    network, image = net(), torch.rand(1, 3, 40, 56)
    padded = F.pad(image, (0, 8, 0, 8))
    torch.testing.assert_close(network(image), network(padded)[..., :40, :56])


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_weights_fill_the_whole_encoder(name: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    given = build(Backbone(name, weights=None)).eval()
    torch.save(given.state_dict(), tmp_path / "weights.pth")
    network = SegmentationNet(4, Backbone(name, weights=str(tmp_path / "weights.pth"))).eval()
    network.load_pretrained()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = given.forward_intermediates(image, intermediates_only=True)
        found = network.encoder(image)
    torch.testing.assert_close(found[-1], expected[-1])
    torch.testing.assert_close(found[-3], expected[-3])


def test_efficientnets_package_fills_the_encoder() -> None:
    network = SegmentationNet(4, Backbone("tf_efficientnet_lite0", weights="package"))
    network.load_pretrained()
    given = read_weights("tf_efficientnet_lite0", "package")
    assert torch.equal(network.encoder.conv_stem.weight, given["_conv_stem.weight"])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(build(Backbone("resnet34", weights=None)).state_dict(), tmp_path / "other.pth")
    network = SegmentationNet(4, Backbone("resnest14d", weights=str(tmp_path / "other.pth")))
    with pytest.raises(InputError, match="are not those of resnest14d"):
        network.load_pretrained()


@pytest.mark.parametrize(
    ("name", "parts"), [("tf_efficientnet_lite0", ("conv_stem", "blocks.0")), ("convnext_atto", ("stages.0",))]
)
def test_frozen_layers_stay_frozen_after_train_and_the_rest_learns(name: str, parts: tuple[str, ...]) -> None:
    network = net(name, freeze_norm=True, frozen=parts).train()
    before = {key: value.clone() for key, value in network.encoder.state_dict().items()}
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert all(torch.equal(value, before[key]) for key, value in network.encoder.state_dict().items())
    learning = {key for key, weight in network.named_parameters() if weight.requires_grad}
    assert all(weight.grad is not None for key, weight in network.named_parameters() if key in learning)
    stages = {key.removeprefix("model.encoder.model.").replace("_", ".") for key in learning}
    assert not any(key.startswith(tuple(part.replace("_", ".") for part in parts)) for key in stages)
    assert any(key.startswith(("blocks.6", "stages.3")) for key in stages)
    assert network.model.decoder.training


def test_without_dilation_the_encoder_has_none() -> None:
    def dilations(network: SegmentationNet) -> set[int]:
        return {max(m.dilation) for m in network.encoder.modules() if isinstance(m, nn.Conv2d)}

    assert dilations(net()) == {1, 2}
    assert dilations(net(dilate=False)) == {1}


@pytest.mark.parametrize(
    ("name", "stride", "told"),
    [
        ("resnet18", 32, "output stride 8 or 16, not 32"),
        ("resnet5", 16, "timm has no model 'resnet5'"),
        ("vit_tiny_patch16_224", 16, "cannot"),
    ],
)
def test_a_network_that_cannot_be_an_encoder_is_named(name: str, stride: int, told: str) -> None:
    with pytest.raises(InputError, match=told):
        net(name, stride)


# loss


def test_loss_by_hand_leaves_out_ignored_pixels() -> None:
    scores = torch.zeros(1, 2, 1, 3)
    scores[0, 1, 0, 1] = np.log(3)
    label = torch.tensor([[[0, 1, IGNORE]]])
    expected = (np.log(2) + np.log(4 / 3)) / 2
    assert losses.segmentation(scores, label).item() == pytest.approx(expected, abs=1e-6)


def test_loss_is_torchs_cross_entropy_and_zero_without_labels() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 5, 8, 8, requires_grad=True)
    label = torch.randint(0, 5, (2, 8, 8))
    label[:, :3] = IGNORE
    torch.testing.assert_close(losses.segmentation(scores, label), F.cross_entropy(scores, label, ignore_index=IGNORE))
    nothing = losses.segmentation(scores, torch.full_like(label, IGNORE))
    nothing.backward()
    assert nothing.item() == 0
    assert scores.grad is not None
    assert (scores.grad == 0).all()


# masks of a photograph


def test_probabilities_of_one_scale_are_the_softmax() -> None:
    network, image = net(), torch.rand(3, 50, 39)
    with torch.no_grad():
        expected = network(image[None]).softmax(1)[0]
        torch.testing.assert_close(class_probabilities(network, image, (1.0,), flip=False), expected)


def test_a_mirrored_image_has_the_mirrored_probabilities() -> None:
    network, image = net(), torch.rand(3, 50, 39)
    with torch.no_grad():
        found = class_probabilities(network, image, (0.5, 1.0), flip=True)
        mirrored = class_probabilities(network, image.flip(-1), (0.5, 1.0), flip=True)
        assert not torch.allclose(found, class_probabilities(network, image, (0.5, 1.0), flip=False))
    torch.testing.assert_close(mirrored.flip(-1), found)
    torch.testing.assert_close(found.sum(0), torch.ones(50, 39))


def test_probabilities_are_the_mean_over_scales() -> None:
    class BySize(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sure = torch.full((len(images), 1, *images.shape[-2:]), float(np.log(3)))
            return torch.cat([torch.zeros_like(sure), sure if images.shape[-1] == 40 else -sure], 1)

    found = class_probabilities(BySize(), torch.rand(3, 20, 20), (1.0, 2.0), flip=True)
    torch.testing.assert_close(found[1], torch.full((20, 20), (0.25 + 0.75) / 2))


@pytest.mark.parametrize("size", [(97, 61), (200, 13), (5, 7), (1, 1)])
@pytest.mark.parametrize("budget", [1, 300, 2**24])
def test_a_label_map_in_strips_is_that_of_scaled_probabilities(size: tuple[int, int], budget: int) -> None:
    torch.manual_seed(0)
    probabilities = torch.rand(3, 11, 8).softmax(0)
    whole = F.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]
    found = label_map(probabilities, size, budget)
    assert found.dtype == torch.uint8
    top = whole.topk(2, 0).values
    clear = top[0] - top[1] > 1e-5
    assert torch.equal(found[clear].long(), whole.argmax(0)[clear])
    assert clear.float().mean() > 0.9


def test_a_label_map_of_the_same_size_is_the_most_probable_class() -> None:
    probabilities = torch.rand(5, 9, 4)
    assert torch.equal(label_map(probabilities, (9, 4)).long(), probabilities.argmax(0))


def test_the_crf_draws_probabilities_to_the_outline() -> None:
    image = np.full((40, 60, 3), (20, 30, 60), np.uint8)
    image[:, :30] = (220, 40, 40)
    probabilities = torch.full((21, 40, 60), 0.001)
    probabilities[7] = torch.linspace(0.9, 0.1, 60)  # of the left half, blurred and too wide
    probabilities[7, :, 30:36] = 0.55
    probabilities[0] = 1 - probabilities[1:].sum(0)
    truth = torch.where(torch.arange(60) < 30, 7, 0).expand(40, 60)
    after = sharpened(probabilities, image, TEST_TIME)
    assert (after.argmax(0) == truth).float().mean() > 0.97 > (probabilities.argmax(0) == truth).float().mean()
    torch.testing.assert_close(after.sum(0), torch.ones(40, 60))
    assert (after[1:7] == 0).all()


def test_the_crf_leaves_a_photograph_without_objects_as_it_is() -> None:
    probabilities = torch.tensor([0.8, 0.2])[:, None, None].expand(2, 5, 6)
    assert sharpened(probabilities, np.zeros((5, 6, 3), np.uint8), TEST_TIME) is probabilities


def test_a_photograph_comes_back_from_its_normalised_form() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    how = Preprocessing()
    normalised = (pixels / 255 - how.mean) / how.std
    back = photograph(torch.from_numpy(normalised).permute(2, 0, 1).float(), how.mean, how.std)
    assert np.array_equal(back, pixels)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (9.0,)])
def test_impossible_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="expected one or more numbers"):
        Inference(scales)


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
        files.write_picture(root / "images" / f"{number}.png", image)
        files.write_label(root / "masks" / f"{number}.png", (image[..., 0] == 200).astype(np.uint8))
    (root / "tags.csv").write_text("name,tags\n" + "".join(f"{number},box\n" for number in range(10)))
    (root / "train.txt").write_text("".join(f"{number}\n" for number in range(9)))
    (root / "val.txt").write_text("9\n")
    return root


def test_training_finds_the_objects_it_is_shown(tmp_path: Path) -> None:
    root = boxes(tmp_path / "own")
    how = Preprocessing(long_side=(64, 64), crop_size=64)
    module = FolderDataModule(str(root), batch_size=9, num_workers=0, preprocessing=how, labels=str(root / "masks"))
    torch.manual_seed(0)
    learner = SegmentationTask(1, ("box",), Backbone("resnet18", weights=None), SGD(lr=0.02))
    run = trainer(tmp_path, max_epochs=16, check_val_every_n_epoch=16)
    run.fit(learner, datamodule=module)
    assert run.callback_metrics["val/iou_box"] > 0.75
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
    expected |= {f"{key}_{named[name]}": value for key in ("iou", "fdr", "fnr") for name, value in score[key].items()}
    for name, value in expected.items():
        assert logged[f"val/{name}"].item() == pytest.approx(np.nan if value is None else value, abs=1e-6, nan_ok=True)
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
        ({"image": torch.full((2, 3, 32, 32), torch.nan)}, "not finite at step 0: nan; images cat, dog"),
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
    with pytest.raises(InputError, match="not one of the segmentation network but of cam"):
        task().on_load_checkpoint({"tag2mask": {"task": "cam", "classes": list("abcde")}})
    with pytest.raises(InputError, match="not trained"):
        trainer(tmp_path).predict(task(), datamodule=data(sample))


# predict


def command(verb: str, sample: Path, run: Path, **over: str) -> list[str]:
    settings = {"data__init_args__labels": str(sample / "masks")} | over
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    return [*words(verb, CONFIG, sample, run, **settings), *small]


@pytest.fixture
def trained(segmentation_checkpoint: Path) -> list[str]:
    """Words that name the checkpoint."""
    return ["--ckpt_path", str(segmentation_checkpoint)]


def test_predict_writes_masks_goes_on_and_stops_at_another_network(
    sample: Path, trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command("predict", sample, tmp_path), *trained]
    assert main(words) == 0
    folder = tmp_path / "masks" / "val"
    names = (sample / "val.txt").read_text().split()
    assert {path.stem for path in folder.glob("*.png")} == set(names)
    for name in names:
        truth = files.read_label(sample / "masks" / f"{name}.png")
        assert files.read_label(folder / f"{name}.png").shape == truth.shape
    assert len(np.unique(np.concatenate([files.read_label(path).flatten() for path in folder.glob("*.png")]))) > 1
    assert files.read_json(folder / "run.json")["finished"]
    kept, gone = folder / f"{names[0]}.png", folder / f"{names[1]}.png"
    before, time = gone.read_bytes(), kept.stat().st_mtime_ns
    gone.unlink()
    assert main(words) == 0
    assert gone.read_bytes() == before
    assert kept.stat().st_mtime_ns == time
    other = [*words, "--model.init_args.inference.flip", "false"]
    capsys.readouterr()
    assert main(other) == 2
    assert "inference.flip: True, now False" in capsys.readouterr().err
    assert main([*other, "--overwrite"]) == 0


def test_predict_with_the_crf_writes_other_masks(sample: Path, trained: list[str], tmp_path: Path) -> None:
    crf = "{steps: 3, certainty: null, bilateral: {sxy: 80, srgb: 13, compat: 10}}"
    writer = f"[{{class_path: tag2mask.callbacks.label_writer.LabelWriter, init_args: {{crf: {crf}}}}}]"
    words = [*command("predict", sample, tmp_path), *trained]
    assert main(words) == 0
    plain = {path: files.read_label(path) for path in (tmp_path / "masks" / "val").glob("*.png")}
    assert main([*words, "--trainer.callbacks", writer, "--overwrite"]) == 0
    assert any((files.read_label(path) != label).any() for path, label in plain.items())
    record = files.read_json(tmp_path / "masks" / "val" / "run.json")
    assert record["config"]["crf"]["bilateral"]["sxy"] == 80
    assert record["files"] == 4


def test_masks_that_predict_did_not_make_are_never_replaced(
    sample: Path, trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = (sample / "val.txt").read_text().split()[0]
    own = tmp_path / "masks" / "val" / f"{name}.png"
    files.write_label(own, np.ones((3, 3)))
    before = own.read_bytes()
    words = [*command("predict", sample, tmp_path), *trained]
    for more in ([], ["--overwrite"]):
        assert main([*words, *more]) == 2
        assert "did not make" in capsys.readouterr().err
    assert own.read_bytes() == before


def test_a_checkpoint_of_another_task_is_one_line(
    sample: Path, edge_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command("predict", sample, tmp_path), "--ckpt_path", str(edge_checkpoint)]) == 2
    shown = capsys.readouterr().err
    assert "not one of the segmentation network but of affinity" in shown.strip().splitlines()[-1]
    assert "Traceback" not in shown
