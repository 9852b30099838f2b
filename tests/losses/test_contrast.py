import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ablation.readings import equal_weights, rank_weights, summed_contrast
from tag2mask import losses
from tests.arrays import reference

WEIGHTS = {"sigmoid": losses.sigmoid_weights, "rank": rank_weights, "none": equal_weights}


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    """Return the gradient of ``loss``."""
    return torch.autograd.grad(loss, of)[0]


def vectors(images: int = 4, tiles: int = 3, length: int = 6, seed: int = 0) -> Tensor:
    """Foreground vectors of positive numbers, so that no similarity is clamped."""
    return torch.rand(images, tiles, length, generator=torch.Generator().manual_seed(seed)) + 0.05


def test_cosine_similarity_is_ccams() -> None:
    arrays = reference("ccam_losses")
    for case in (0, 1):
        found = losses.cosine_similarity(arrays[f"emb{case}"][:, None])[:, 0, :, 0]
        bounded = found.clamp(losses.SIMILARITY_BOUND, 1 - losses.SIMILARITY_BOUND)
        torch.testing.assert_close(bounded, arrays[f"sim{case}"], rtol=1e-5, atol=1e-5)


def test_rank_weights_are_ccams_but_for_its_self_pair() -> None:
    arrays = reference("ccam_losses")
    alpha = arrays["alpha"].item()
    found = rank_weights(arrays["sim2"], alpha) * math.exp(alpha)
    torch.testing.assert_close(found, arrays["rank_w2"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_rank_weights_give_ccams_loss(case: int) -> None:
    arrays = reference("ccam_losses")
    alpha, similarity = arrays["alpha"].item(), arrays[f"sim{case}"]
    loss = -similarity.log() * rank_weights(similarity, alpha) * math.exp(alpha)
    torch.testing.assert_close(loss.sum(), arrays[f"loss_sum{case}"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.mean(), arrays[f"loss_mean{case}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [0, 1])
def test_contrast_of_untiled_images_is_ccams_without_its_self_pairs(case: int) -> None:
    arrays = reference("ccam_losses")
    alpha, count = arrays["alpha"].item(), len(arrays[f"emb{case}"])
    loss = summed_contrast(arrays[f"emb{case}"][:, None], alpha)
    self_pairs = -count * math.exp(alpha) * math.log(1 - losses.SIMILARITY_BOUND)
    assert loss.item() + self_pairs == pytest.approx(arrays[f"loss_sum{case}"].item(), rel=1e-5)


@pytest.mark.parametrize("case", [0, 1])
def test_the_gradient_of_the_contrast_is_ccams(case: int) -> None:
    arrays = reference("ccam_losses")
    embedding = arrays[f"emb{case}"].clone().requires_grad_()
    loss = summed_contrast(embedding[:, None], arrays["alpha"].item())
    found = gradient(loss / len(embedding) ** 2, embedding)
    torch.testing.assert_close(found, arrays[f"grad{case}"], rtol=1e-4, atol=1e-6)


def slow_contrast(foreground: Tensor, pairs: Tensor | None, weight: str, alpha: float = 0.25) -> float:
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
    return total / max(count, 1)


PAIRS = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["all", "some"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_contrast_equals_a_slow_loop(weight: str, pairs: Tensor | None) -> None:
    for foreground in (vectors(), vectors() - 0.5):  # the latter has similarities below the bound
        loss = losses.cross_image_contrast(foreground, pairs, WEIGHTS[weight])
        assert loss.item() == pytest.approx(slow_contrast(foreground, pairs, weight), rel=1e-4)


@pytest.mark.parametrize("alpha", [0.05, 1.0])
def test_alpha_smooths_the_weights(alpha: float) -> None:
    loss = losses.cross_image_contrast(vectors(), None, lambda summed: losses.sigmoid_weights(summed, alpha))
    assert loss.item() == pytest.approx(slow_contrast(vectors(), None, "sigmoid", alpha), rel=1e-4)


def test_the_sum_of_eq_14_is_the_mean_times_its_entries() -> None:
    foreground = vectors()
    mean = losses.cross_image_contrast(foreground, weights=rank_weights)
    assert summed_contrast(foreground).item() == pytest.approx(mean.item() * 4 * 3 * 3 * 3, rel=1e-5)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_an_image_is_never_compared_with_itself(weight: str) -> None:
    assert losses.cross_image_contrast(vectors(), torch.eye(4, dtype=torch.bool), WEIGHTS[weight]).item() == 0


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("images", [1, 3])
def test_without_a_pair_the_contrast_is_zero_and_its_gradient_too(images: int, weight: str) -> None:
    foreground = vectors(images).requires_grad_()
    loss = losses.cross_image_contrast(foreground, torch.zeros(images, images, dtype=torch.bool), WEIGHTS[weight])
    assert loss.item() == 0
    assert torch.equal(gradient(loss, foreground), torch.zeros_like(foreground))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_weights_carry_no_gradient(weight: str) -> None:
    foreground = vectors().requires_grad_()
    similarity = losses.cosine_similarity(foreground)
    between = similarity.detach().sum((1, 3)).masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf)
    constant = WEIGHTS[weight](between)
    by_hand = (-similarity.clamp(5e-4, 1 - 5e-4).log().sum((1, 3)) * constant * (1 - torch.eye(4))).sum()
    found = gradient(losses.cross_image_contrast(foreground, None, WEIGHTS[weight]), foreground)
    torch.testing.assert_close(found, gradient(by_hand, foreground) / (4 * 3 * 3 * 3), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_order_of_images_does_not_matter(weight: str) -> None:
    foreground, order = vectors(), torch.tensor([2, 0, 3, 1])
    before = losses.cross_image_contrast(foreground, PAIRS, WEIGHTS[weight])
    after = losses.cross_image_contrast(foreground[order], PAIRS[order][:, order], WEIGHTS[weight])
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_order_of_an_images_tiles_does_not_matter(weight: str) -> None:
    foreground = vectors()
    shuffled = foreground.clone()
    shuffled[1] = foreground[1, torch.tensor([2, 0, 1])]
    before, after = (losses.cross_image_contrast(x, PAIRS, WEIGHTS[weight]) for x in (foreground, shuffled))
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_length_of_the_vectors_does_not_matter(weight: str) -> None:
    foreground = vectors()
    lengths = torch.logspace(-3, 3, 12).view(4, 3, 1)
    before, after = (losses.cross_image_contrast(x, None, WEIGHTS[weight]) for x in (foreground, foreground * lengths))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_alike_images_cost_less_than_unlike_ones(weight: str) -> None:
    alike, unlike = torch.ones(4, 3, 6), torch.eye(12)[:, None].reshape(4, 3, 12)
    cheap, dear = (losses.cross_image_contrast(x, None, WEIGHTS[weight]) for x in (alike, unlike))
    assert cheap < 0.01
    assert dear > 1


def test_rank_weights_favour_the_most_similar() -> None:
    weights = rank_weights(torch.tensor([[0.1, 0.9, 0.5], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0]]), alpha=1.0)
    expected = torch.exp(-torch.tensor([[2.0, 0, 1], [0, 1, 2], [1, 2, 0]]))
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_zero_vectors_give_a_finite_loss_and_gradient(weight: str) -> None:
    foreground = vectors()
    foreground[1] = 0
    foreground.requires_grad_()
    loss = losses.cross_image_contrast(foreground, None, WEIGHTS[weight])
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
def test_tiles_that_are_left_out_are_in_no_sum_and_no_denominator(weight: str) -> None:
    """With half of the tiles faint the loss, and the gradient of the others, are those of the others alone."""
    alone = vectors(4, 2, 6)[:, :, None].requires_grad_()
    faint = vectors(4, 2, 6, seed=1)[:, :, None] * 1e-4
    mixed = torch.cat([alone.detach(), faint], 1).requires_grad_()
    kept, label, background = losses.shows_class(mixed, 0.05), torch.ones(4, 1), vectors(4, 4, 6, seed=2)
    weights = WEIGHTS[weight]
    fewer = (lambda s: weights(s / 4)) if weight == "sigmoid" else weights  # it sums 4 x 4 entries, not 2 x 2
    expected = losses.class_contrast(alone, label, weights)
    found = losses.class_contrast(mixed, label, fewer, kept)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, mixed)[:, :2], gradient(expected, alone))
    expected, found = (losses.repulsion(x, background, label, k) for x, k in ((alone, None), (mixed, kept)))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, mixed)[:, :2], gradient(expected, alone))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_large_half_precision_vectors_give_a_finite_loss_and_gradient(weight: str) -> None:
    foreground = (vectors() * 30000).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses.cross_image_contrast(foreground, None, WEIGHTS[weight])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(losses.cross_image_contrast(vectors(), None, WEIGHTS[weight]).item(), rel=1e-2)
    assert torch.isfinite(gradient(loss, foreground)).all()


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
        losses.cross_image_contrast(foreground[:, :, 0], None, equal_weights),
        losses.cross_image_contrast(foreground[:, :, 1], pairs, equal_weights),
    ]
    found = losses.class_contrast(foreground, label, equal_weights)
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


def of_a_batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, T, D, M, N), CAMs of either sign (B, T, C, M, N) and tags (B, C) of three images."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(3, 4, 5, 2, 3, generator=generator)
    cam = torch.randn(3, 4, 2, 2, 3, generator=generator)
    return features, cam, torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])


def test_contrast_as_printed_is_eq_10_to_14_in_a_row() -> None:
    """Vectors of all classes end to end, of foreground alone: an absent class and a negative activation add nothing."""
    features, cam, label = of_a_batch()
    terms = losses.cross_image_foreground_contrast(features, cam, label)
    by_hand = torch.zeros(3, 4, 2, 5)
    for b in range(3):
        for t in range(4):
            for c in range(2):
                weight = cam[b, t, c].clamp_min(0) * label[b, c]
                by_hand[b, t, c] = (features[b, t] * weight).mean((1, 2))
    assert terms["loss_cfc"].item() == pytest.approx(slow_contrast(by_hand.flatten(2), None, "sigmoid"), rel=1e-4)
    assert terms["loss_contrast"] is terms["loss_cfc"]
    assert set(terms) == {"loss_cfc", "loss_contrast", "cfc_similarity"}


def test_guards_of_the_contrast_are_its_parts() -> None:
    features, cam, label = of_a_batch()
    terms = losses.cross_image_foreground_contrast(features, cam, label, 0.5, per_class=True, repel=3.0, least=0.6)
    foreground_cam = cam.relu() * label[:, None, :, None, None]
    foreground = losses.foreground_vectors(features, foreground_cam)
    kept = losses.shows_class(foreground, 0.6)
    assert 0 < kept.sum() < kept.numel()
    pull = losses.class_contrast(foreground, label, lambda summed: losses.sigmoid_weights(summed, 0.5), kept)
    push = losses.repulsion(foreground, losses.background_vectors(features, foreground_cam), label, kept)
    torch.testing.assert_close(terms["loss_cfc"], pull)
    torch.testing.assert_close(terms["loss_repel"], push)
    torch.testing.assert_close(terms["loss_contrast"], pull + 3 * push)
    torch.testing.assert_close(terms["cfc_similarity"], losses.mean_similarity(foreground, label, kept))


def test_without_a_shared_class_the_contrast_has_no_similarity() -> None:
    features, cam, _ = of_a_batch()
    terms = losses.cross_image_foreground_contrast(features[:2], cam[:2], torch.eye(2), per_class=True)
    assert set(terms) == {"loss_cfc", "loss_contrast"}
    assert terms["loss_cfc"].item() == 0


def test_vectors_of_all_ranks_are_compared() -> None:
    """What `gather` joins is compared: here the second rank has the other images."""
    features, cam, label = of_a_batch()
    whole = losses.cross_image_foreground_contrast(features, cam, label, per_class=True, repel=1.0)
    other = losses.foreground_vectors(features, cam.relu() * label[:, None, :, None, None])
    backs = losses.background_vectors(features, cam.relu() * label[:, None, :, None, None])
    rest = {other.ndim: other[1:], label.ndim: label[1:], backs.ndim: backs[1:]}
    joined = losses.cross_image_foreground_contrast(
        features[:1], cam[:1], label[:1], per_class=True, repel=1.0, gather=lambda x: torch.cat([x, rest[x.ndim]])
    )
    for name, value in whole.items():
        torch.testing.assert_close(joined[name], value)
