import math

import pytest
import torch
import torch.nn.functional as F

from tag2mask import losses
from tag2mask.classes import IGNORE


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
