import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from tag2mask.errors import InputError
from tag2mask.models import attention
from tag2mask.models.attention import Attention, Kernel, region_self_attention
from tests.arrays import reference

KERNELS: tuple[Kernel, ...] = tuple(kernel for kernel in get_args(Kernel) if kernel != "network")
"""Of features; ``network`` takes an affinity as it is."""


def tiles(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (2, 5, 3, 4) and CAM (2, 2, 3, 4)."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, 3, 4, generator=rng), torch.randn(2, 2, 3, 4, generator=rng)


def slow(features: Tensor, cam: Tensor, kernel: Kernel, temperature: float, center: bool) -> tuple[Tensor, float]:
    """Eq. 4-6, position by position."""
    refined, entropies = torch.zeros_like(cam), []
    rows, columns = cam.shape[-2:]
    places = [(i, j) for i in range(rows) for j in range(columns)]
    for n in range(len(cam)):
        y = {p: features[n, :, p[0], p[1]].double() for p in places}
        if center:
            middle = torch.stack(list(y.values())).mean(0)
            y = {p: vector - middle for p, vector in y.items()}
        for p in places:
            row = []
            for q in places:
                dot = float(y[p] @ y[q])
                cosine = dot / float(y[p].norm() * y[q].norm())
                if kernel == "exp_dot":
                    row.append(math.exp(max(dot, 0) / temperature))
                elif kernel == "relu_cosine":
                    row.append(max(cosine, 0))
                else:
                    row.append(math.exp(cosine / temperature))
            shares = [value / sum(row) for value in row]
            entropies.append(-sum(a * math.log(a) for a in shares if a > 0))
            for share, q in zip(shares, places, strict=True):
                refined[n, :, p[0], p[1]] += share * cam[n, :, q[0], q[1]]
    return refined, sum(entropies) / len(entropies) / math.log(len(places))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_attention_equals_a_slow_loop(kernel: Kernel, center: bool) -> None:
    features, cam = tiles()
    refined, entropy = region_self_attention(features, cam, kernel, temperature=0.7, center=center)
    expected, expected_entropy = slow(features, cam, kernel, 0.7, center)
    torch.testing.assert_close(refined, expected, rtol=1e-4, atol=1e-4)
    assert entropy.item() == pytest.approx(expected_entropy, abs=1e-4)


def test_relu_cosine_is_seams_pcm_without_its_embedding() -> None:
    arrays = reference("seam_pcm")
    refined, _ = region_self_attention(arrays["f_id"], arrays["cam_id"], kernel="relu_cosine")
    torch.testing.assert_close(refined, arrays["cam_rv_id"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_sum_to_one_so_a_constant_cam_is_unmoved(kernel: Kernel) -> None:
    features, _ = tiles()
    constant = torch.full((2, 2, 3, 4), 3.0)
    refined, _ = region_self_attention(features, constant, kernel)
    torch.testing.assert_close(refined, constant, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", ["exp_dot", "exp_cosine"])
def test_a_tiny_temperature_keeps_each_position_to_itself(kernel: Kernel) -> None:
    features = torch.eye(12).view(1, 12, 3, 4)
    cam = torch.rand(1, 2, 3, 4)
    refined, entropy = region_self_attention(features, cam, kernel, temperature=1e-3)
    torch.testing.assert_close(refined, cam)
    assert entropy.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_constant_features_give_the_plain_mean(kernel: Kernel) -> None:
    cam = torch.rand(1, 2, 3, 4)
    refined, entropy = region_self_attention(torch.ones(1, 5, 3, 4), cam, kernel)
    torch.testing.assert_close(refined, cam.mean((2, 3), keepdim=True).expand_as(cam), rtol=1e-4, atol=1e-4)
    assert entropy.item() == pytest.approx(1, abs=1e-4)


def test_entropy_of_a_single_position_is_zero() -> None:
    refined, entropy = region_self_attention(torch.rand(2, 5, 1, 1), torch.ones(2, 3, 1, 1))
    assert entropy.item() == 0
    torch.testing.assert_close(refined, torch.ones(2, 3, 1, 1))


@pytest.mark.parametrize("kernel", KERNELS)
def test_centred_attention_does_not_see_what_all_positions_share(kernel: Kernel) -> None:
    features, cam = tiles()
    shared = torch.randn(2, 5, 1, 1)
    before, _ = region_self_attention(features, cam, kernel, center=True)
    after, _ = region_self_attention(features + shared, cam, kernel, center=True)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_without_centring_the_shared_part_counts() -> None:
    features, cam = tiles()
    before, _ = region_self_attention(features, cam)
    after, _ = region_self_attention(features + 10, cam)
    assert not torch.allclose(after, before, atol=1e-2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_tiles_do_not_see_each_other(kernel: Kernel) -> None:
    features, cam = tiles()
    both, _ = region_self_attention(features, cam, kernel)
    alone, _ = region_self_attention(features[:1], cam[:1], kernel)
    torch.testing.assert_close(both[:1], alone)


@pytest.mark.parametrize("kernel", KERNELS)
def test_permuted_positions_give_the_same_cam_permuted(kernel: Kernel) -> None:
    features, cam = tiles()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))

    def permuted(x: Tensor) -> Tensor:
        return x.flatten(2)[..., order].view_as(x)

    refined, entropy = region_self_attention(features, cam, kernel)
    other, other_entropy = region_self_attention(permuted(features), permuted(cam), kernel)
    torch.testing.assert_close(other, permuted(refined))
    torch.testing.assert_close(other_entropy, entropy)


@pytest.mark.parametrize("detach", [False, True])
def test_detach_stops_the_gradient_through_the_affinity(detach: bool) -> None:
    features, cam = (x.requires_grad_() for x in tiles())
    refined, _ = region_self_attention(features, cam, detach=detach)
    refined.square().sum().backward()
    assert cam.grad is not None
    assert cam.grad.abs().sum() > 0
    assert (features.grad is None) == detach


def test_entropy_carries_no_gradient() -> None:
    features, cam = (x.requires_grad_() for x in tiles())
    assert not region_self_attention(features, cam)[1].requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel", KERNELS)
def test_value_and_gradient_are_finite_for_features_of_hundreds_in_norm(kernel: Kernel, dtype: torch.dtype) -> None:
    features, cam = tiles()
    features = (200 * features).relu().to(dtype).requires_grad_()
    cam = cam.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined, entropy = region_self_attention(features, cam, kernel, temperature=1.0)
    refined.square().mean().backward()
    assert refined.dtype == torch.float32
    assert all(torch.isfinite(x).all() for x in (refined, entropy, features.grad, cam.grad) if x is not None)
    assert features.grad is not None
    assert cam.grad is not None


def test_autocast_does_not_round_the_affinity() -> None:
    features, cam = tiles()
    expected, _ = region_self_attention(features, cam, temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined, _ = region_self_attention(features, cam, temperature=0.01)
    assert torch.equal(refined, expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_dead_features_give_a_finite_gradient(kernel: Kernel) -> None:
    features, cam = torch.zeros(1, 5, 3, 4, requires_grad=True), torch.rand(1, 2, 3, 4)
    refined, _ = region_self_attention(features, cam, kernel)
    refined.square().sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_that_are_computed_apart_give_the_same(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    features, cam = tiles()
    expected, entropy = region_self_attention(features, cam, kernel)
    monkeypatch.setattr(attention, "ROWS", 5)  # of 12
    found, found_entropy = region_self_attention(features, cam, kernel)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_entropy, entropy)


@pytest.mark.parametrize("rows", [1024, 5])
def test_the_affinity_of_a_network_is_applied_as_it_is_with_rows_that_sum_to_one(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "ROWS", rows)  # of 12
    affinity, (_, cam) = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(0)), tiles()
    guide = affinity.mT.unflatten(2, (3, 4))  # channel q at position p is A_pq
    refined, entropy = Attention("network", temperature=7.0, center=True).refine(guide, cam)
    shares = affinity / affinity.sum(2, keepdim=True)
    expected = torch.stack([shares[n] @ cam[n].flatten(1).T for n in range(2)]).mT.view_as(cam)
    torch.testing.assert_close(refined, expected)
    assert entropy.item() == pytest.approx(-(shares * shares.log()).sum(2).mean().item() / math.log(12), abs=1e-5)


def test_positions_that_a_network_looks_at_nowhere_are_zero_and_finite() -> None:
    guide = torch.zeros(2, 12, 3, 4, requires_grad=True)
    refined, _ = Attention("network").refine(guide, tiles()[1])
    refined.sum().backward()
    assert refined.abs().sum() == 0
    assert guide.grad is not None
    assert torch.isfinite(guide.grad).all()


def test_the_kernel_of_a_network_takes_blocks_and_no_other_tile() -> None:
    assert Attention("network").blocks == ()
    assert Attention("network", layer="blocks.1").blocks == ("blocks.1",)
    assert Attention("network", layer=("blocks.1", "blocks.2")).blocks == ("blocks.1", "blocks.2")
    with pytest.raises(InputError, match="region is image; the network's own attention does not reach other tiles"):
        Attention("network", region="image")


def test_the_other_kernels_take_one_layer() -> None:
    with pytest.raises(InputError, match=r"layer is \['a', 'b'\]; expected one name for the kernel relu_cosine"):
        Attention("relu_cosine", layer=("a", "b"))


def test_an_unknown_kernel_is_named() -> None:
    with pytest.raises(ValueError, match="'dot'.*exp_dot"):
        region_self_attention(*tiles(), kernel="dot")  # type: ignore[arg-type]
