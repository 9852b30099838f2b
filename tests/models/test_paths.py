import math

import pytest
import torch
from torch import Tensor

from tag2mask.classes import IGNORE
from tag2mask.models.paths import _paths as paths_of
from tag2mask.models.paths import directions, pair_affinity, pair_labels
from tests.arrays import reference

CASES = [(5, 8, 12), (5, 5, 9), (4, 9, 8), (3, 3, 9), (3, 7, 5), (2, 2, 3), (2, 6, 4)]
"""Radius, height and width of maps that have at least one source."""


def smooth(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def paths(radius: int) -> list[Tensor]:
    """Paths as offsets from the source, those of one length together: (paths, L, 2) each."""
    lengths = sorted({len(path) for path in paths_of(radius)})
    return [torch.tensor([path for path in paths_of(radius) if len(path) == length]) for length in lengths]


def between(dy: int, dx: int) -> list[tuple[int, int]]:
    """Positions nearer than 1 to the line from (0, 0) to (dy, dx), within its box."""
    rows, columns = range(dy + 1), range(min(0, dx), max(0, dx) + 1)
    return [(y, x) for y in rows for x in columns if abs(dy * x - dx * y) / math.hypot(dy, dx) < 1]


def slow_affinity(edge: Tensor, radius: int) -> Tensor:
    """Affinities of one map (h, w), pair by pair, with a gradient."""
    height, width = edge.shape
    found = []
    for dy, dx in directions(radius).tolist():
        for row in range(height - radius + 1):
            for column in range(radius - 1, width - radius + 1):
                along = [edge[row + y, column + x] for y, x in between(dy, dx)]
                found.append(1 - torch.stack(along).max())
    return torch.stack(found).view(len(directions(radius)), -1)


def slow_labels(label: Tensor, radius: int) -> list[list[bool]]:
    """Background, foreground and negative, pair by pair, of one map (h, w)."""
    height, width = label.shape
    kinds: list[list[bool]] = [[], [], []]
    for dy, dx in directions(radius).tolist():
        for row in range(height - radius + 1):
            for column in range(radius - 1, width - radius + 1):
                a, b = int(label[row, column]), int(label[row + dy, column + dx])
                known = a != IGNORE and b != IGNORE
                kinds[0].append(known and a == b == 0)
                kinds[1].append(known and a == b != 0)
                kinds[2].append(known and a != b)
    return kinds


def test_pairs_and_paths_are_irns_in_its_order() -> None:
    arrays = reference("irn_path_affinity_r5")
    width = int(arrays["size"][1])
    source = arrays["src_indices"].long()
    assert torch.equal(directions(5), arrays["search_dst"].long())
    found = paths(5)
    assert len(found) == int(arrays["n_len"])
    for number, offsets in enumerate(found):
        places = (offsets[..., 0] * width + offsets[..., 1])[..., None] + source
        assert torch.equal(places, arrays[f"path_indices_{number}"].long())


def test_affinities_are_irns() -> None:
    arrays = reference("irn_path_affinity_r5")
    assert torch.equal(pair_affinity(arrays["edge"][None], 5), arrays["aff"])


def test_labels_of_pairs_are_irns() -> None:
    arrays = reference("irn_path_affinity_r5")
    for ours, name in zip(pair_labels(arrays["seg"], 5), ("bg_pos", "fg_pos", "neg"), strict=True):
        assert torch.equal(ours, arrays[name])


@pytest.mark.parametrize("radius", [1, 2, 3, 5, 10])
def test_directions_reach_half_of_the_disc_once(radius: int) -> None:
    found = {tuple(offset) for offset in directions(radius).tolist()}
    reach = range(-radius, radius + 1)
    disc = {(dy, dx) for dy in reach for dx in reach if 0 < dy**2 + dx**2 < radius**2}
    opposite = {(-dy, -dx) for dy, dx in found}
    assert len(found) == len(directions(radius))
    assert found | opposite == disc
    assert not found & opposite
    assert all(dy >= 0 for dy, _ in found)


@pytest.mark.parametrize("radius", [2, 5, 10])
def test_paths_run_from_the_destination_to_the_source(radius: int) -> None:
    found = paths(radius)
    assert torch.equal(torch.cat([group[:, 0] for group in found]), directions(radius))
    assert all((group[:, -1] == 0).all() for group in found)
    for path in (path for group in found for path in group.tolist()):
        assert {tuple(place) for place in path} == set(between(*path[0]))


@pytest.mark.parametrize(("radius", "height", "width"), CASES)
def test_affinity_and_its_gradient_equal_a_slow_loop(radius: int, height: int, width: int) -> None:
    edge = smooth(height, width).requires_grad_()
    found, expected = pair_affinity(edge, radius), slow_affinity(edge, radius)
    assert torch.equal(found, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((x * weights).sum(), edge)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize(("radius", "height", "width"), CASES)
def test_labels_of_pairs_equal_a_slow_loop(radius: int, height: int, width: int, dtype: torch.dtype) -> None:
    values = torch.tensor([0, 0, 3, 90, IGNORE])
    label = values[(smooth(height, width) * len(values)).long()].to(dtype)
    for ours, expected in zip(pair_labels(label, radius), slow_labels(label, radius), strict=True):
        assert ours.flatten().tolist() == expected


def test_labels_of_pairs_exclude_each_other_and_leave_out_what_is_ignored() -> None:
    label = torch.tensor([0, 1, 2])[(smooth(2, 8, 12) * 3).long()]
    assert (torch.stack(pair_labels(label, 4)).sum(0) == 1).all()
    label[0] = IGNORE
    kinds = pair_labels(label, 4)
    assert not any(kind[0].any() for kind in kinds)
    assert (torch.stack(kinds).sum(0)[1] == 1).all()


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_maps_of_a_batch_do_not_see_each_other(lead: tuple[int, ...]) -> None:
    edge, label = smooth(*lead, 7, 9), (smooth(*lead, 7, 9) * 3).long()
    found, kinds = pair_affinity(edge, 3), pair_labels(label, 3)
    assert found.shape == (*lead, len(directions(3)), 5 * 5)
    alone = torch.stack([pair_affinity(one, 3) for one in edge.view(-1, 7, 9)])
    assert torch.equal(found.flatten(0, -3) if lead else found[None], alone)
    for number, kind in enumerate(kinds):
        alone = torch.stack([pair_labels(one, 3)[number] for one in label.view(-1, 7, 9)])
        assert torch.equal(kind.flatten(0, -3) if lead else kind[None], alone)


def test_a_wall_parts_both_sides_also_across_its_corners() -> None:
    edge = torch.eye(9)  # a diagonal wall, one position thick
    inside = torch.ones(9, 9, dtype=torch.int64).triu()  # one side of it
    _, _, across = pair_labels(inside, 4)
    assert across.any()
    assert (pair_affinity(edge, 4)[across] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_give_float32_and_a_gradient(dtype: torch.dtype) -> None:
    edge = smooth(6, 8).to(dtype).requires_grad_()
    found = pair_affinity(edge, 3)
    assert found.dtype == torch.float32
    assert torch.equal(found, pair_affinity(edge.detach().float(), 3))
    found.sum().backward()
    assert edge.grad is not None
    assert edge.grad.sum().item() == -found.numel()  # each pair pulls at one position


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (4, 20), (20, 8), (3, 3)])
def test_a_map_smaller_than_the_radius_has_no_sources(size: tuple[int, int]) -> None:
    edge = smooth(2, *size).requires_grad_()
    found = pair_affinity(edge, 5)
    assert found.shape == (2, 34, 0)
    assert all(kind.shape == (2, 34, 0) for kind in pair_labels(torch.zeros(2, *size, dtype=torch.uint8), 5))
    found.sum().backward()
    assert edge.grad is not None
    assert not edge.grad.any()


def test_radius_one_pairs_nothing() -> None:
    assert paths(1) == []
    assert pair_affinity(smooth(2, 4, 5), 1).shape == (2, 0, 20)
    assert all(kind.shape == (2, 0, 20) for kind in pair_labels(torch.zeros(2, 4, 5, dtype=torch.uint8), 1))


@pytest.mark.parametrize("radius", [0, -1])
def test_a_radius_below_one_is_refused(radius: int) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        directions(radius)
