"""CAMs of single photographs from a checkpoint: the Python that README and notebooks show."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask.classes import IGNORE
from tag2mask.data.sample import CLASSES
from tag2mask.data.transforms import EvaluationTransform, Preprocessing
from tag2mask.errors import InputError, MissingError, SettingError
from tag2mask.inference.cams import CAMMaker, Edges, Features, PhotoCAMs, Refiner, cam_runs, iou, read
from tag2mask.io.cams import CAMs, read_cam, write_cam
from tag2mask.io.images import read_image
from tag2mask.io.labels import read_label
from tag2mask.models.attention import Attention
from tag2mask.models.cam import two_steps
from tag2mask.refine.dense_crf import CRF
from tag2mask.viz import plots

LAST = "checkpoints/last.ckpt"
PREPROCESSING = Preprocessing()  # ResNet-18 wants ImageNet's mean and standard deviation


@pytest.fixture(scope="module")
def maker(runs: Path) -> CAMMaker:
    return CAMMaker(runs / "full" / LAST)


@pytest.fixture(scope="module")
def photo(sample: Path) -> Path:
    """A scene whose sides are no multiples of tiles or strides."""
    return next(path for path in sorted((sample / "images").glob("*.jpg")) if min(Image.open(path).size) % 32)


@pytest.fixture
def cams() -> PhotoCAMs:
    """A photograph of 2 x 4 pixels with the classes b and c of a, b, c."""
    maps = np.array([[[0.9, 0.2, 0.0, 0.3]] * 2, [[0.1, 0.6, 0.3, 0.0]] * 2], np.float32)
    image = np.zeros((2, 4, 3), np.uint8)
    return PhotoCAMs(image, CAMs(torch.as_tensor(maps), torch.tensor([2, 3]), (2, 4)), {"a": 0.1, "b": 0.9, "c": 0.8})


# CAMs


def test_the_network_sees_what_it_was_trained_to_see(maker: CAMMaker, photo: Path) -> None:
    image = read_image(photo)
    label = torch.tensor([[1.0, 0, 0, 1, 0]])
    with torch.no_grad():
        expected, scores, _ = maker.task.cams(
            EvaluationTransform(PREPROCESSING)(image)[None], label, torch.tensor([image.shape[:2]]), maker.inference
        )
    made = maker(photo, tags=["stripes", "cross"])
    np.testing.assert_array_equal(made.cams.cam, expected.cam)
    assert list(made.maps) == ["cross", "stripes"]
    assert made.probabilities == dict(zip(CLASSES, scores.sigmoid().tolist(), strict=True))


def test_photographs_of_every_kind_are_read_alike(photo: Path) -> None:
    with Image.open(photo) as image:
        kinds = [photo, str(photo), image.copy(), np.asarray(image), image.convert("RGBA")]
    assert all((read(kind) == read_image(photo)).all() for kind in kinds)


def test_a_pil_image_is_turned_as_its_exif_says() -> None:
    image = Image.new("L", (4, 2))
    image.getexif()[0x0112] = 6
    assert read(image).shape == (4, 2, 3)


def test_tags_are_names_or_mask_values_or_predicted(maker: CAMMaker, photo: Path) -> None:
    assert list(maker(photo, ["ring", 1]).maps) == list(maker(photo, (3, "cross")).maps) == ["cross", "ring"]
    assert list(maker(photo, "ring").maps) == ["ring"]
    predicted = maker(photo)
    likely = {name for name, chance in predicted.probabilities.items() if chance > maker.inference.tag_threshold}
    assert set(predicted.maps) == likely | {
        max(predicted.probabilities, key=lambda name: predicted.probabilities[name])
    }


def test_a_photograph_without_any_class_is_background(maker: CAMMaker, photo: Path) -> None:
    made = maker(photo, tags=[])
    assert not made.maps
    assert not made.label().any()
    assert not Refiner()(made).label.any()


def test_labels_by_hand(cams: PhotoCAMs) -> None:
    assert cams.label(0.3).tolist() == [[2, 3, 0, 0]] * 2
    assert cams.label(0.25).tolist() == [[2, 3, 3, 2]] * 2
    assert list(cams.maps) == ["b", "c"]


def test_the_cam_can_be_written(cams: PhotoCAMs, tmp_path: Path) -> None:
    write_cam(tmp_path / "a.npz", cams.cams)
    assert read_cam(tmp_path / "a.npz").classes.tolist() == [2, 3]


# branches and attention


def test_branches_are_those_of_training(maker: CAMMaker) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with torch.no_grad():
        tiles, pixels = maker.task.tiles, EvaluationTransform(PREPROCESSING)(image)[None]
        assert tiles is not None
        steps = two_steps(maker.task.net, pixels, 2, tiles.attention, tiles.min_side, tiles.refined)
    branches = maker.branches(image)
    assert steps.entropy is not None
    assert branches.entropy == pytest.approx(steps.entropy.item())
    maps = np.stack(list(branches.scores.values()))
    for branch, expected in ((0, steps.full), (1, steps.tiled), (2, steps.target)):
        np.testing.assert_allclose(maps[:, branch], expected[0], atol=1e-5)


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.3, 0.8), (1.0, 0.2), (1.0, 1.0)])
def test_attention_is_what_refines_the_tiles(runs: Path, photo: Path, x: float, y: float) -> None:
    maker = CAMMaker(runs / "full" / LAST)
    maker.task.tiles = replace(maker.task.tiles, attention=Attention("exp_cosine", 0.5, layer="layer3"), refined="all")
    branches = maker.branches(photo)
    weights = branches.attention(x, y)
    rows, columns = weights.shape
    row, column = min(int(y * rows), rows - 1), min(int(x * columns), columns - 1)
    assert weights.shape == branches.scores["ring"].shape[1:]
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    own = np.zeros_like(weights, bool)
    own[row // (rows // 2) * (rows // 2) :, column // (columns // 2) * (columns // 2) :][
        : rows // 2, : columns // 2
    ] = True
    assert not weights[~own].any()
    refined = (weights * branches.scores["ring"][1]).sum()
    assert refined == pytest.approx(branches.scores["ring"][2, row, column], abs=1e-5)


def test_attention_within_the_image_on_a_lower_layer(runs: Path, photo: Path) -> None:
    maker = CAMMaker(runs / "full" / LAST)
    attention = Attention("exp_cosine", 0.5, layer="layer3", region="image")
    maker.task.tiles = replace(maker.task.tiles, attention=attention, refined="all")
    branches = maker.branches(photo)
    weights, middle = branches.attention(0.5, 0.5), tuple(side // 2 for side in branches.guide.shape[-2:])
    assert (weights > 0).all()  # all tiles
    refined = (weights * branches.scores["ring"][1]).sum()
    assert refined == pytest.approx(branches.scores["ring"][2][middle], abs=1e-5)


def test_maps_of_a_class_by_hand(maker: CAMMaker, photo: Path) -> None:
    branches = maker.branches(photo)
    branches = replace(branches, scores={"ring": np.array([[[0.0, 0.0]], [[2.0, -1.0]], [[0.5, 4.0]]])})
    assert branches.maps("ring")["tiles"] == pytest.approx(np.array([[1.0, 0.0]]), abs=1e-4)


@pytest.mark.parametrize("tiles", [None, "no attention"])
def test_a_network_without_tiles_or_attention_is_looked_at_as_if_it_had_them(
    runs: Path, photo: Path, tiles: str | None
) -> None:
    maker = CAMMaker(runs / "full" / LAST)
    maker.task.tiles = replace(maker.task.tiles, attention=Attention())
    expected = maker.branches(photo)
    maker.task.tiles = None if tiles is None else replace(maker.task.tiles, attention=None)
    maker.task.inference = replace(maker.task.inference, attention=None)
    assert maker.branches(photo).scores["dots"] == pytest.approx(expected.scores["dots"])


def test_the_attention_of_the_cams_is_looked_at_where_training_had_none(runs: Path, photo: Path) -> None:
    maker = CAMMaker(runs / "full" / LAST)
    maker.task.tiles = None
    maker.task.inference = replace(maker.task.inference, attention=Attention(layer="layer3"))
    assert maker.branches(photo).settings == Attention(layer="layer3", region="image")


def test_a_vision_transformer_makes_cams_spread_by_its_own_attention(vit_checkpoint: Path, photo: Path) -> None:
    maker = CAMMaker(vit_checkpoint)
    plain = CAMMaker(vit_checkpoint, inference=replace(maker.inference, attention=None))
    cams, unspread = (each(photo, tags=[1, 4]).cams.cam for each in (maker, plain))
    assert cams.shape == unspread.shape
    assert torch.isfinite(cams).all()
    assert not torch.allclose(cams, unspread, atol=1e-2)


def test_the_attention_of_a_vision_transformer_stays_within_its_tile(vit_checkpoint: Path, photo: Path) -> None:
    branches = CAMMaker(vit_checkpoint).branches(photo)
    assert branches.settings == Attention("network")
    weights = branches.attention(0.9, 0.1)  # of a point at the upper right
    rows, columns = (side // 2 for side in weights.shape)
    assert weights[:rows, columns:].sum() == pytest.approx(1, abs=1e-5)
    assert (weights[:rows, columns:] > 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-5)


def test_a_walk_is_guided_by_a_block_of_a_vision_transformer(vit_checkpoint: Path) -> None:
    image = np.zeros((70, 100, 3), np.uint8)
    image[40:, 80:] = 255
    features = Features(vit_checkpoint, ["blocks.0"])(image)
    assert features.shape == (64, 4, 6)  # 64 x 96 pixels
    background = features.flatten(1).median(1).values[:, None, None]
    assert divmod(int((features - background).norm(dim=0).argmax()), 6)[0] >= 2
    assert divmod(int((features - background).norm(dim=0).argmax()), 6)[1] >= 4
    with pytest.raises(InputError, match="the part 'patch_embed' of the backbone puts out no map"):
        Features(vit_checkpoint, ["patch_embed"])(image)


# masks


def test_without_walk_and_crf_the_mask_is_the_seed(maker: CAMMaker, photo: Path) -> None:
    made = maker(photo, [1, 2])
    refined = Refiner(threshold=0.4, crf=None)(made)
    assert list(refined.steps) == ["seed"]
    np.testing.assert_array_equal(refined.label, made.label(0.4))


def test_a_mask_is_refined_shown_and_saved(maker: CAMMaker, photo: Path, runs: Path, tmp_path: Path) -> None:
    made = maker(photo, [1, 2])
    edges = Edges(runs / "affinity" / LAST)  # or the checkpoint, as README has it
    refined = Refiner(edges, threshold=0.5, walk_steps=4, crf=CRF(steps=1))(made)
    assert list(refined.steps) == ["seed", "walk", "crf"]
    assert any((refined.maps[tag] != made.maps[tag]).any() for tag in made.maps)
    np.testing.assert_array_equal(np.asarray(refined.overlay()), plots.overlay(made.image, refined.steps["crf"]))
    refined.save(str(tmp_path / "mask.png"))
    np.testing.assert_array_equal(read_label(tmp_path / "mask.png"), refined.label)


def test_iou_by_hand() -> None:
    truth = np.array([[0, 1, 1, IGNORE, 2]], np.uint8)
    scores = iou(np.array([[0, 1, 0, 3, 2]], np.uint8), truth, ("a", "b", "c"))
    assert scores == pytest.approx({"background": 1 / 2, "a": 1 / 2, "b": 1, "mean": 2 / 3})


# what can go wrong


def test_runs_of_cam_networks_are_found_among_others(runs: Path, tmp_path: Path) -> None:
    assert cam_runs(str(runs)) == {name: runs / name / LAST for name in ("full", "plain")}
    with pytest.raises(MissingError, match=re.escape(str(tmp_path))):
        cam_runs(tmp_path)


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda maker, photo: maker(photo, ["rign"]), "'rign'.*cross, dots"),
        (lambda maker, photo: maker(photo, [0]), "tag 0.*cross, dots"),
        (lambda maker, photo: maker(photo, [6]), "tag 6.*cross, dots"),
        (lambda maker, photo: maker(np.zeros((4, 4), np.uint8)), r"\(4, 4\) of uint8"),
        (lambda maker, photo: maker(np.zeros((4, 4, 3))), "of float64"),
        (lambda maker, photo: maker.branches(photo).attention(1.1, 0), "1.1"),
    ],
)
def test_an_unfit_argument_is_named(
    call: Callable[[CAMMaker, Path], object], facts: str, maker: CAMMaker, photo: Path
) -> None:
    with pytest.raises(SettingError, match=facts):
        call(maker, photo)


def test_a_missing_photograph_is_named(maker: CAMMaker, photo: Path) -> None:
    with pytest.raises(InputError, match="none.jpg"):
        maker(photo.with_name("none.jpg"))


def test_checkpoints_of_another_network_are_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="affinity network.*cam_"):
        CAMMaker(runs / "affinity" / LAST)
    with pytest.raises(InputError, match="cam network.*affinity_"):
        Refiner(runs / "full" / LAST)
    with pytest.raises(InputError, match="none.ckpt"):
        CAMMaker(tmp_path / "none.ckpt")


# README


def test_the_readme_example_runs(runs: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = Path("README.md").read_text().split("## From Python")[1]
    example = re.findall(r"```python\n(.*?)```", section, re.S)[0]
    assert len([line for line in example.splitlines() if line]) <= 6
    for place, there in (("runs/demo", runs), ("data/sample", sample)):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).symlink_to(there)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    size = Image.open(sample / "images" / "scene_0000.jpg").size
    assert Image.open("overlay.png").size == Image.open("mask.png").size == size
