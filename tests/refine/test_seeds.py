import pytest
import torch
from torch import Tensor

from tag2mask.classes import IGNORE
from tag2mask.errors import SettingError
from tag2mask.refine.dense_crf import dense_crf, unary_from_labels
from tag2mask.refine.recipes import Refine, Seed, confident, seed
from tests.arrays import reference

VALUES = torch.tensor([4, 15])
THRESHOLDS = {"": (0.40, 0.10), "_irn": (0.30, 0.05)}
"""Puzzle-CAM's and IRN's, by the ending of the arrays' names."""


def row(*values: float) -> Tensor:
    """A CAM of one class and one row, (1, 1, w)."""
    return torch.tensor(values)[None, None]


def swapped(label: Tensor, labels: int) -> Tensor:
    """A refinement that takes each label for the one after it."""
    return torch.nn.functional.one_hot((label + 1) % labels, labels).permute(2, 0, 1).float()


def test_a_threshold_is_the_score_of_the_background() -> None:
    cam = torch.rand(2, 3, 4)
    scores = Seed(0.25).scores(cam)
    assert torch.equal(scores[1:], cam)
    assert torch.equal(scores[0], torch.full((3, 4), 0.25))


def test_the_background_by_hand_with_alpha() -> None:
    cam = torch.tensor([[[0.5, 0.0, 1.0]], [[0.25, 0.0, 0.0]]])
    scores = Seed(None, 3).scores(cam)
    assert torch.equal(scores[1:], cam)
    torch.testing.assert_close(scores[0], torch.tensor([[0.125, 1.0, 0.0]]))


@pytest.mark.parametrize("settings", [Seed(0.3), Seed(None, 2.0)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype: torch.dtype, settings: Seed) -> None:
    cam = torch.rand(2, 3, 4).to(dtype)
    scores = settings.scores(cam)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, settings.scores(cam.float()))


@pytest.mark.parametrize("values", [(None, None), (0.3, 2.0)])
def test_a_seed_wants_one_of_threshold_and_alpha(values: tuple[float | None, float | None]) -> None:
    with pytest.raises(SettingError, match="give one of them"):
        Seed(*values)


def test_a_threshold_or_alpha_of_zero_counts() -> None:
    assert not Seed(0).scores(row(0.5))[0].any()
    assert (Seed(None, 0).scores(row(0.5))[0] == 1).all()


def test_the_highest_score_names_the_value_and_the_first_of_equals_wins() -> None:
    scores = torch.tensor([[[0.3, 0.3, 0.3, 0.3, 0.1]], [[0.4, 0.3, 0.1, 0.4, 0.1]], [[0.1, 0.1, 0.9, 0.4, 0.1]]])
    label = seed(scores, VALUES)
    assert label.dtype == torch.uint8
    assert label.tolist() == [[4, 0, 15, 4, 0]]


@pytest.mark.parametrize("classes", [torch.tensor([254]), torch.tensor([254], dtype=torch.int16)])
def test_the_highest_mask_value_fits(classes: Tensor) -> None:
    assert seed(Seed(0.5).scores(row(0.9, 0.1)), classes).tolist() == [[254, 0]]


@pytest.mark.parametrize("cam", [torch.rand(1, 2, 2), torch.rand(3, 2, 2)])
def test_scores_of_another_number_of_classes_are_refused(cam: Tensor) -> None:
    with pytest.raises(ValueError, match=f"{len(cam) + 1} scores with the background for 2 classes"):
        seed(Seed(0.3).scores(cam), VALUES)
    with pytest.raises(ValueError, match="for 2 classes"):
        confident(cam, VALUES)


def test_confident_labels_by_hand() -> None:
    cam = row(0.0, 0.05, 0.06, 0.30, 0.31, 1.0)
    expected = [[0, 0, IGNORE, IGNORE, 7, 7]]
    label = confident(cam, torch.tensor([7]))
    assert label.dtype == torch.uint8
    assert label.tolist() == expected


def test_both_maps_are_refined() -> None:
    # refined, the sure map is [class, background, background] and the possible one [class, class, background]
    cam = row(0.2, 0.5, 0.7)
    assert confident(cam, torch.tensor([7]), 0.6, 0.4).tolist() == [[0, IGNORE, 7]]
    assert confident(cam, torch.tensor([7]), 0.6, 0.4, swapped).tolist() == [[7, 7, 0]]
    assert confident(cam, torch.tensor([7]), 0.4, 0.6, swapped).tolist() == [[7, IGNORE, 0]]


def test_a_refinement_sees_labels_in_order_and_their_number() -> None:
    seen = []

    def refine(label: Tensor, labels: int) -> Tensor:
        seen.append((label, labels))
        return torch.nn.functional.one_hot(label, labels).permute(2, 0, 1).float()

    cam = reference("affinity_labels")["hr_cam"]
    confident(cam, VALUES, 0.4, 0.1, refine)
    assert [labels for _, labels in seen] == [3, 3]
    for (label, _), threshold in zip(seen, (0.4, 0.1), strict=True):
        expected = torch.where(cam.max(0).values > threshold, cam.argmax(0) + 1, 0)
        assert torch.equal(label, expected)


@pytest.mark.parametrize("ending", THRESHOLDS)
def test_confident_labels_from_both_refined_maps_are_irns(ending: str) -> None:
    arrays = reference("affinity_labels")
    refined = iter([arrays["fg_conf" + ending], arrays["bg_conf" + ending]])

    def refine(label: Tensor, labels: int) -> Tensor:
        return (next(refined) == arrays["keys"][:, None, None]).float()

    label = confident(arrays["hr_cam"], VALUES, *THRESHOLDS[ending], refine)
    assert torch.equal(label, arrays["conf" + ending])


@pytest.mark.parametrize("ending", THRESHOLDS)
def test_confident_labels_with_a_crf_are_irns(ending: str) -> None:
    pytest.importorskip("pydensecrf")
    arrays, image = reference("affinity_labels"), reference("dense_crf")["img"]

    def refine(label: Tensor, labels: int) -> Tensor:
        return dense_crf(image, unary_from_labels(label, labels, 0.7), steps=10, backend="pydensecrf")

    label = confident(arrays["hr_cam"], VALUES, *THRESHOLDS[ending], refine)
    assert (label == arrays["conf" + ending]).float().mean() > 0.999


def never(label: Tensor, labels: int) -> Tensor:
    pytest.fail("there is nothing to choose between")


@pytest.mark.parametrize("refine", [None, never])
def test_a_photograph_of_no_class_is_background(refine: Refine | None) -> None:
    cam, none = torch.zeros(0, 3, 4), torch.zeros(0, dtype=torch.int16)
    for settings in (Seed(0.0), Seed(None, 2.0)):
        scores = settings.scores(cam)
        assert scores.shape == (1, 3, 4)
        assert torch.equal(seed(scores, none), torch.zeros(3, 4, dtype=torch.uint8))
    assert torch.equal(confident(cam, none, refine=refine), torch.zeros(3, 4, dtype=torch.uint8))
