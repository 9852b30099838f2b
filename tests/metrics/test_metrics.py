import math

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from tag2mask.classes import BACKGROUND, IGNORE
from tag2mask.metrics.functional import at_full_size, scores
from tag2mask.metrics.scores import SegmentationScores, ThresholdSweep
from tests.arrays import reference

THRESHOLDS = (0.1, 0.25, 0.3, 0.5, 0.75)


def label_maps(classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predicted and true label maps (3, 20, 30), every class in both, a tenth of the truth ignored."""
    rng = torch.Generator().manual_seed(seed)
    predicted, target = (torch.randint(classes, (3, 20, 30), generator=rng) for _ in range(2))
    target[torch.rand(target.shape, generator=rng) < 0.1] = IGNORE
    return predicted, target


def cams(classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Score, winner and target (3, 20, 30); a fifth of the scores equal a threshold exactly."""
    rng = torch.Generator().manual_seed(seed)
    score = torch.rand(3, 20, 30, generator=rng)
    at = torch.tensor(THRESHOLDS)[torch.randint(len(THRESHOLDS), score.shape, generator=rng)]
    score = torch.where(torch.rand(score.shape, generator=rng) < 0.2, at, score)
    winner = torch.randint(1, classes, score.shape, generator=rng)
    return score, winner, label_maps(classes, seed)[1]


def counted(predicted: Tensor, target: Tensor, classes: int) -> SegmentationScores:
    """Scores after one update."""
    metric = SegmentationScores(classes)
    metric.update(predicted, target)
    return metric


def test_confusion_equals_chainercvs() -> None:
    arrays = reference("eval_confusion_iou")
    assert torch.equal(counted(arrays["preds"], arrays["gts"], 21).confusion, arrays["confusion"])


def test_confusion_holds_puzzle_cams_counts() -> None:
    arrays = reference("eval_confusion_iou")
    confusion = counted(arrays["preds"], arrays["gts"], 21).confusion
    assert torch.equal(confusion.diag(), arrays["TP"])
    assert torch.equal(confusion.sum(0), arrays["P"])
    assert torch.equal(confusion.sum(1), arrays["T"])


@pytest.mark.parametrize(("ours", "theirs"), [("iou", "iou"), ("fdr", "paper_FDR"), ("miou", "chainer_miou")])
def test_scores_equal_the_peers(ours: str, theirs: str) -> None:
    arrays = reference("eval_confusion_iou")
    found = counted(arrays["preds"], arrays["gts"], 21).compute()[ours]
    torch.testing.assert_close(found, arrays[theirs], rtol=1e-9, atol=1e-12)


def test_fnr_equals_the_peers_but_is_undefined_for_a_class_that_never_occurs() -> None:
    arrays = reference("eval_confusion_iou")
    found = counted(arrays["preds"], arrays["gts"], 21).compute()["fnr"]
    occurs = arrays["T"] > 0
    torch.testing.assert_close(found[occurs], arrays["paper_FNR"][occurs], rtol=1e-9, atol=1e-12)
    assert found[~occurs].isnan().all()
    assert (~occurs).sum() == 1


def test_miou_equals_torchmetrics() -> None:
    predicted, target = label_maps()
    theirs = MulticlassJaccardIndex(5, ignore_index=IGNORE, average="macro")
    theirs.update(predicted, target)
    torch.testing.assert_close(counted(predicted, target, 5).compute()["miou"].float(), theirs.compute())


def test_scores_by_hand() -> None:
    found = scores(torch.tensor([[6, 2], [1, 3]]))
    assert found["iou"].tolist() == pytest.approx([6 / 9, 3 / 6])
    assert found["fdr"].tolist() == pytest.approx([1 / 7, 2 / 5])
    assert found["fnr"].tolist() == pytest.approx([2 / 8, 1 / 4])
    assert found["miou"].item() == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert found["mfdr_foreground"].item() == pytest.approx(2 / 5)
    assert found["mfnr_foreground"].item() == pytest.approx(1 / 4)


def test_ignored_pixels_do_not_count() -> None:
    predicted, target = label_maps()
    noise = torch.where(target == IGNORE, (predicted + 1) % 5, predicted)
    assert torch.equal(counted(predicted, target, 5).confusion, counted(noise, target, 5).confusion)
    assert counted(predicted, target, 5).confusion.sum() == (target != IGNORE).sum()


def test_a_class_absent_from_truth_and_prediction_is_left_out_of_the_means() -> None:
    predicted, target = label_maps()
    small, large = (counted(predicted, target, classes).compute() for classes in (5, 7))
    assert large["iou"][5:].isnan().all()
    for mean in ("miou", "mfdr", "mfnr", "miou_foreground", "mfdr_foreground", "mfnr_foreground"):
        assert torch.equal(small[mean], large[mean])


def test_a_class_predicted_but_absent_from_the_truth_counts_zero() -> None:
    found = counted(torch.tensor([[0, 0, 1]]), torch.tensor([[0, 0, 0]]), 2).compute()
    assert found["iou"].tolist() == pytest.approx([2 / 3, 0])
    assert found["miou"].item() == pytest.approx(1 / 3)
    assert found["fdr"][1].item() == 1


def test_a_perfect_prediction_scores_one() -> None:
    _, target = label_maps()
    found = counted(target.where(target != IGNORE, 3), target, 5).compute()
    assert [found[key].item() for key in ("miou", "mfdr", "mfnr")] == [1, 0, 0]


def test_scores_do_not_depend_on_batches_or_their_order() -> None:
    predicted, target = label_maps()
    apart = SegmentationScores(5)
    for index in (2, 0, 1):
        apart.update(predicted[index], target[index])
    assert torch.equal(apart.confusion, counted(predicted, target, 5).confusion)


def test_byte_maps_are_counted_like_integers() -> None:
    predicted, target = label_maps(21)
    assert torch.equal(counted(predicted.byte(), target.byte(), 21).confusion, counted(predicted, target, 21).confusion)


def test_counts_beyond_32_bits_do_not_wrap() -> None:
    metric = SegmentationScores(2)
    metric.confusion = torch.tensor([[2**33, 0], [0, 2**33]])
    metric.update(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
    assert metric.confusion.tolist() == [[2**33 + 1, 1], [0, 2**33]]
    assert metric.compute()["iou"][1].item() == pytest.approx(1 - 2**-33, abs=1e-12)


def test_reset_forgets_the_counts() -> None:
    metric = counted(*label_maps(), 5)
    metric.reset()
    assert metric.confusion.sum() == 0


def test_sweep_equals_scoring_each_threshold_apart() -> None:
    score, winner, target = cams()
    sweep = ThresholdSweep(5, THRESHOLDS)
    sweep.update(score, winner, target)
    for threshold, confusion in zip(THRESHOLDS, sweep.confusion(), strict=True):
        label = torch.where(score > torch.tensor(threshold), winner, BACKGROUND)
        assert torch.equal(confusion, counted(label, target, 5).confusion)


def test_sweep_computes_the_scores_of_its_confusions() -> None:
    sweep = ThresholdSweep(5, THRESHOLDS)
    sweep.update(*cams())
    found = sweep.compute()
    assert found["threshold"].tolist() == pytest.approx(THRESHOLDS)
    for index, confusion in enumerate(sweep.confusion()):
        for key, value in scores(confusion).items():
            torch.testing.assert_close(found[key][index], value, equal_nan=True)


def test_a_score_equal_to_the_threshold_is_background() -> None:
    sweep = ThresholdSweep(2, [0.3])
    sweep.update(torch.tensor([[0.3, 0.30001]]), torch.ones(1, 2), torch.ones(1, 2))
    assert sweep.confusion()[0].tolist() == [[0, 0], [1, 1]]


def test_sweep_sorts_its_thresholds() -> None:
    score, winner, target = cams()
    rising, mixed = ThresholdSweep(5, THRESHOLDS), ThresholdSweep(5, THRESHOLDS[::-1])
    for sweep in (rising, mixed):
        sweep.update(score, winner, target)
    assert torch.equal(rising.confusion(), mixed.confusion())


def test_sweep_takes_half_precision_cams() -> None:
    score, winner, target = cams()
    half, single = ThresholdSweep(5, THRESHOLDS), ThresholdSweep(5, THRESHOLDS)
    half.update(score.half(), winner.byte(), target.byte())
    single.update(score.half().float(), winner, target)
    assert torch.equal(half.confusion(), single.confusion())


def test_sweep_does_not_depend_on_batches_or_their_order() -> None:
    score, winner, target = cams()
    whole, apart = ThresholdSweep(5, THRESHOLDS), ThresholdSweep(5, THRESHOLDS)
    whole.update(score, winner, target)
    for index in (2, 0, 1):
        apart.update(score[index], winner[index], target[index])
    assert torch.equal(whole.counts, apart.counts)


def test_counts_of_two_sweeps_add_up_to_one() -> None:
    one, two, both = (ThresholdSweep(5, THRESHOLDS) for _ in range(3))
    for sweep, seed in ((one, 1), (two, 2)):
        sweep.update(*cams(seed=seed))
        both.update(*cams(seed=seed))
    one.counts += two.counts
    assert torch.equal(one.confusion(), both.confusion())


def test_counts_of_a_sweep_beyond_32_bits_do_not_wrap() -> None:
    sweep = ThresholdSweep(2, [0.5])
    sweep.counts = torch.full((2, 2, 2), 2**33)
    sweep.update(torch.tensor([[0.9]]), torch.tensor([[1]]), torch.tensor([[1]]))
    assert sweep.confusion()[0].tolist() == [[2**34 + 2**33, 2**33], [2**34 + 2**33, 2**33 + 1]]


def test_a_photograph_of_ignored_pixels_counts_nothing() -> None:
    sweep = ThresholdSweep(5, THRESHOLDS)
    sweep.update(torch.rand(4, 4), torch.ones(4, 4), torch.full((4, 4), IGNORE))
    assert sweep.counts.sum() == 0
    assert math.isnan(sweep.compute()["miou"][0])


def test_at_full_size_names_the_class_of_the_largest_cam() -> None:
    cam = torch.tensor([[[0.2, 0.7]], [[0.4, 0.1]]])
    score, winner = at_full_size(cam, torch.tensor([3, 9]), (1, 2))
    torch.testing.assert_close(score, torch.tensor([[0.4, 0.7]]))
    assert winner.tolist() == [[9, 3]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_without_any_class_everything_is_background(dtype: torch.dtype) -> None:
    score, winner = at_full_size(torch.zeros(0, 2, 3, dtype=dtype), torch.zeros(0, dtype=torch.uint8), (4, 6))
    assert score.tolist() == [[0] * 6] * 4
    assert winner.tolist() == [[BACKGROUND] * 6] * 4


def test_at_full_size_scales_up_before_it_picks_the_strongest() -> None:
    cam = torch.tensor([[[1.0, 0.0]], [[0.0, 0.8]]])
    score, winner = at_full_size(cam.half(), torch.tensor([1, 2]), (1, 4))
    torch.testing.assert_close(score, torch.tensor([[1.0, 0.75, 0.6, 0.8]]), rtol=1e-3, atol=1e-3)
    assert winner.tolist() == [[1, 1, 2, 2]]
