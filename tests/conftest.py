"""Tiny data sets that the tests run on, drawn here: nothing is downloaded."""

import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer  # sets up loggers, before they are changed below

from tag2mask.classes import VOC
from tag2mask.cli.main import main
from tag2mask.data.coco import SPLITS, Row, Split, table_text
from tag2mask.data.folder import folder_photos
from tag2mask.data.sample import CLASSES, write_sample
from tag2mask.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from tag2mask.inference.photographs import Segmenter
from tag2mask.io.cams import CAMs, write_cam
from tag2mask.io.files import atomic
from tag2mask.io.images import read_image
from tag2mask.io.labels import read_label, write_label
from tag2mask.io.records import write_run
from tag2mask.models.attention import Attention
from tag2mask.models.backbones import Backbone
from tag2mask.tasks.cam import CAMTask
from tag2mask.tasks.settings import CAMInference
from tests.commands import SMALL_NET, words
from tests.folders import annotation, photograph, tags_file

os.environ["WANDB_MODE"] = "offline"
os.environ["OMP_NUM_THREADS"] = (
    "1"  # of processes that tests start; weights are compared bit by bit with those made here
)
torch.set_num_threads(1)  # tensors are tiny
for name in ("lightning.pytorch", "lightning.fabric"):  # their handlers hold on to a stream that pytest has replaced
    logging.getLogger(name).handlers.clear()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample set cut to 12 scenes: 8 in train.txt, 4 in val.txt."""
    root = tmp_path_factory.mktemp("sample")
    write_sample(root, count=12, validation=4)
    return root


@pytest.fixture(scope="session")
def voc(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scenes in the layout of VOC's devkit, their classes called by VOC's first names."""
    root = tmp_path_factory.mktemp("voc") / "VOC2012"
    for split, source in (("train", "train"), ("val", "val"), ("trainaug", "train"), ("test", "val")):
        names = (sample / f"{source}.txt").read_text()
        with atomic(root / "ImageSets" / "Segmentation" / f"{split}.txt") as file:
            file.write(names.encode())
    for photo in folder_photos(sample, "all"):
        (root / "JPEGImages").mkdir(exist_ok=True)
        shutil.copy(photo.image, root / "JPEGImages" / f"{photo.name}.jpg")
        objects = "".join(f"<object><name>{VOC[tag]}</name></object>" for tag in photo.tags or ())
        with atomic(root / "Annotations" / f"{photo.name}.xml") as file:
            file.write(f"<annotation>{objects}</annotation>".encode())
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            (root / folder).mkdir(exist_ok=True)
            shutil.copy(str(photo.mask), root / folder / f"{photo.name}.png")
    return root


@pytest.fixture(scope="session")
def coco(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scenes as `tag2mask prepare coco` leaves its data, their classes called by COCO's first names."""
    root = tmp_path_factory.mktemp("coco")
    for name in SPLITS:
        split, photos = Split(name, root, root), folder_photos(sample, name)
        for folder in (split.photos, split.masks):
            folder.mkdir(parents=True)
        for photo in photos:
            assert photo.mask is not None
            shutil.copy(photo.image, split.photos / f"{photo.name}.jpg")
            shutil.copy(photo.mask, split.masks)
        split.table.write_text(table_text({photo.name: Row(photo.tags or (), 1, 1, "") for photo in photos}))
        split.names.write_text("".join(f"{photo.name}\n" for photo in photos))
    return root


@pytest.fixture(scope="session")
def cams(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CAM files of the sample set: the masks of the objects, blurred, at a quarter of their size."""
    folder = tmp_path_factory.mktemp("cams")
    for path in sorted((sample / "masks").glob("*.png")):
        mask = torch.from_numpy(read_label(path).astype(np.int64))
        values = mask.unique()[1:]
        size = [-(-side // 4) for side in mask.shape]
        maps = F.adaptive_avg_pool2d((mask == values[:, None, None]).float(), size)
        maps = F.avg_pool2d(maps, 9, stride=1, padding=4)
        maps = maps / maps.amax((1, 2), keepdim=True)
        write_cam(folder / f"{path.stem}.npz", CAMs(maps, values, mask.shape))
    write_run(folder, {"classes": list(CLASSES)})
    return folder


@pytest.fixture(scope="session")
def edge_checkpoint(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an edge network trained for two steps on the masks."""
    run = tmp_path_factory.mktemp("affinity")
    over = {"trainer__max_epochs": "1", "trainer__limit_train_batches": "2"}
    over |= {"data__init_args__labels": str(sample / "masks")}
    command = words("fit", "configs/demo/affinity.yaml", sample, run, **over)
    assert main([*command, "--model.init_args.backbone", SMALL_NET["model.init_args.backbone"]]) == 0
    return run / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="session")
def runs(sample: Path, edge_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs as the demo leaves it: CAM networks ``full`` and ``plain``, and ``affinity``, of two steps each.

    ``plain`` is a copy of ``full``: it is trained no faster.
    """
    folder = tmp_path_factory.mktemp("runs")
    over = {"trainer__max_steps": "2", "trainer__limit_val_batches": "0"}
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    assert main([*words("fit", "configs/demo/cam_tuned.yaml", sample, folder / "full", **over), *small]) == 0
    shutil.copytree(folder / "full", folder / "plain")
    shutil.copytree(edge_checkpoint.parents[1], folder / "affinity")
    return folder


@pytest.fixture(scope="session")
def segmentation_checkpoint(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a segmentation network that finds something everywhere: two steps, then a random classifier.

    Two steps alone leave it seeing background. The data that it was trained on is gone.
    """
    folder = tmp_path_factory.mktemp("segmentation")
    root = Path(shutil.copytree(sample, folder / "data"))
    over = {"trainer__max_epochs": "1", "trainer__limit_train_batches": "2", "trainer__limit_val_batches": "0"}
    over |= {"data__init_args__labels": str(root / "masks")}
    small = [word for key, value in SMALL_NET.items() for word in (f"--{key}", value)]
    assert main([*words("fit", "configs/demo/segmentation.yaml", root, folder / "run", **over), *small]) == 0
    shutil.rmtree(root)
    path = folder / "run" / "checkpoints" / "last.ckpt"
    segmenter = Segmenter(path)
    head = segmenter.net.get_submodule("model.segmentation_head.0")
    image = segmenter.transform(read_image(sample / "images" / "scene_0000.jpg"))[None]
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(0))
        head.bias -= segmenter.net(image).mean((0, 2, 3))  # no class wins everywhere
    content = torch.load(path, weights_only=True)
    content["state_dict"] |= {f"net.{name}": value for name, value in segmenter.net.state_dict().items()}
    torch.save(content, path)
    return path


@pytest.fixture(scope="session")
def vit_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a CAM network with random weights on a vision transformer, whose own attention spreads CAMs."""
    how = CAMInference((1.0,), attention=Attention("network"))
    return cam_checkpoint(tmp_path_factory.mktemp("vit"), "test_vit", how)


@pytest.fixture(scope="session")
def lite0_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a CAM network with random weights on EfficientNet-Lite0."""
    return cam_checkpoint(tmp_path_factory.mktemp("lite0"), "tf_efficientnet_lite0", CAMInference((1.0,)))


def cam_checkpoint(folder: Path, backbone: str, how: CAMInference) -> Path:
    """Write a checkpoint of a CAM network with random weights, for the classes of the sample set."""
    torch.manual_seed(0)
    task = CAMTask(len(CLASSES), CLASSES, backbone=Backbone(backbone, weights=None), tiles=None, inference=how)
    task.preprocessing = asdict(Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD))
    path = folder / "last.ckpt"
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=path.parent)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Two photographs in the devkit's layout, listed in train.txt, trainaug.txt, val.txt and test.txt."""
    root = tmp_path / "VOC2012"
    for name, tags in (("a", ("dog",)), ("b", ("person", "cat", "person"))):
        photograph(root / "JPEGImages" / f"{name}.jpg")
        annotation(root / "Annotations" / f"{name}.xml", *tags)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "trainaug", "val", "test", "mine"):
        (lists / f"{split}.txt").write_text("a\nb\n")
    return root


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Three photographs, one of them with a space in its name and one untagged, and a mask of the first."""
    root = tmp_path / "own"
    for name in ("a.jpg", "my cat.png", "plain.jpeg"):
        photograph(root / "images" / name)
    (root / "images" / "notes.txt").write_text("not a photograph")
    write_label(root / "masks" / "a.png", np.zeros((40, 50)))
    tags_file(root, "name,tags\na,dog\nmy cat,cat dog\n")
    return root


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of real photographs that TAG2MASK_DATA names; tests that want them are skipped without it."""
    folder = os.environ.get("TAG2MASK_DATA")
    if not folder:
        pytest.skip("TAG2MASK_DATA is unset: no real photographs to test on")
    return Path(folder)
