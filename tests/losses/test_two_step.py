"""The losses of both branches: Eq. 8, 15 and 16."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.ablation.readings import equivariance_over_positives
from tag2mask import losses
from tests.arrays import reference


def test_the_mean_of_two_ranks_is_the_loss_of_the_joint_batch() -> None:
    torch.manual_seed(0)
    full, tiled, scores = torch.randn(4, 3, 6, 6), torch.randn(4, 3, 6, 6), torch.randn(4, 3)
    label = torch.tensor([[1.0, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]])  # the ranks have unequal numbers of tags
    halves = list(zip(full.split(2), tiled.split(2), label.split(2), strict=True))
    count = label.sum() / 2
    joint = losses.correlation_loss(full, tiled, label)
    each = [losses.equivariance_loss(*half, "correlation", counted=lambda _: count) for half in halves]
    torch.testing.assert_close(torch.stack(each).mean(), joint)
    assert torch.stack([losses.correlation_loss(*half) for half in halves]).mean() != pytest.approx(joint.item())
    summed = (scores * label).sum(0) / 2
    found = [
        losses.found_tags(*half, over_ranks=lambda _: summed)
        for half in zip(scores.split(2), label.split(2), strict=True)
    ]
    torch.testing.assert_close(torch.cat(found), losses.found_tags(scores, label))


def test_classification_equals_torchs_soft_margin_on_extreme_scores() -> None:
    arrays = reference("multilabel_soft_margin")
    torch.testing.assert_close(losses.classification_loss(arrays["logits"], arrays["labels"]), arrays["loss_mean"])


def test_classification_equals_puzzle_cams_class_loss() -> None:
    arrays = reference("puzzle_losses")
    loss = losses.classification_loss(arrays["feats"].mean((2, 3)), arrays["labels"])
    torch.testing.assert_close(loss, arrays["class_loss"], rtol=1e-5, atol=1e-6)


def test_classification_by_hand() -> None:
    loss = losses.classification_loss(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_classification_of_half_precision_scores_is_summed_in_float32() -> None:
    loss = losses.classification_loss(torch.full((2, 3), 30000, dtype=torch.float16), torch.zeros(2, 3))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(30000)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    """Return the gradient of ``loss``."""
    return torch.autograd.grad(loss, of)[0]


def test_equivariance_equals_puzzle_cams_options() -> None:
    arrays = reference("puzzle_losses")
    maps, label = (arrays["feats"], arrays["re_feats"]), arrays["labels"]
    found = {
        "re_masking": losses.equivariance_loss(*maps, label),
        "re_none": losses.equivariance_loss(*maps, torch.ones_like(label)),
        "re_selection": equivariance_over_positives(*maps, label),
    }
    for key, loss in found.items():
        torch.testing.assert_close(loss, arrays[key], rtol=1e-5, atol=1e-6)


FULL = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]], [[[0.0, 0.0]], [[2.0, 2.0]]]])
TILED = torch.tensor([[[[0.0, 1.0]], [[9.0, 9.0]]], [[[1.0, 0.0]], [[2.0, 8.0]]]])


def test_equivariance_over_all_divides_by_absent_classes_too() -> None:
    loss = losses.equivariance_loss(FULL, TILED, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert loss.item() == pytest.approx((1 + 2 + 1 + 6) / 8)


def test_equivariance_over_positive_is_the_mean_over_classes_of_an_image_then_over_images() -> None:
    loss = equivariance_over_positives(FULL, TILED, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert loss.item() == pytest.approx((1.5 + (0.5 + 3) / 2) / 2)


@pytest.mark.parametrize("loss_of", [losses.equivariance_loss, equivariance_over_positives])
def test_equivariance_of_all_classes_compares_every_map(loss_of: Callable[..., Tensor]) -> None:
    loss = loss_of(FULL, TILED, torch.ones(2, 2))
    assert loss.item() == pytest.approx((1 + 2 + 4 + 4 + 1 + 6) / 8)


def test_equivariance_of_an_image_without_classes_counts_zero() -> None:
    loss = equivariance_over_positives(FULL, TILED, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert loss.item() == pytest.approx(0.5 / 2)


def test_equivariance_reaches_both_branches() -> None:
    full, tiled = FULL.clone().requires_grad_(), TILED.clone().requires_grad_()
    losses.equivariance_loss(full, tiled, torch.ones(2, 2)).backward()
    assert full.grad is not None
    assert tiled.grad is not None
    torch.testing.assert_close(full.grad, -tiled.grad)
    assert full.grad.abs().sum() > 0


def test_equivariance_refuses_cams_of_two_sizes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 1, 2\).*\(2, 2, 1, 1\)"):
        losses.equivariance_loss(FULL, TILED[..., :1], torch.ones(2, 2))


def test_the_correlation_of_two_maps_is_pearsons_over_the_tagged_classes() -> None:
    torch.manual_seed(0)
    full, tiled = 5 * torch.randn(2, 2, 3, 4, 5)
    label = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    tagged = [(0, 0), (1, 1), (1, 2)]
    pairs = [(full[b, c].flatten().numpy(), tiled[b, c].flatten().numpy()) for b, c in tagged]
    expected = np.mean([1 - np.corrcoef(ours, target)[0, 1] for ours, target in pairs])
    assert losses.correlation_loss(full, tiled, label).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_correlation_asks_for_the_shape_of_a_map_alone(dtype: torch.dtype) -> None:
    tiled = 10 * torch.rand(2, 3, 4, 4)
    scaled = (20 + 5 * tiled).to(dtype)
    assert losses.correlation_loss(scaled, tiled, torch.ones(2, 3)).item() == pytest.approx(0, abs=2e-3)
    assert losses.correlation_loss(-scaled, tiled, torch.ones(2, 3)).item() == pytest.approx(2, abs=2e-3)


@pytest.mark.parametrize("flat", ["full", "tiled"])
def test_a_map_without_a_shape_counts_one_and_moves_nothing(flat: str) -> None:
    full, tiled = 10 * torch.rand(2, 1, 1, 3, 3)
    if flat == "full":
        full = torch.full_like(full, 0.3)
    else:
        tiled = torch.zeros_like(tiled)
    full.requires_grad_()
    loss = losses.correlation_loss(full, tiled, torch.ones(1, 1))
    assert loss.item() == pytest.approx(1)
    slope = gradient(loss, full)
    assert slope.isfinite().all()
    assert flat == "full" or slope.abs().max() == 0


def test_a_map_that_is_nearly_flat_is_not_moved_most() -> None:
    """The gradient of a correlation alone would grow as 1 / deviation, a thousandfold here."""
    tiled, shape = 10 * torch.randn(1, 1, 8, 8), torch.randn(1, 1, 8, 8)
    slopes = []
    for deviation in (1.0, 1e-3):
        full = (deviation * shape / shape.std(correction=0)).requires_grad_()
        slopes.append(gradient(losses.correlation_loss(full, tiled, torch.ones(1, 1)), full).norm().item())
    assert slopes[1] == pytest.approx(slopes[0], rel=0.1)


def test_the_correlation_of_images_without_tags_is_zero() -> None:
    assert losses.correlation_loss(FULL, TILED, torch.zeros(2, 2)).item() == 0


def test_the_correlation_refuses_cams_of_two_sizes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 1, 2\).*\(2, 2, 1, 1\)"):
        losses.correlation_loss(FULL, TILED[..., :1], torch.ones(2, 2))


def test_a_ramp_that_starts_later_grows_after_it() -> None:
    assert [losses.ramp(step, 10, 0.4, 0.3) for step in (0, 3, 4, 5, 7, 9)] == pytest.approx([0, 0, 0.25, 0.5, 1, 1])
    assert [losses.ramp(step, 10, 0, 0.3) for step in (0, 2, 3, 9)] == [0, 0, 1, 1]


def test_a_class_is_found_by_the_mean_score_of_the_images_that_have_its_tag() -> None:
    label = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 0]])
    scores = torch.tensor([[-1.0, 3, 9], [0.9, -2, 9], [9, -9, 9]])  # means -0.05 and 0.5 over the first two images
    found = losses.found_tags(scores.requires_grad_(), label)
    assert torch.equal(found, torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 0]]))
    assert not found.requires_grad


def test_ramp_is_puzzle_cams() -> None:
    arrays = reference("puzzle_losses")
    iterations, alpha = arrays["alpha_iters"].tolist(), arrays["alpha"].tolist()
    steps = round(4 * iterations[1] / alpha[1] / 0.5)
    assert [4 * losses.ramp(i, steps, 0.5) for i in iterations] == pytest.approx(alpha)


@pytest.mark.parametrize("step", [0, 3, 10])
def test_ramp_of_no_share_is_constant(step: int) -> None:
    assert losses.ramp(step, 10, 0) == 1


FULL = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]], [[[0.0, 0.0]], [[2.0, 2.0]]]])
TILED = torch.tensor([[[[0.0, 1.0]], [[9.0, 9.0]]], [[[1.0, 0.0]], [[2.0, 8.0]]]])
LABEL = torch.tensor([[1.0, 0.0], [1.0, 1.0]])


def soft_margin(scores: list[list[float]]) -> float:
    """Eq. 8, number by number."""
    terms = [
        -math.log(1 / (1 + math.exp(-s if y else s)))
        for row, tags in zip(scores, LABEL.tolist(), strict=True)
        for s, y in zip(row, tags, strict=True)
    ]
    return sum(terms) / len(terms)


def test_two_step_loss_by_hand() -> None:
    """Eq. 16: both classification terms on the means of the maps, 0.5 times the contrast, 2 times L_re."""
    equivariance = losses.equivariance_loss(FULL, TILED, LABEL)
    assert equivariance.item() == pytest.approx((1 + 2 + 1 + 6) / 8)
    loss, terms = losses.two_step_loss(FULL, TILED, LABEL, equivariance, 2.0, torch.tensor(0.3), 0.5)
    full, tiled = soft_margin([[2, 5], [0, 2]]), soft_margin([[0.5, 9], [0.5, 5]])
    assert terms["loss_cls"].item() == pytest.approx(full, rel=1e-5)
    assert terms["loss_cls_tiled"].item() == pytest.approx(tiled, rel=1e-5)
    assert loss.item() == pytest.approx(full + tiled + 2 * 10 / 8 + 0.5 * 0.3, rel=1e-5)


def test_without_weights_only_the_two_classification_terms_are_left() -> None:
    loss, terms = losses.two_step_loss(FULL, TILED, LABEL)
    assert loss.item() == pytest.approx((terms["loss_cls"] + terms["loss_cls_tiled"]).item())
    assert set(terms) == {"loss_cls", "loss_cls_tiled"}


@pytest.mark.parametrize("distance", ["l1", "correlation"])
@pytest.mark.parametrize("learns", ["both", "full", "tiled"])
def test_the_equivariance_loss_moves_the_branch_that_is_named(learns: str, distance: str) -> None:
    torch.manual_seed(0)
    full, tiled = torch.rand(2, 2, 3, 3).requires_grad_(), torch.rand(2, 2, 3, 3).requires_grad_()
    loss = losses.equivariance_loss(full, tiled, LABEL, distance, learns)  # type: ignore[arg-type]
    found = torch.autograd.grad(loss, (full, tiled), allow_unused=True)
    assert [gradient is not None and bool(gradient.abs().sum() > 1e-6) for gradient in found] == [
        learns != "tiled",
        learns != "full",
    ]


def test_the_equivariance_loss_is_the_distance_that_is_named() -> None:
    maps = *torch.rand(2, 2, 2, 3, 3), LABEL
    assert torch.equal(losses.equivariance_loss(*maps, "correlation"), losses.correlation_loss(*maps))
    assert not torch.isclose(losses.equivariance_loss(*maps, "l1"), losses.correlation_loss(*maps))
