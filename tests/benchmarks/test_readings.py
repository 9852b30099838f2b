"""Readings that lost: their laws. Their equality with the peers' numbers is in tests/losses."""

import torch

from benchmarks.ablation.readings import RestoringAttention, with_moments_of
from tag2mask.models.attention import Attention


def test_restored_maps_have_the_moments_that_they_had_before_and_the_shape_of_the_refined() -> None:
    generator = torch.Generator().manual_seed(0)
    features, cam = torch.rand(3, 5, 4, 6, generator=generator), torch.randn(3, 2, 4, 6, generator=generator)
    refined, _ = Attention("exp_cosine", temperature=0.5).refine(features, cam)
    restored, _ = RestoringAttention("exp_cosine", temperature=0.5).refine(features, cam)
    assert (refined.std((2, 3)) < 0.9 * cam.std((2, 3))).all()  # averaging flattens
    torch.testing.assert_close(restored.mean((2, 3)), cam.mean((2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored.std((2, 3)), cam.std((2, 3)), rtol=1e-3, atol=1e-3)
    order = refined.flatten(2).argsort(2)
    assert torch.equal(restored.flatten(2).argsort(2), order)


def test_a_constant_map_is_restored_to_itself() -> None:
    constant = torch.full((1, 1, 2, 2), 3.0)
    torch.testing.assert_close(with_moments_of(constant, constant), constant)
