import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tag2mask.errors import SettingError
from tag2mask.refine import permutohedral
from tag2mask.refine.permutohedral import build


def points(count: int = 200, dimensions: int = 3, spread: float = 2.0, seed: int = 0) -> Tensor:
    """Scattered points, (P, D)."""
    return spread * torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def values(count: int = 200, channels: int = 4, seed: int = 1) -> Tensor:
    return torch.rand(count, channels, generator=torch.Generator().manual_seed(seed))


def grid(height: int, width: int, scale: float) -> Tensor:
    """Positions of pixels, (P, 2)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows], -1).flatten(0, 1) / scale


def slow_filter(features: Tensor, signal: Tensor) -> Tensor:
    """Splat, blur and slice with a dictionary of vertices, point by point, after the paper's pages 4 to 6."""
    dimensions = features.shape[1]
    axes = dimensions + 1
    weights = []
    for feature in features.double().tolist():
        scaled = [
            x * math.sqrt(2 / 3) * axes / math.sqrt((i + 1) * (i + 2)) for i, x in enumerate(feature)
        ]  # columns of E have unit length, times the standard deviation of the blur
        elevated = [sum(scaled[i:]) - (i * scaled[i - 1] if i else 0) for i in range(axes)]
        weights.append(_barycentric(elevated))
    lattice: dict[tuple[int, ...], Tensor] = {}
    for simplex in weights:
        for vertex in simplex:
            lattice[vertex] = torch.zeros(signal.shape[1], dtype=torch.float64)
    for simplex, value in zip(weights, signal.double(), strict=True):
        for vertex, weight in simplex.items():
            lattice[vertex] += weight * value
    for axis in range(axes):
        step = [1 - axes * (i == axis) for i in range(axes)]
        nothing = torch.zeros(signal.shape[1], dtype=torch.float64)
        lattice = {
            vertex: old
            + sum(
                lattice.get(tuple(v + sign * s for v, s in zip(vertex, step, strict=True)), nothing) for sign in (1, -1)
            )
            / 2
            for vertex, old in lattice.items()
        }
    return torch.stack(
        [sum(weight * lattice[vertex] for vertex, weight in simplex.items()) for simplex in weights]  # type: ignore[misc]
    ) / (1 + 2.0**-dimensions)


def _barycentric(elevated: list[float]) -> dict[tuple[int, ...], float]:
    """The simplex around a point and its weights, by walking from the vertex of remainder 0 below the point.

    The largest number of cells that fit below every coordinate, then one step along the axis that is farthest behind
    at a time: another way than rounding and ranking, to the same simplex.
    """
    axes = len(elevated)
    below = [math.floor(x / axes) * axes for x in elevated]
    rest = sorted(range(axes), key=lambda i: elevated[i] - below[i], reverse=True)
    for i in rest[: -sum(below) // axes]:  # bring the corner onto the plane, then it has remainder 0
        below[i] += axes
    ahead = sorted(range(axes), key=lambda i: elevated[i] - below[i], reverse=True)
    distance = [(elevated[i] - below[i]) / axes for i in ahead]
    vertices = {}
    for remainder in range(axes):
        wrapped = ahead[axes - remainder :]
        vertex = tuple(b + remainder - axes * (i in wrapped) for i, b in enumerate(below))
        if remainder == 0:
            vertices[vertex] = 1 - (distance[0] - distance[-1])
        else:
            vertices[vertex] = distance[axes - 1 - remainder] - distance[axes - remainder]
    return vertices


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_filter_equals_a_slow_dictionary(dimensions: int) -> None:
    features, signal = points(60, dimensions), values(60)
    torch.testing.assert_close(
        build(features).filter(signal), slow_filter(features, signal).float(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
def test_vertices_of_a_small_cloud_are_not_taken_for_each_other(spread: float, dimensions: int) -> None:
    features, signal = points(60, dimensions, spread) + 0.3, values(60)
    torch.testing.assert_close(
        build(features).filter(signal), slow_filter(features, signal).float(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_weights_put_each_point_back_where_it_is(dimensions: int) -> None:
    features = points(500, dimensions)
    corner, rank, weight = permutohedral._simplex(features.T.contiguous())
    assert weight.min() >= -1e-5
    torch.testing.assert_close(weight.sum(1), torch.ones(500), rtol=0, atol=1e-5)
    axes = dimensions + 1
    place = torch.zeros(axes, 500)
    for remainder in range(axes):
        vertex = corner + remainder - axes * (rank > dimensions - remainder)
        assert torch.equal(vertex.sum(0), torch.zeros(500))
        assert ((vertex - remainder) % axes == 0).all()
        place += weight[:, remainder] * vertex
    torch.testing.assert_close(place, permutohedral._elevate(features.T.contiguous()), rtol=1e-4, atol=1e-4)


def photograph(height: int = 24, width: int = 30) -> tuple[Tensor, Tensor]:
    """Features of a smooth picture with one edge, (P, 5), and values that follow neither, (P, 3)."""
    place = grid(height, width, 1.0)
    left = (place[:, :1] < 13).float()
    colour = torch.cat([60 * left + 2 * place[:, :1], 60 * left + 3 * place[:, 1:], 60 * left], 1)
    signal = torch.stack([place[:, 0] > 15, (place - 12).square().sum(1) < 40, place[:, 1] % 2 == 0], 1)
    return torch.cat([place / 6, colour / 20], 1), signal.float()


def normalised(kernel: Tensor) -> Tensor:
    """Divided by the square roots of its row sums on both sides."""
    norm = kernel.sum(1).rsqrt()
    return norm[:, None] * kernel * norm


@pytest.mark.parametrize(("colours", "worst", "mean"), [(False, 0.05, 0.01), (True, 0.12, 0.02)])
def test_filter_is_near_the_gaussian_kernel(colours: bool, worst: float, mean: float) -> None:
    """Normalised, it is off by at most ``worst`` of the values' range, by ``mean`` on average: it approximates."""
    features, signal = photograph()
    features = features if colours else features[:, :2]
    exact = normalised(torch.exp(-torch.cdist(features, features).square() / 2)) @ signal
    error = (build(features).normalised().filter(signal) - exact).abs()
    assert error.max() < worst
    assert error.mean() < mean


def test_filter_does_not_cross_an_edge_of_colour() -> None:
    features, _ = photograph()
    left = features[:, :1] < 13 / 6
    spilt = build(features).filter(left.float())[~left.squeeze(1)]
    assert spilt.max() < 0.01 * build(features[:, :2]).filter(left.float())[~left.squeeze(1)].max()


def test_filter_is_linear() -> None:
    lattice = build(points())
    a, b = values(seed=1), values(seed=2)
    torch.testing.assert_close(lattice.filter(2 * a - 3 * b), 2 * lattice.filter(a) - 3 * lattice.filter(b))


def test_channels_do_not_see_each_other() -> None:
    lattice, signal = build(points()), values(channels=7)
    for channel in range(7):
        torch.testing.assert_close(lattice.filter(signal[:, [channel]]), lattice.filter(signal)[:, [channel]])


def test_kernel_is_symmetric_but_for_the_order_of_the_blurs() -> None:
    lattice = build(points(80))
    other_way = replace(lattice, neighbours=lattice.neighbours.flip(0))
    kernel = lattice.filter(torch.eye(80))
    torch.testing.assert_close(other_way.filter(torch.eye(80)), kernel.T)
    assert not torch.allclose(kernel, kernel.T, atol=0.01)


def test_far_points_do_not_see_each_other() -> None:
    features = points(100, spread=0.3)
    features[50:] += 100
    kernel = build(features).filter(torch.eye(100))
    assert kernel[:50, :50].min() > 0
    assert torch.equal(kernel[:50, 50:], torch.zeros(50, 50))


def test_order_of_the_points_does_not_matter() -> None:
    features, signal = points(), values()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(build(features[order]).filter(signal[order]), build(features).filter(signal)[order])


def test_a_normalised_kernel_is_divided_by_its_row_sums_before_and_after() -> None:
    lattice, signal = build(points()), values()
    factor = lattice.filter(torch.ones(len(signal), 1)).rsqrt()
    torch.testing.assert_close(lattice.normalised().filter(signal), factor * lattice.filter(factor * signal))


@pytest.mark.parametrize("count", [1, 2])
def test_one_point_and_equal_points(count: int) -> None:
    lattice = build(torch.full((count, 5), 7.3))
    signal = values(count)
    torch.testing.assert_close(
        lattice.filter(signal), (signal.sum(0) * lattice.filter(torch.eye(count))[0, 0]).expand(count, 4)
    )


def test_half_precision_is_filtered_in_single() -> None:
    features, signal = points().half(), values().half()
    assert torch.equal(build(features).filter(signal), build(features.float()).filter(signal.float()))


def test_a_kernel_too_narrow_to_number_is_refused() -> None:
    with pytest.raises(SettingError, match=r"lattice cells.*raise sxy or srgb"):
        build(points(10, 5, spread=1e6))
