import itertools

import numpy as np
import pytest
import torch

from tag2mask.data.transforms import EvaluationTransform, Preprocessing, TrainingTransform
from tests.folders import TINY

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def test_the_same_seed_gives_the_same_crop() -> None:
    one, other = TrainingTransform(TINY), TrainingTransform(TINY)
    one(1, image=NOISE)
    assert torch.equal(one(5, image=NOISE)["image"], other(5, image=NOISE)["image"])


def test_another_seed_gives_another_crop() -> None:
    transform = TrainingTransform(TINY)
    crops = [transform(seed, image=NOISE)["image"] for seed in range(6)]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(crops, 2))


@pytest.mark.parametrize("size", [(60, 80), (5, 300), (1, 40), (40, 1), (1, 1), (2000, 1)])
def test_an_image_of_any_size_gives_a_crop_of_one_size(size: tuple[int, int]) -> None:
    crop = TrainingTransform(TINY)(0, image=np.full((*size, 3), 200, np.uint8))["image"]
    assert crop.shape == (3, 32, 32)
    assert crop.dtype == torch.float32
    assert torch.isfinite(crop).all()


def content(crop: torch.Tensor) -> tuple[int, int]:
    """Height and width of what is not padding."""
    rows, columns = (crop != 0).any(0).any(1), (crop != 0).any(0).any(0)
    return int(rows.sum()), int(columns.sum())


def test_the_longer_side_is_drawn_from_its_range_and_the_shape_kept() -> None:
    transform = TrainingTransform(Preprocessing(long_side=(40, 60), crop_size=64))
    found = [content(transform(seed, image=np.full((50, 100, 3), 255, np.uint8))["image"]) for seed in range(200)]
    widths = {width for _, width in found}
    assert min(widths) == 40
    assert max(widths) == 60
    assert all(abs(height - width / 2) <= 0.5 for height, width in found)


def test_padding_is_zero_after_normalisation() -> None:
    transform = TrainingTransform(Preprocessing(long_side=(20, 20), crop_size=32))
    crop = transform(0, image=np.full((50, 50, 3), 255, np.uint8))["image"]
    white = torch.tensor([(1 - mean) / std for mean, std in zip(*TINY.normalization, strict=True)])
    inside = (crop != 0).all(0)
    assert inside.sum() == 20 * 20
    torch.testing.assert_close(crop[:, inside], white[:, None].expand(3, 400), rtol=1e-4, atol=1e-4)
    assert crop[:, ~inside].abs().sum() == 0


def test_padding_stands_on_all_sides_in_turn() -> None:
    transform = TrainingTransform(Preprocessing(long_side=(20, 20), crop_size=32))
    crops = [transform(seed, image=np.full((50, 50, 3), 255, np.uint8))["image"] for seed in range(20)]
    corners = {tuple(crop[0][rows, columns].item() == 0 for rows in (0, -1) for columns in (0, -1)) for crop in crops}
    tops = {int((crop != 0).any(0).any(1).nonzero()[0]) for crop in crops}
    assert len(tops) > 4
    assert (True, True, True, True) in corners


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_is_the_share_of_mirrored_images(flip: float) -> None:
    image = NOISE[:32, :32]
    crop = TrainingTransform(Preprocessing((32, 32), 32, flip, **PLAIN))(3, image=image)["image"]
    expected = image[:, ::-1] if flip else image
    np.testing.assert_allclose(crop.permute(1, 2, 0).numpy() * 255, expected, atol=1e-3)


def test_evaluation_normalises_and_keeps_the_size() -> None:
    image = EvaluationTransform(Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)))(NOISE)
    expected = (NOISE / 255 - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.3]
    np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((60, 80), 40, (30, 40)),
        ((80, 60), 40, (40, 30)),
        ((60, 80), 80, (60, 80)),
        ((60, 80), 100, (60, 80)),
        ((1, 400), 40, (1, 40)),
    ],
)
def test_max_side_shrinks_larger_photographs_only(
    size: tuple[int, int], max_side: int, expected: tuple[int, int]
) -> None:
    image = EvaluationTransform(Preprocessing(max_side=max_side))(np.zeros((*size, 3), np.uint8))
    assert image.shape == (3, *expected)


def test_a_shrunk_photograph_keeps_its_mean_colour() -> None:
    image = EvaluationTransform(Preprocessing(max_side=20, **PLAIN))(NOISE)
    np.testing.assert_allclose(image.mean((1, 2)).numpy() * 255, NOISE.mean((0, 1)), atol=1)


def test_a_photograph_comes_back_from_its_normalised_form() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    how = Preprocessing()
    mean, std = how.normalization
    normalised = (pixels / 255 - mean) / std
    back = how.undo(torch.from_numpy(normalised).permute(2, 0, 1).float())
    assert np.array_equal(back, pixels)


def test_training_shrinks_as_evaluation_does() -> None:
    """Noise that is shrunk tenfold is averaged away; without antialiasing nine times as much of it would stay."""
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 1), dtype=np.uint8).repeat(3, 2)
    plain = Preprocessing(long_side=(150, 150), crop_size=150, max_side=150, **PLAIN)
    trained, evaluated = TrainingTransform(plain)(0, image=noise)["image"], EvaluationTransform(plain)(noise)
    assert trained.std().item() == pytest.approx(evaluated.std().item(), rel=0.01)
    assert trained.std() < 0.04
