import math
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tag2mask.refine.random_walk import edge_transition, feature_transition, random_walk
from tag2mask.refine.recipes import EdgeWalk
from tests.arrays import reference

SIZES = [(6, 7), (1, 9), (9, 1), (2, 3), (3, 12), (1, 1)]
Place = tuple[int, int]


def maps(classes: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """CAM (K, h, w) and edges (h, w), both in [0, 1], few of the edges high."""
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(classes, height, width, generator=rng), torch.rand(height, width, generator=rng) ** 3


def edge_walk(
    cam: Tensor, edge: Tensor, radius: int = 5, beta: float = 10.0, steps: int = 256, damp: bool = True
) -> Tensor:
    """IRN's walk, whose code multiplies the CAM by 1 - edge first."""
    return random_walk(cam * (1 - edge) if damp else cam, edge_transition(edge, radius, beta), steps)


def feature_walk(cam: Tensor, features: Tensor, steps: int = 256) -> Tensor:
    return random_walk(cam, feature_transition(features), steps)


def slow(size: Place, radius: int, affinity: Callable[[Place, Place], float]) -> Tensor:
    """Matrix of the chances of a step, (N, N) float64, pair by pair."""
    places = [(y, x) for y in range(size[0]) for x in range(size[1])]
    matrix = torch.zeros(len(places), len(places), dtype=torch.float64)
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            if (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 < radius**2:
                matrix[i, j] = 1 if i == j else affinity(a, b)
    return matrix / matrix.sum(1, keepdim=True)


def by_edges(edge: Tensor, radius: int, beta: float) -> Tensor:
    """`slow` for edges (h, w)."""

    def affinity(a: Place, b: Place) -> float:
        (dy, dx), length = (b[0] - a[0], b[1] - a[1]), math.dist(a, b)
        rows, columns = (range(min(s, t), max(s, t) + 1) for s, t in zip(a, b, strict=True))
        near = [(y, x) for y in rows for x in columns if abs(dy * (x - a[1]) - dx * (y - a[0])) / length < 1]
        return float((1 - max(edge[y, x].item() for y, x in near)) ** beta)

    return slow((edge.shape[0], edge.shape[1]), radius, affinity)


def by_features(features: Tensor, radius: int, beta: float) -> Tensor:
    """`slow` for features (D, h, w)."""

    def affinity(a: Place, b: Place) -> float:
        return math.exp(-beta * (features[:, a[0], a[1]] - features[:, b[0], b[1]]).abs().mean().item())

    return slow((features.shape[1], features.shape[2]), radius, affinity)


def powered(matrix: Tensor, cam: Tensor, steps: int) -> Tensor:
    """Walk by the dense power of the matrix, as IRN does it, but in float64."""
    walked: Tensor = torch.linalg.matrix_power(matrix, steps) @ cam.double().flatten(1).T
    return walked.T.reshape(cam.shape).float()


@pytest.mark.parametrize(("radius", "beta"), [(5, 10.0), (3, 1.0), (2, 4.0), (1, 10.0)])
@pytest.mark.parametrize("size", SIZES)
def test_transition_equals_a_slow_loop(size: Place, radius: int, beta: float) -> None:
    _, edge = maps(1, *size)
    matrix = edge_transition(edge, radius, beta)
    torch.testing.assert_close(matrix.to_dense(), by_edges(edge, radius, beta), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(matrix.to_dense().sum(1), torch.ones(edge.numel(), dtype=torch.float64))


@pytest.mark.parametrize(("radius", "beta"), [(5, 8.0), (3, 1.0), (1, 8.0)])
@pytest.mark.parametrize("size", SIZES)
def test_transition_by_features_equals_a_slow_loop(size: Place, radius: int, beta: float) -> None:
    features = torch.randn(4, *size, generator=torch.Generator().manual_seed(0))
    matrix = feature_transition(features, radius, beta).to_dense()
    torch.testing.assert_close(matrix, by_features(features, radius, beta), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [0, 1, 2, 7, 256])
def test_walk_equals_the_power_of_a_dense_matrix(size: Place, steps: int) -> None:
    cam, edge = maps(3, *size)
    expected = powered(by_edges(edge, 4, 10.0), cam * (1 - edge), steps)
    torch.testing.assert_close(edge_walk(cam, edge, 4, 10.0, steps), expected, rtol=1e-5, atol=1e-6)


def test_walk_by_features_equals_the_power_of_a_dense_matrix() -> None:
    cam, _ = maps(3, 6, 7)
    features = torch.randn(4, 6, 7, generator=torch.Generator().manual_seed(0))
    expected = powered(by_features(features, 5, 8.0), cam, 256)
    torch.testing.assert_close(feature_walk(cam, features), expected, rtol=1e-5, atol=1e-6)


def test_walk_is_irns() -> None:
    arrays = reference("irn_propagate_small")
    cam, edge = arrays["cam"], arrays["edge"][0]
    walked = edge_walk(cam, edge, int(arrays["radius"]), float(arrays["beta"]), 2 ** int(arrays["exp_times"]))
    # IRN squares a float32 matrix eight times: its own result is 2.8e-5 off the exact one
    torch.testing.assert_close(walked, arrays["rw"][:, 0], rtol=0, atol=3e-5)
    expected = powered(by_edges(edge, 5, 10.0), cam * (1 - edge), 256)
    torch.testing.assert_close(walked, expected, rtol=1e-5, atol=1e-6)


def test_labels_after_the_walk_are_irns() -> None:
    arrays = reference("irn_propagate_small")
    height, width = arrays["crop"].tolist()
    walked = EdgeWalk("unused.ckpt").spread(arrays["cam"], arrays["edge"][0])
    large = F.interpolate(walked[None], scale_factor=4, mode="bilinear")[0, :, :height, :width]
    large = large / large.max()
    torch.testing.assert_close(large, arrays["rw_up_norm"], rtol=0, atol=1e-4)
    label = F.pad(large, (0, 0, 0, 0, 1, 0), value=0.25).argmax(0)
    assert torch.equal(label, arrays["pred"].long())


@pytest.mark.parametrize("steps", [1, 256, 3000])
def test_a_constant_is_unmoved_so_what_is_added_everywhere_stays(steps: int) -> None:
    cam, edge = maps(2, 8, 9)
    walked = edge_walk(cam, edge, steps=steps, damp=False)
    torch.testing.assert_close(edge_walk(cam + 0.5, edge, steps=steps, damp=False), walked + 0.5, rtol=0, atol=2e-6)
    features = torch.randn(4, 8, 9)
    walked = feature_walk(cam, features, steps=steps)
    torch.testing.assert_close(feature_walk(cam + 0.5, features, steps=steps), walked + 0.5, rtol=0, atol=2e-6)


def test_no_value_leaves_the_range_of_its_map() -> None:
    cam, edge = maps(4, 9, 10)
    cam = cam * torch.tensor([1.0, 5.0, -2.0, 0.0])[:, None, None]
    walked = edge_walk(cam, edge, damp=False)
    assert (walked.amax((1, 2)) <= cam.amax((1, 2)) + 1e-6).all()
    assert (walked.amin((1, 2)) >= cam.amin((1, 2)) - 1e-6).all()
    assert not walked[3].any()


def test_a_long_walk_without_edges_ends_at_the_mean_weighted_by_neighbours() -> None:
    cam, _ = maps(2, 5, 6)
    neighbours = (by_edges(torch.zeros(5, 6), 3, 1.0) > 0).sum(1).view(5, 6)
    mean = (cam * neighbours).sum((1, 2)) / neighbours.sum()
    walked = edge_walk(cam, torch.zeros(5, 6), radius=3, steps=2000)
    torch.testing.assert_close(walked, mean[:, None, None].expand(2, 5, 6), rtol=1e-5, atol=1e-6)


def test_a_step_keeps_the_sum_weighted_by_neighbours() -> None:
    cam, edge = maps(2, 7, 8)
    total = 1 / edge_transition(edge).to_dense().diagonal().view(7, 8)  # a position's affinity to itself is 1
    before, after = ((x * total).sum((1, 2)) for x in (cam, edge_walk(cam, edge, steps=256, damp=False)))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wall", ["column", "row", "diagonal"])
def test_nothing_passes_an_edge_of_one(wall: str) -> None:
    y, x = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    side = {"column": x - 4, "row": 4 - y, "diagonal": x - y}[wall]  # 0 on the wall, which is one position thick
    cam = torch.zeros(1, 9, 9)
    cam[0, 8, 0] = 1
    walked = edge_walk(cam, (side == 0).float())[0]
    assert (walked[side < 0] > 0).all()
    assert not walked[side >= 0].any()


def test_the_walk_of_a_mirrored_image_is_mirrored() -> None:
    cam, edge = maps(2, 7, 10)
    for dims in ([-1], [-2], [-1, -2]):
        torch.testing.assert_close(edge_walk(cam.flip(dims), edge.flip(dims)), edge_walk(cam, edge).flip(dims))


def test_constant_features_walk_as_if_there_were_no_edges() -> None:
    cam, _ = maps(2, 7, 10)
    walked = feature_walk(cam, torch.ones(3, 7, 10), steps=5)
    torch.testing.assert_close(walked, edge_walk(cam, torch.zeros(7, 10), steps=5))


def test_edges_damp_the_cam_first_and_the_highest_value_becomes_one() -> None:
    cam, edge = maps(2, 7, 10)
    damped = cam * (1 - edge)
    assert torch.equal(EdgeWalk("unused.ckpt", steps=0).spread(cam, edge), damped / damped.max())
    walked = edge_walk(damped, edge, damp=False)
    torch.testing.assert_close(EdgeWalk("unused.ckpt").spread(cam, edge), walked / walked.max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_walked_in_float32(dtype: torch.dtype) -> None:
    cam, edge = (x.to(dtype) for x in maps(2, 7, 10))
    walked = edge_walk(cam, edge, damp=False)
    assert walked.dtype == torch.float32
    assert torch.equal(walked, edge_walk(cam.float(), edge.float(), damp=False))
    features = torch.randn(3, 7, 10).to(dtype)
    assert torch.equal(feature_walk(cam, features), feature_walk(cam.float(), features.float()))


def test_edges_a_little_out_of_range_do_no_harm() -> None:
    cam, edge = maps(2, 7, 10)
    edge[3] = 1 + 1e-3
    assert torch.equal(
        edge_walk(cam, edge, beta=2.5, damp=False), edge_walk(cam, edge.clamp_max(1), beta=2.5, damp=False)
    )


def test_an_image_of_no_class_stays_one() -> None:
    cam, edge = maps(0, 7, 10)
    assert edge_walk(cam, edge).shape == (0, 7, 10)
    assert feature_walk(cam, torch.ones(3, 7, 10)).shape == (0, 7, 10)


def test_a_map_of_a_large_photograph() -> None:
    cam, edge = maps(1, 160, 160)
    walked = edge_walk(cam, edge)
    assert walked.std() < 0.5 * (cam * (1 - edge)).std()


def test_inputs_stay_as_they_are_without_gradient_or_warning() -> None:
    cam, edge = (x.requires_grad_() for x in maps(2, 7, 10))
    before = cam.clone(), edge.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        walked = edge_walk(cam, edge)
    with torch.inference_mode():
        assert torch.equal(edge_walk(cam, edge), walked)
    assert not walked.requires_grad
    assert torch.equal(cam, before[0])
    assert torch.equal(edge, before[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_walks_the_same_way() -> None:
    cam, edge = maps(3, 20, 30)
    walked = edge_walk(cam.cuda(), edge.cuda())
    assert walked.is_cuda
    torch.testing.assert_close(walked.cpu(), edge_walk(cam, edge), rtol=1e-5, atol=1e-6)


def test_maps_of_different_sizes_are_named() -> None:
    cam, edge = maps(2, 7, 10)
    with pytest.raises(ValueError, match=r"\(2, 7, 10\).* 63 positions"):
        edge_walk(cam, edge[:, :9], damp=False)
    with pytest.raises(ValueError, match=r"\(2, 7, 10\).* 63 positions"):
        feature_walk(cam, torch.ones(3, 7, 9))


def test_a_beta_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="beta is 0; expected a number above 0"):
        edge_transition(torch.zeros(3, 4), beta=0)
