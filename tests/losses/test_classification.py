import math

import pytest
import torch

from tag2mask import losses
from tests.arrays import reference


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
