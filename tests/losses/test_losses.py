import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask import losses
from tag2mask.classes import IGNORE
from tests.arrays import reference

Weight = Literal["sigmoid", "rank", "none"]
WEIGHTS: tuple[Weight, ...] = ("sigmoid", "rank", "none")
REDUCTIONS: tuple[Literal["mean", "sum"], ...] = ("mean", "sum")


def vectors(images: int = 4, tiles: int = 3, length: int = 6, seed: int = 0) -> Tensor:
    """Foreground vectors of positive numbers, so that no similarity is clamped."""
    return torch.rand(images, tiles, length, generator=torch.Generator().manual_seed(seed)) + 0.05


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    """Return the gradient of ``loss``."""
    return torch.autograd.grad(loss, of)[0]


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


@pytest.mark.parametrize(
    ("over", "masked", "key"),
    [("all", True, "re_masking"), ("positive", True, "re_selection"), ("all", False, "re_none")],
)
def test_equivariance_equals_puzzle_cams_options(over: Literal["all", "positive"], masked: bool, key: str) -> None:
    arrays = reference("puzzle_losses")
    loss = losses.equivariance_loss(arrays["feats"], arrays["re_feats"], arrays["labels"], over, masked)
    torch.testing.assert_close(loss, arrays[key], rtol=1e-5, atol=1e-6)


FULL = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]], [[[0.0, 0.0]], [[2.0, 2.0]]]])
TILED = torch.tensor([[[[0.0, 1.0]], [[9.0, 9.0]]], [[[1.0, 0.0]], [[2.0, 8.0]]]])


def test_equivariance_over_all_divides_by_absent_classes_too() -> None:
    loss = losses.equivariance_loss(FULL, TILED, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert loss.item() == pytest.approx((1 + 2 + 1 + 6) / 8)


def test_equivariance_over_positive_is_the_mean_over_classes_of_an_image_then_over_images() -> None:
    loss = losses.equivariance_loss(FULL, TILED, torch.tensor([[1.0, 0.0], [1.0, 1.0]]), over="positive")
    assert loss.item() == pytest.approx((1.5 + (0.5 + 3) / 2) / 2)


@pytest.mark.parametrize("over", ["all", "positive"])
def test_equivariance_unmasked_compares_absent_classes(over: Literal["all", "positive"]) -> None:
    loss = losses.equivariance_loss(FULL, TILED, torch.zeros(2, 2), over, masked=False)
    assert loss.item() == pytest.approx((1 + 2 + 4 + 4 + 1 + 6) / 8)


def test_equivariance_of_an_image_without_classes_counts_zero() -> None:
    loss = losses.equivariance_loss(FULL, TILED, torch.tensor([[0.0, 0.0], [1.0, 0.0]]), over="positive")
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


def test_equivariance_names_an_unknown_option() -> None:
    with pytest.raises(ValueError, match="'some'.*'positive'"):
        losses.equivariance_loss(FULL, TILED, torch.ones(2, 2), over="some")  # type: ignore[arg-type]


def test_ramp_is_puzzle_cams() -> None:
    arrays = reference("puzzle_losses")
    iterations, alpha = arrays["alpha_iters"].tolist(), arrays["alpha"].tolist()
    steps = round(4 * iterations[1] / alpha[1] / 0.5)
    assert [4 * losses.ramp(i, steps, 0.5) for i in iterations] == pytest.approx(alpha)


@pytest.mark.parametrize("step", [0, 3, 10])
def test_ramp_of_no_share_is_constant(step: int) -> None:
    assert losses.ramp(step, 10, 0) == 1


def test_cosine_similarity_is_ccams() -> None:
    arrays = reference("ccam_losses")
    for case in (0, 1):
        found = losses.cosine_similarity(arrays[f"emb{case}"][:, None])[:, 0, :, 0]
        bounded = found.clamp(losses.SIMILARITY_BOUND, 1 - losses.SIMILARITY_BOUND)
        torch.testing.assert_close(bounded, arrays[f"sim{case}"], rtol=1e-5, atol=1e-5)


def test_rank_weights_are_ccams_but_for_its_self_pair() -> None:
    arrays = reference("ccam_losses")
    alpha = arrays["alpha"].item()
    found = losses.rank_weights(arrays["sim2"], alpha) * math.exp(alpha)
    torch.testing.assert_close(found, arrays["rank_w2"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_rank_weights_give_ccams_loss(case: int) -> None:
    arrays = reference("ccam_losses")
    alpha, similarity = arrays["alpha"].item(), arrays[f"sim{case}"]
    loss = -similarity.log() * losses.rank_weights(similarity, alpha) * math.exp(alpha)
    torch.testing.assert_close(loss.sum(), arrays[f"loss_sum{case}"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.mean(), arrays[f"loss_mean{case}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [0, 1])
def test_contrast_of_untiled_images_is_ccams_without_its_self_pairs(case: int) -> None:
    arrays = reference("ccam_losses")
    alpha, count = arrays["alpha"].item(), len(arrays[f"emb{case}"])
    loss = losses.cross_image_contrast(arrays[f"emb{case}"][:, None], None, "rank", alpha, "sum")
    self_pairs = -count * math.exp(alpha) * math.log(1 - losses.SIMILARITY_BOUND)
    assert loss.item() + self_pairs == pytest.approx(arrays[f"loss_sum{case}"].item(), rel=1e-5)


@pytest.mark.parametrize("case", [0, 1])
def test_the_gradient_of_the_contrast_is_ccams(case: int) -> None:
    arrays = reference("ccam_losses")
    embedding = arrays[f"emb{case}"].clone().requires_grad_()
    loss = losses.cross_image_contrast(embedding[:, None], None, "rank", arrays["alpha"].item(), "sum")
    found = gradient(loss / len(embedding) ** 2, embedding)
    torch.testing.assert_close(found, arrays[f"grad{case}"], rtol=1e-4, atol=1e-6)


def slow_contrast(foreground: Tensor, pairs: Tensor | None, weight: Weight, alpha: float, reduction: str) -> float:
    """Eq. 11-14, entry by entry."""
    images, tiles, _ = foreground.shape
    similarity = torch.zeros(images, tiles, images, tiles, dtype=torch.float64)
    for i in range(images):
        for j in range(tiles):
            for r in range(images):
                for s in range(tiles):
                    similarity[i, j, r, s] = F.cosine_similarity(
                        foreground[i, j].double(), foreground[r, s].double(), 0
                    )
    total, count = 0.0, 0
    for i in range(images):
        others = [r for r in range(images) if r != i and (pairs is None or bool(pairs[i, r]))]
        ranking = sorted(others, key=lambda r: -similarity[i, :, r].sum().item())
        for r in others:
            summed = similarity[i, :, r].sum().item()
            w = {"none": 1.0, "sigmoid": 1 / (1 + math.exp(-alpha * summed)), "rank": 0.0}[weight]
            w = math.exp(-alpha * ranking.index(r)) if weight == "rank" else w
            for s in similarity[i, :, r].flatten().tolist():
                total -= w * math.log(min(max(s, 5e-4), 1 - 5e-4))
                count += 1
    return total if reduction == "sum" else total / max(count, 1)


PAIRS = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["all", "some"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_contrast_equals_a_slow_loop(weight: Weight, pairs: Tensor | None, reduction: Literal["mean", "sum"]) -> None:
    for foreground in (vectors(), vectors() - 0.5):  # the latter has similarities below the bound
        loss = losses.cross_image_contrast(foreground, pairs, weight, 0.25, reduction)
        assert loss.item() == pytest.approx(slow_contrast(foreground, pairs, weight, 0.25, reduction), rel=1e-4)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_an_image_is_never_compared_with_itself(weight: Weight) -> None:
    assert losses.cross_image_contrast(vectors(), torch.eye(4, dtype=torch.bool), weight).item() == 0


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("images", [1, 3])
def test_without_a_pair_the_contrast_is_zero_and_its_gradient_too(images: int, weight: Weight) -> None:
    foreground = vectors(images).requires_grad_()
    loss = losses.cross_image_contrast(foreground, torch.zeros(images, images, dtype=torch.bool), weight)
    assert loss.item() == 0
    assert torch.equal(gradient(loss, foreground), torch.zeros_like(foreground))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_weights_carry_no_gradient(weight: Weight) -> None:
    foreground = vectors().requires_grad_()
    similarity = losses.cosine_similarity(foreground)
    between = similarity.detach().sum((1, 3)).masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf)
    constant = {
        "sigmoid": torch.sigmoid(0.25 * between),
        "rank": losses.rank_weights(between),
        "none": torch.ones(4, 4),
    }[weight]
    by_hand = (-similarity.clamp(5e-4, 1 - 5e-4).log().sum((1, 3)) * constant * (1 - torch.eye(4))).sum()
    found = gradient(losses.cross_image_contrast(foreground, None, weight, reduction="sum"), foreground)
    torch.testing.assert_close(found, gradient(by_hand, foreground), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_order_of_images_does_not_matter(weight: Weight) -> None:
    foreground, order = vectors(), torch.tensor([2, 0, 3, 1])
    before = losses.cross_image_contrast(foreground, PAIRS, weight)
    after = losses.cross_image_contrast(foreground[order], PAIRS[order][:, order], weight)
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_order_of_an_images_tiles_does_not_matter(weight: Weight) -> None:
    foreground = vectors()
    shuffled = foreground.clone()
    shuffled[1] = foreground[1, torch.tensor([2, 0, 1])]
    before, after = (losses.cross_image_contrast(x, PAIRS, weight) for x in (foreground, shuffled))
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_length_of_the_vectors_does_not_matter(weight: Weight) -> None:
    foreground = vectors()
    lengths = torch.logspace(-3, 3, 12).view(4, 3, 1)
    before, after = (losses.cross_image_contrast(x, None, weight) for x in (foreground, foreground * lengths))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_alike_images_cost_less_than_unlike_ones(weight: Weight) -> None:
    alike, unlike = torch.ones(4, 3, 6), torch.eye(12)[:, None].reshape(4, 3, 12)
    cheap, dear = (losses.cross_image_contrast(x, None, weight) for x in (alike, unlike))
    assert cheap < 0.01
    assert dear > 1


def test_rank_weights_favour_the_most_similar() -> None:
    weights = losses.rank_weights(torch.tensor([[0.1, 0.9, 0.5], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0]]), alpha=1.0)
    expected = torch.exp(-torch.tensor([[2.0, 0, 1], [0, 1, 2], [1, 2, 0]]))
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_zero_vectors_give_a_finite_loss_and_gradient(weight: Weight) -> None:
    foreground = vectors()
    foreground[1] = 0
    foreground.requires_grad_()
    loss = losses.cross_image_contrast(foreground, None, weight)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient(loss, foreground)).all()


def test_a_faint_vector_is_moved_most_unless_it_is_left_out() -> None:
    shown = torch.rand(3, 4, 2, 6, generator=torch.Generator().manual_seed(0)) + 0.1
    shown[1, 2, 0] *= 1e-3
    label, background = torch.ones(3, 2), torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(1))

    def moved(least: float) -> torch.Tensor:
        foreground = shown.clone().requires_grad_()
        kept = losses.shows_class(foreground, least)
        loss = losses.class_contrast(foreground, label, kept=kept)
        loss = loss + losses.repulsion(foreground, background, label, kept)
        return gradient(loss, foreground).norm(dim=3)

    printed, kept = moved(0.0), moved(0.05)
    assert printed[1, 2, 0] == printed.max()
    assert printed[1, 2, 0] > 100 * printed.median()
    assert kept[1, 2, 0] == 0
    assert (kept.flatten() > 0).sum() == kept.numel() - 1


def test_faint_is_measured_against_the_longest_vector_of_the_class() -> None:
    foreground = torch.tensor([[[[0.0, 10.0], [1.0, 0.0]], [[0.0, 0.9], [0.0, 0.2]], [[0.0, 0.0], [0.0, 0.0]]]])
    expected = torch.tensor([[[True, True], [False, True], [False, False]]])  # (1, 3, 2)
    assert torch.equal(losses.shows_class(foreground, 0.1), expected)
    assert losses.shows_class(foreground, 0.0).all()
    assert torch.equal(losses.shows_class(foreground, 1.0).sum((0, 1)), torch.tensor([1, 1]))
    assert not losses.shows_class(foreground[:, 2:], 0.1).any()


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_tiles_that_are_left_out_are_in_no_sum_and_no_denominator(
    weight: Weight, reduction: Literal["mean", "sum"]
) -> None:
    """With half of the tiles faint the loss, and the gradient of the others, are those of the others alone."""
    alone = vectors(4, 2, 6)[:, :, None].requires_grad_()
    faint = vectors(4, 2, 6, seed=1)[:, :, None] * 1e-4
    mixed = torch.cat([alone.detach(), faint], 1).requires_grad_()
    kept, label, background = losses.shows_class(mixed, 0.05), torch.ones(4, 1), vectors(4, 4, 6, seed=2)
    alpha = 0.25 / 4 if weight == "sigmoid" else 0.25  # the sum in that weight is over 4 x 4 entries, not 2 x 2
    expected = losses.class_contrast(alone, label, weight, 0.25, reduction)
    found = losses.class_contrast(mixed, label, weight, alpha, reduction, kept)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, mixed)[:, :2], gradient(expected, alone))
    expected, found = (losses.repulsion(x, background, label, k) for x, k in ((alone, None), (mixed, kept)))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, mixed)[:, :2], gradient(expected, alone))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_large_half_precision_vectors_give_a_finite_loss_and_gradient(weight: Weight) -> None:
    foreground = (vectors() * 30000).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses.cross_image_contrast(foreground, None, weight)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(losses.cross_image_contrast(vectors(), None, weight).item(), rel=1e-2)
    assert torch.isfinite(gradient(loss, foreground)).all()


@pytest.mark.parametrize("option", [{"weight": "best"}, {"reduction": "most"}])
def test_contrast_names_an_unknown_option(option: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} is '{next(iter(option.values()))}'"):
        losses.cross_image_contrast(vectors(), **option)  # type: ignore[arg-type]


def test_foreground_vectors_equal_a_slow_loop() -> None:
    features, cam = torch.rand(2, 3, 4, 2, 5), torch.randn(2, 3, 2, 2, 5)
    expected = torch.zeros(2, 3, 2, 4)
    for b in range(2):
        for t in range(3):
            for c in range(2):
                for m in range(2):
                    for n in range(5):
                        expected[b, t, c] += features[b, t, :, m, n] * cam[b, t, c, m, n] / 10
    torch.testing.assert_close(losses.foreground_vectors(features, cam), expected)


def test_foreground_vectors_of_half_precision_do_not_overflow() -> None:
    features = torch.full((1, 1, 2, 8, 8), 300, dtype=torch.float16, requires_grad=True)
    cam = torch.full((1, 1, 2, 8, 8), 300, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses.foreground_vectors(features, cam)
    torch.testing.assert_close(found, torch.full((1, 1, 2, 2), 90000.0))
    assert torch.isfinite(gradient(found.sum(), features)).all()


def test_mean_similarity_leaves_out_an_images_own_tiles() -> None:
    foreground = torch.eye(3)[:, None, None].repeat(1, 2, 1, 1)  # tiles of an image are equal, images orthogonal
    assert losses.mean_similarity(foreground, torch.ones(3, 1)).item() == pytest.approx(0, abs=1e-6)


def test_mean_similarity_is_one_of_a_collapse_however_few_pairs_share_a_class() -> None:
    """Equal features and CAMs, a tag for each image but two, so that one pair of 15 shares one."""
    label = torch.eye(6, 5).index_put_((torch.tensor([5]), torch.tensor([0])), torch.tensor(1.0))
    foreground = torch.ones(6, 4, 5, 3) * label[:, None, :, None]
    assert losses.mean_similarity(foreground, label).item() == pytest.approx(1)


def test_mean_similarity_equals_a_slow_loop() -> None:
    foreground = torch.rand(4, 3, 2, 6, generator=torch.Generator().manual_seed(0)) - 0.5
    foreground[0, 1, 0] = 0  # has no direction
    label = torch.tensor([[1.0, 1], [1, 0], [1, 1], [0, 1]])
    kept = torch.ones(4, 3, 2, dtype=torch.bool)
    kept[2, 0, 1] = False

    def counts(i: int, j: int, c: int) -> bool:
        return bool(label[i, c] and kept[i, j, c] and foreground[i, j, c].norm() > 0)

    means = []
    for c in range(2):
        cosines = [
            F.cosine_similarity(foreground[i, j, c], foreground[r, s, c], 0).item()
            for i in range(4)
            for r in range(4)
            for j in range(3)
            for s in range(3)
            if i != r and counts(i, j, c) and counts(r, s, c)
        ]
        means.append(sum(cosines) / len(cosines))
    found = losses.mean_similarity(foreground, label, kept).item()
    assert found == pytest.approx(sum(means) / 2, abs=1e-6)


def test_mean_similarity_without_a_pair_is_not_a_number() -> None:
    assert losses.mean_similarity(torch.ones(2, 2, 2, 5), torch.eye(2)).isnan()


def test_the_mean_of_two_ranks_is_the_loss_of_the_joint_batch() -> None:
    scores, label = torch.randn(4, 3, 6, 6), torch.randint(0, 3, (4, 6, 6))
    label[:2, :4] = IGNORE  # the ranks have unequal numbers of labelled pixels
    counts = torch.stack([(half != IGNORE).sum().double() for half in label.split(2)])
    halves = [
        losses.segmentation_loss(*half, counted=lambda _: counts.mean())
        for half in zip(scores.split(2), label.split(2), strict=True)
    ]
    torch.testing.assert_close(torch.stack(halves).mean().float(), losses.segmentation_loss(scores, label))


def test_the_mean_of_two_ranks_is_the_affinity_loss_of_the_joint_batch() -> None:
    affinity = torch.rand(4, 5, 20)
    kinds = [torch.rand(4, 5, 20) > share for share in (0.3, 0.6, 0.8)]
    kinds[0][:2] = False  # one rank has no pair of the background
    counts = torch.stack([torch.stack([kind[i : i + 2].sum() for kind in kinds]).double() for i in (0, 2)])
    halves = [
        losses.affinity_loss(
            affinity[i : i + 2], *(kind[i : i + 2] for kind in kinds), counted=lambda _: counts.mean(0)
        )
        for i in (0, 2)
    ]
    joint = losses.affinity_loss(affinity, *kinds)
    for name in joint:
        torch.testing.assert_close(torch.stack([half[name] for half in halves]).mean().float(), joint[name])


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


def test_scaled_maps_are_those_of_inference_and_their_maximum_has_no_gradient() -> None:
    cam = torch.tensor([[[[-1.0, 2.0, 4.0]], [[-3.0, -2.0, -1.0]]]], requires_grad=True)
    found = losses.scaled(cam)
    torch.testing.assert_close(found, torch.tensor([[[[0.0, 0.5, 1.0]], [[0.0, 0.0, 0.0]]]]), rtol=1e-4, atol=1e-4)
    slope = gradient(found.sum(), cam)
    torch.testing.assert_close(slope[0, 0, 0], torch.tensor([0.0, 0.25, 0.25]), rtol=1e-4, atol=1e-4)


def test_background_vectors_weigh_features_by_what_the_strongest_class_leaves() -> None:
    features = torch.tensor([[[[[1.0, 0.0]], [[0.0, 1.0]]], [[[1.0, 0.0]], [[0.0, 1.0]]]]])  # (1, 2, D=2, 1, 2)
    cam = torch.tensor([[[[[4.0, 0.0]], [[2.0, 1.0]]], [[[0.0, 2.0]], [[0.0, 0.0]]]]])  # (1, 2, C=2, 1, 2)
    found = losses.background_vectors(features, cam)
    expected = torch.tensor([[[0.0, 0.75], [1.0, 0.5]]]) / 2  # a mean over two positions; the highest of the image is 4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_class_contrast_is_the_mean_over_classes_that_images_share() -> None:
    foreground = torch.rand(3, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([[1.0, 1, 0], [1, 1, 1], [1, 0, 0]])
    pairs = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])
    terms = [
        losses.cross_image_contrast(foreground[:, :, 0], None, "none"),
        losses.cross_image_contrast(foreground[:, :, 1], pairs, "none"),
    ]
    found = losses.class_contrast(foreground, label, weight="none")
    assert found.item() == pytest.approx(sum(term.item() for term in terms) / 2)


def test_class_contrast_without_a_shared_class_is_zero_and_its_gradient_too() -> None:
    foreground = torch.rand(2, 2, 2, 4, requires_grad=True)
    loss = losses.class_contrast(foreground, torch.eye(2))
    assert loss.item() == 0
    assert not gradient(loss, foreground).any()


def test_repulsion_by_hand() -> None:
    foreground = torch.tensor([[[[1.0, 0.0], [3.0, 0.0]]]])  # (1, 1, C=2, D=2); the second class is absent
    background = torch.tensor([[[1.0, math.sqrt(3)]]])
    loss = losses.repulsion(foreground, background, torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx(math.log(2))  # the cosine is a half


def test_repulsion_is_small_where_foreground_and_background_differ() -> None:
    foreground, label = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.1]]]]), torch.ones(2, 1)
    far, near = torch.tensor([[[0.0, 1.0]]] * 2), torch.tensor([[[1.0, 0.2]]] * 2)
    assert losses.repulsion(foreground, far, label) < losses.repulsion(foreground, near, label)
