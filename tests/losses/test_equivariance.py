from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.ablation.readings import equivariance_over_positives
from tag2mask import losses
from tests.arrays import reference


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


def test_normalized_maps_are_those_of_inference_and_their_maximum_has_no_gradient() -> None:
    cam = torch.tensor([[[[-1.0, 2.0, 4.0]], [[-3.0, -2.0, -1.0]]]], requires_grad=True)
    found = losses.normalize_cam(cam)
    torch.testing.assert_close(found, torch.tensor([[[[0.0, 0.5, 1.0]], [[0.0, 0.0, 0.0]]]]), rtol=1e-4, atol=1e-4)
    slope = gradient(found.sum(), cam)
    torch.testing.assert_close(slope[0, 0, 0], torch.tensor([0.0, 0.25, 0.25]), rtol=1e-4, atol=1e-4)
