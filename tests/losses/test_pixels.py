import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tag2mask import losses
from tag2mask.classes import IGNORE
from tag2mask.errors import SettingError


def test_the_mean_of_two_ranks_is_the_loss_of_the_joint_batch() -> None:
    scores, label = torch.randn(4, 3, 6, 6), torch.randint(0, 3, (4, 6, 6))
    label[:2, :4] = IGNORE  # the ranks have unequal numbers of labelled pixels
    counts = torch.stack([(half != IGNORE).sum().double() for half in label.split(2)])
    halves = [
        losses.segmentation_loss(*half, counted=lambda _: counts.mean())
        for half in zip(scores.split(2), label.split(2), strict=True)
    ]
    torch.testing.assert_close(torch.stack(halves).mean().float(), losses.segmentation_loss(scores, label))


def test_segmentation_loss_by_hand_leaves_out_ignored_pixels() -> None:
    scores = torch.zeros(1, 2, 1, 3)
    scores[0, 1, 0, 1] = math.log(3)
    label = torch.tensor([[[0, 1, IGNORE]]])
    expected = (math.log(2) + math.log(4 / 3)) / 2
    assert losses.segmentation_loss(scores, label).item() == pytest.approx(expected, abs=1e-6)


def test_segmentation_loss_is_torchs_cross_entropy_and_zero_without_labels() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 5, 8, 8, requires_grad=True)
    label = torch.randint(0, 5, (2, 8, 8))
    label[:, :3] = IGNORE
    torch.testing.assert_close(
        losses.segmentation_loss(scores, label), F.cross_entropy(scores, label, ignore_index=IGNORE)
    )
    nothing = losses.segmentation_loss(scores, torch.full_like(label, IGNORE))
    nothing.backward()
    assert nothing.item() == 0
    assert scores.grad is not None
    assert (scores.grad == 0).all()


def prediction(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, 4, 8, 8).requires_grad_()


def test_soft_labels_that_are_sure_are_hard_labels_to_both_losses() -> None:
    scores, label = prediction(), torch.randint(0, 4, (2, 8, 8))
    log_probabilities, share = scores.log_softmax(1), F.one_hot(label, 4).permute(0, 3, 1, 2).float()
    expected = F.cross_entropy(scores, label, reduction="none")
    torch.testing.assert_close(losses.soft_cross_entropy(log_probabilities, share), expected)
    torch.testing.assert_close(losses.collision_cross_entropy(log_probabilities, share), expected, rtol=0, atol=1e-5)


def test_an_undecided_pixel_moves_the_prediction_by_shannons_cross_entropy_alone() -> None:
    share = torch.full((2, 4, 8, 8), 1 / 4)
    moved = []
    for loss in (losses.soft_cross_entropy, losses.collision_cross_entropy):
        scores = prediction()
        loss(scores.log_softmax(1), share).sum().backward()
        assert scores.grad is not None
        moved.append(scores.grad.abs().max().item())
    assert moved[0] > 0.1
    assert moved[1] < 1e-6


def test_the_collision_of_two_shares_by_hand() -> None:
    p, y = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.5, 0.0])
    loss = losses.collision_cross_entropy(p.log().view(1, 3, 1, 1), y.view(1, 3, 1, 1))
    assert loss.item() == pytest.approx(-math.log(0.45), abs=1e-6)


def test_a_soft_label_is_highest_where_the_hard_label_is() -> None:
    cam = torch.rand(2, 3, 8, 8)
    share = losses.soft_label(cam, 0.4, 2.0)
    torch.testing.assert_close(share.sum(1), torch.ones(2, 8, 8))
    hard = torch.where(cam.amax(1) > 0.4, cam.argmax(1) + 1, 0)
    assert (share.argmax(1) == hard).all()
    assert share[0, 1, 0, 0].item() == pytest.approx(
        (cam[0, 0, 0, 0] ** 2 / (cam[0, :, 0, 0] ** 2).sum().add(0.16)).item()
    )


def test_neighbours_that_an_edge_parts_may_differ() -> None:
    probabilities = torch.zeros(1, 2, 4, 6)
    probabilities[:, 0, :, :3] = probabilities[:, 1, :, 3:] = 1
    edge = torch.zeros(1, 4, 6)
    pairs = 4 * 5 + 3 * 6
    assert losses.pairwise_loss(probabilities, edge).item() == pytest.approx(4 / pairs)
    edge[:, :, 3] = 0.75
    assert losses.pairwise_loss(probabilities, edge).item() == pytest.approx(0.25 * 4 / pairs)
    assert losses.pairwise_loss(probabilities.transpose(2, 3), edge.transpose(1, 2)).item() == pytest.approx(1 / pairs)


@pytest.mark.parametrize("loss", [losses.CrossEntropy(), losses.SoftCrossEntropy(), losses.CollisionCrossEntropy()])
def test_a_loss_leaves_out_ignored_pixels_and_adds_the_pairs(loss: losses.PixelLoss) -> None:
    mask = torch.randint(0, 4, (2, 8, 8))
    batch = {"mask": mask, "cam": torch.rand(2, 3, 2, 2).half(), "edge": torch.rand(2, 2, 2).half()}
    scores = prediction()
    mask[:, :4] = IGNORE
    terms = loss(scores, batch, lambda count: count)
    assert loss.needs == (() if isinstance(loss, losses.CrossEntropy) else ("cam",))
    (grad,) = torch.autograd.grad(terms["loss"], scores)
    assert (grad[:, :, :4] == 0).all()
    assert (grad[:, :, 4:] != 0).any()
    both = replace(loss, pairwise=3.0)
    assert both.needs[-1] == "edge"
    terms = both(scores, batch, lambda count: count)
    torch.testing.assert_close(terms["loss"], terms["loss_unary"] + 3 * terms["loss_pairwise"])
    assert terms["loss_pairwise"] > 0


def test_a_background_without_a_score_is_refused() -> None:
    with pytest.raises(SettingError, match="background is 0"):
        losses.SoftCrossEntropy(background=0)
