import math

import pytest
import torch

from tag2mask import losses
from tests.arrays import reference


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
    loss, terms = losses.two_step_loss(FULL, TILED, LABEL, beta=2.0, contrast=torch.tensor(0.3), lam=0.5)
    full, tiled = soft_margin([[2, 5], [0, 2]]), soft_margin([[0.5, 9], [0.5, 5]])
    assert terms["loss_cls"].item() == pytest.approx(full, rel=1e-5)
    assert terms["loss_cls_tiled"].item() == pytest.approx(tiled, rel=1e-5)
    assert terms["loss_re"].item() == pytest.approx((1 + 2 + 1 + 6) / 8)
    assert loss.item() == pytest.approx(full + tiled + 2 * 10 / 8 + 0.5 * 0.3, rel=1e-5)


def test_without_weights_only_the_two_classification_terms_are_left() -> None:
    loss, terms = losses.two_step_loss(FULL, TILED, LABEL, beta=0.0)
    assert loss.item() == pytest.approx((terms["loss_cls"] + terms["loss_cls_tiled"]).item())
    assert set(terms) == {"loss_cls", "loss_cls_tiled", "loss_re"}


@pytest.mark.parametrize("maps", ["raw", "normalized"])
@pytest.mark.parametrize("learns", ["both", "full", "tiled"])
def test_the_equivariance_loss_moves_the_branch_that_is_named(learns: str, maps: str) -> None:
    """Its gradient alone: that of the loss with beta 1 less that with beta 0."""
    full, tiled = FULL.clone().requires_grad_(), TILED.clone().requires_grad_()
    (with_re, _), (without, _) = (
        losses.two_step_loss(full, tiled, LABEL, beta, maps=maps, learns=learns)  # type: ignore[arg-type]
        for beta in (1.0, 0.0)
    )
    moved = [gradient.abs().sum() > 1e-6 for gradient in torch.autograd.grad(with_re - without, (full, tiled))]
    assert moved == [learns != "tiled", learns != "full"]


def test_normalized_maps_of_one_shape_are_equal_to_the_equivariance_loss() -> None:
    full = torch.rand(2, 2, 4, 4)
    raw, normalized = (
        losses.two_step_loss(full, 3 * full, LABEL, 1.0, maps=maps)[1]["loss_re"].item()  # type: ignore[arg-type]
        for maps in ("raw", "normalized")
    )
    assert normalized == pytest.approx(0, abs=1e-4)
    assert raw > 0.1
