"""The edge network, its loss and its training."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from tag2mask import losses
from tag2mask.cli.main import main
from tag2mask.data.datamodules import FolderDataModule
from tag2mask.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from tag2mask.errors import InputError
from tag2mask.inference.cams import Edges
from tag2mask.io.images import read_image, write_picture
from tag2mask.io.labels import write_label
from tag2mask.io.records import write_run
from tag2mask.models.backbones import Backbone
from tag2mask.models.edges import EdgeNet, at_edge_map, edge_map
from tag2mask.tasks.affinity import AffinityTask
from tag2mask.tasks.optim import SGD
from tests.commands import SMALL_NET, words

SMALL = Backbone("resnet18", weights=None)
NAMES = ["resnet18", "tf_efficientnet_lite0", "resnest14d", "convnext_atto"]


def net(name: str = "resnet18", stride: int = 16) -> EdgeNet:
    torch.manual_seed(0)
    return EdgeNet(Backbone(name, output_stride=stride, weights=None)).eval()


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (30, 7)])
@pytest.mark.parametrize("name", NAMES)
def test_the_edge_map_is_a_quarter_of_an_image_of_any_size(name: str, size: tuple[int, int]) -> None:
    assert net(name)(torch.rand(2, 3, *size)).shape == (2, -(-size[0] // 4), -(-size[1] // 4))


@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride_changes_features_not_the_size_of_the_map(stride: int) -> None:
    assert net(stride=stride)(torch.rand(1, 3, 64, 64)).shape == (1, 16, 16)


def test_only_the_edge_branch_learns_also_after_train() -> None:
    network = net()
    network.train()
    network(torch.rand(2, 3, 64, 64)).mean().backward()
    learning = {name.split(".")[0] for name, weight in network.named_parameters() if weight.requires_grad}
    assert learning == {"branches", "edge"}
    assert all(weight.grad is not None for weight in network.parameters() if weight.requires_grad)
    assert not any(module.training for module in network.backbone.modules())


def test_batch_norm_of_the_backbone_keeps_its_statistics() -> None:
    network = net().train()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    network(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())


def test_edges_of_a_mirrored_image_are_mirrored() -> None:
    image = torch.rand(3, 64, 96)
    network = net()
    torch.testing.assert_close(edge_map(network, image.flip(-1)), edge_map(network, image).flip(-1))
    assert not torch.allclose(edge_map(network, image, flip=False), edge_map(network, image))


def test_affinity_loss_by_hand() -> None:
    affinity = torch.tensor([0.5, 0.25, 0.75, 0.9])
    background, foreground, negative = (
        torch.tensor(kind).bool() for kind in ([1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1])
    )
    found = losses.affinity_loss(affinity, background, foreground, negative)
    expected = {
        "loss_background": (np.log(2) + np.log(4)) / 2,
        "loss_foreground": np.log(4 / 3),
        "loss_negative": np.log(10),
    }
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, abs=2e-4)
    positive = (expected["loss_background"] + expected["loss_foreground"]) / 2
    assert found["loss"].item() == pytest.approx((positive + expected["loss_negative"]) / 2, abs=2e-4)


def test_affinity_loss_is_finite_at_the_ends_and_without_pairs() -> None:
    ends = torch.tensor([0.0, 1.0], requires_grad=True)
    none, both = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    for kinds in ((both, none, none), (none, none, both), (none, none, none)):
        loss = losses.affinity_loss(ends, *kinds)["loss"]
        loss.backward()
        assert torch.isfinite(loss)
    assert torch.isfinite(ends.grad).all()


@pytest.mark.slow
def test_training_finds_the_outlines_it_is_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "own"
    for number in range(8):
        image = np.full((64, 64, 3), 60, np.uint8)
        x, y = rng.integers(8, 28, 2)
        image[y : y + 24, x : x + 24] = 200
        mask = (image[..., 0] == 200).astype(np.uint8)
        write_picture(root / "images" / f"{number}.png", image)
        write_label(root / "masks" / f"{number}.png", mask)
    (root / "tags.csv").write_text("name,tags\n" + "".join(f"{number},box\n" for number in range(8)))
    how = Preprocessing(long_side=(64, 64), crop_size=64)
    data = FolderDataModule(str(root), batch_size=8, num_workers=0, preprocessing=how, labels=str(root / "masks"))
    torch.manual_seed(0)
    task = AffinityTask(1, backbone=SMALL, radius=4, optimizer=SGD(lr=0.1))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(accelerator="cpu", max_epochs=60, limit_val_batches=0, enable_checkpointing=False, **quiet)
    trainer.fit(task, datamodule=data)
    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    pixels = (pixels - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    edge = edge_map(task.net.eval(), pixels)
    inside = torch.from_numpy(mask).bool()
    dilated = torch.nn.functional.max_pool2d(inside[None, None].float(), 9, 1, 4)[0, 0] > 0
    eroded = torch.nn.functional.max_pool2d((~inside)[None, None].float(), 9, 1, 4)[0, 0] == 0
    border = (dilated & ~eroded)[::4, ::4]
    assert edge[border].mean() > 2 * edge[~border].mean()


def test_training_on_tags_alone_is_refused(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = words("fit", "configs/demo/affinity.yaml", sample, tmp_path, data__init_args__labels="null")
    assert main([*command, "--model.init_args.backbone", SMALL_NET["model.init_args.backbone"]]) == 2
    assert "--data.init_args.labels" in capsys.readouterr().err


def test_labels_made_anew_in_the_same_folder_are_another_run(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, run = Path(shutil.copytree(sample / "masks", tmp_path / "labels")), tmp_path / "run"
    over = {"trainer__max_epochs": "1", "trainer__limit_train_batches": "1", "data__init_args__labels": str(labels)}
    command = words("fit", "configs/demo/affinity.yaml", sample, run, **over)
    command += ["--model.init_args.backbone", SMALL_NET["model.init_args.backbone"]]
    write_run(labels, {"threshold": 0.3})
    assert main(command) == 0
    write_run(labels, {"threshold": 0.3}, finished=True)
    assert main(command) == 0
    write_run(labels, {"threshold": 0.4})
    assert main(command) == 2
    assert "labels_made_with" in capsys.readouterr().err


def test_edges_are_those_of_the_trained_network(edge_checkpoint: Path, sample: Path) -> None:
    image = read_image(sample / "images" / "scene_0000.jpg")
    edges = Edges(edge_checkpoint)
    found = edges(image)
    task = AffinityTask.load_from_checkpoint(edge_checkpoint, weights_only=True).eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))  # of ResNet-18
    normalised = (torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std
    torch.testing.assert_close(found, edge_map(task.net, normalised))
    assert found.shape == tuple(-(-side // 4) for side in image.shape[:2])
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("size", [(16, 24), (17, 18), (19, 3), (1, 2)])
def test_labels_are_taken_under_the_middle_of_each_position(size: tuple[int, int]) -> None:
    """Where the sides are whole cells, as Pillow's nearest neighbour takes them, which IRN calls."""
    label = torch.arange(size[0] * size[1]).view(1, *size) % 251
    found = at_edge_map(label)
    assert found.shape == (1, -(-size[0] // 4), -(-size[1] // 4))
    if size == (16, 24):
        image = Image.fromarray(label[0].numpy().astype(np.uint8)).resize((6, 4), Image.Resampling.NEAREST)
        assert torch.equal(found[0], torch.from_numpy(np.array(image)).long())


def test_a_checkpoint_of_a_cam_network_is_no_edge_network(tmp_path: Path) -> None:
    task = AffinityTask(2, backbone=SMALL)
    with pytest.raises(InputError, match="checkpoint of the cam network"):
        task.on_load_checkpoint({"tag2mask": {"task": "cam", "classes": ["a", "b"]}})
    task.on_load_checkpoint({"tag2mask": {"task": "affinity", "classes": ["x", "y", "z"]}})  # edges have no classes
