"""Recipes: what each step makes of the CAMs of one photograph."""

import numpy as np
import pytest
import torch

from tag2mask.errors import SettingError
from tag2mask.io.cams import CAMs
from tag2mask.refine.dense_crf import CRF
from tag2mask.refine.random_walk import feature_transition, random_walk
from tag2mask.refine.recipes import ConfidentSeeds, EdgeWalk, FeatureWalk, Guide, PseudoLabels, Recipe, Seed, Walk


def cam_of(maps: np.ndarray, classes: tuple[int, ...], size: tuple[int, int]) -> CAMs:
    return CAMs(torch.from_numpy(maps).half(), torch.tensor(classes, dtype=torch.long), size)


@pytest.fixture
def half() -> tuple[CAMs, np.ndarray]:
    """A photograph whose left half is red; a CAM of class 7 lights the left third only."""
    image = np.full((40, 60, 3), (20, 30, 60), np.uint8)
    image[:, :30] = (220, 40, 40)
    cam = np.zeros((1, 10, 15))
    cam[0, :, :5] = 1
    return cam_of(cam, (7,), (40, 60)), image


def edges_in_the_middle(image: np.ndarray) -> torch.Tensor:
    edge = torch.zeros(10, 15)
    edge[:, 7] = 1
    return edge


def test_seeds_that_are_label_maps_have_no_soft_scores() -> None:
    with pytest.raises(SettingError, match="certainty is null"):
        ConfidentSeeds(crf=CRF(certainty=None))


def test_a_seed_alone_is_the_threshold(half: tuple[CAMs, np.ndarray]) -> None:
    recipe = PseudoLabels(Seed(0.5), crf=None)
    result = recipe(half[0], None, None, "cpu")
    assert list(result.steps) == list(recipe.step_names) == ["seed"]
    assert not recipe.needs_photo
    assert result.steps["seed"].dtype == np.uint8
    assert (result.steps["seed"][:, :18] == 7).all()
    assert (result.steps["seed"][:, 22:] == 0).all()


def features_of_two_halves(image: np.ndarray) -> torch.Tensor:
    features = torch.zeros(3, 10, 15)
    features[:2, :, 7:] = torch.tensor([5.0, -80.0])[:, None, None]
    return features


@pytest.mark.parametrize(
    ("walk", "guide"),
    [(EdgeWalk("unused.ckpt"), edges_in_the_middle), (FeatureWalk("layer", beta=20), features_of_two_halves)],
    ids=["edges", "features"],
)
def test_the_walk_fills_the_object_up_to_its_edge(half: tuple[CAMs, np.ndarray], walk: Walk, guide: Guide) -> None:
    recipe = PseudoLabels(Seed(0.3), walk, crf=None)
    result = recipe(*half, guide, "cpu")
    assert list(result.steps) == ["seed", "walk"]
    assert (result.steps["walk"][:, :26] == 7).all()
    assert (result.steps["walk"][:, 34:] == 0).all()
    assert result.soft.cam.shape == (1, 10, 15)
    assert result.soft.cam.max() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("backend", ["pydensecrf", "torch"])
@pytest.mark.parametrize("certainty", [0.7, None])
def test_the_crf_draws_the_label_to_the_outline(
    half: tuple[CAMs, np.ndarray], backend: str, certainty: float | None
) -> None:
    recipe = PseudoLabels(Seed(0.5), crf=CRF(10, certainty, backend=backend))  # type: ignore[arg-type]
    unsure = half[0]._replace(cam=half[0].cam * 0.5 + 0.3)  # 0.8 and 0.3
    result = recipe(unsure, half[1], None, "cpu")
    truth = np.where(np.arange(60) < 30, 7, 0)
    assert list(result.steps) == ["seed", "crf"]
    assert (result.steps["crf"] == truth).mean() > 0.97 > (result.steps["seed"] == truth).mean()


def test_confident_seeds_leave_the_middle_open() -> None:
    ramp = np.linspace(0, 1, 16)[None, None].repeat(4, 1)
    label = ConfidentSeeds(0.7, 0.2, crf=None)(cam_of(ramp, (3,), (4, 16)), None, None, "cpu").steps["seed"]
    assert label[0, 0] == 0
    assert label[0, 8] == 255
    assert label[0, 15] == 3


@pytest.mark.parametrize(
    "recipe",
    [PseudoLabels(Seed(0.3), EdgeWalk("unused.ckpt")), PseudoLabels(walk=FeatureWalk("layer")), ConfidentSeeds()],
    ids=["edges", "features", "seeds"],
)
def test_a_photograph_of_no_class_is_all_background(recipe: Recipe, half: tuple[CAMs, np.ndarray]) -> None:
    nothing = cam_of(np.zeros((0, 10, 15)), (), (40, 60))
    result = recipe(nothing, half[1], edges_in_the_middle, "cpu")
    assert all((label == 0).all() and label.shape == (40, 60) for label in result.steps.values())


def test_where_nothing_has_a_score_the_crf_starts_from_no_opinion(
    half: tuple[CAMs, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threshold 0 and an empty CAM: 0 / 0 otherwise."""
    cam, image = half
    seen = []
    monkeypatch.setattr(CRF, "_marginals", lambda self, image, unary: (seen.append(unary), unary.softmax(0))[1])
    PseudoLabels(Seed(threshold=0), crf=CRF(certainty=None))(
        cam._replace(cam=torch.zeros_like(cam.cam)), image, None, "cpu"
    )
    assert torch.isfinite(seen[0]).all()
    assert seen[0].unique().numel() == 1


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_the_length_of_a_feature_vector_does_not_matter(factor: float) -> None:
    rng = torch.Generator().manual_seed(0)
    maps, features = torch.rand(2, 6, 7, generator=rng), torch.randn(4, 6, 7, generator=rng)
    walk = FeatureWalk("layer", beta=2, steps=4)
    each = factor * torch.rand(6, 7, generator=rng).add(0.1)
    torch.testing.assert_close(walk.spread(maps, each * features), walk.spread(maps, features))
    assert not torch.allclose(walk.spread(maps, features[:1]), walk.spread(maps, features), atol=0.01)


def test_features_that_are_equal_everywhere_join_all_neighbours() -> None:
    maps = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(0))
    walked = random_walk(maps, feature_transition(torch.zeros(1, 6, 7)), 4)
    torch.testing.assert_close(FeatureWalk("layer", steps=4).spread(maps, torch.ones(3, 6, 7)), walked / walked.max())


def test_a_large_photograph_is_worked_on_small_and_its_label_large(half: tuple[CAMs, np.ndarray]) -> None:
    seen = []

    def edges(image: np.ndarray) -> torch.Tensor:
        seen.append(image.shape)
        return torch.zeros(5, 8)

    result = PseudoLabels(Seed(0.3), EdgeWalk("unused.ckpt"), CRF(2), max_side=30)(*half, edges, "cpu")
    assert seen == [(20, 30, 3)]
    assert {label.shape for label in result.steps.values()} == {(40, 60)}
    small = ConfidentSeeds(max_side=30)(*half, None, "cpu").steps["seed"]
    assert small.shape == (40, 60)


def test_confident_thresholds_out_of_order_are_refused() -> None:
    with pytest.raises(SettingError, match="expected 0 <= background <= foreground"):
        ConfidentSeeds(0.1, 0.3)
