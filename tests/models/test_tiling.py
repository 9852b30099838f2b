import pytest
import torch

from tag2mask.models.tiling import by_image, enlargement, pad_to_multiple, tile, untile
from tests.arrays import reference


@pytest.mark.parametrize(("grid", "key"), [(2, "tiles4"), (4, "tiles16")])
def test_tile_equals_puzzle_cam(grid: int, key: str) -> None:
    arrays = reference("puzzle_tile_merge")
    assert torch.equal(tile(arrays["x"], grid), arrays[key])


@pytest.mark.parametrize(("grid", "key"), [(2, "tiles4"), (4, "tiles16")])
def test_untile_puts_puzzle_cams_pieces_together(grid: int, key: str) -> None:
    arrays = reference("puzzle_tile_merge")
    assert torch.equal(untile(arrays[key], grid), arrays["x"])


@pytest.mark.parametrize("grid", [1, 2, 3, 4])
def test_untile_undoes_tile(grid: int) -> None:
    images = torch.rand(3, 2, 12, 24)
    assert torch.equal(untile(tile(images, grid), grid), images)


def test_untile_undoes_tile_for_channels_last() -> None:
    images = torch.rand(3, 2, 8, 12).to(memory_format=torch.channels_last)
    assert torch.equal(untile(tile(images)), images)


def test_tiles_are_cut_row_by_row_and_the_first_of_every_image_comes_first() -> None:
    images = torch.stack([torch.arange(4.0), torch.arange(4.0) + 10]).view(2, 1, 2, 2)
    assert tile(images, 2).flatten().tolist() == [0, 10, 1, 11, 2, 12, 3, 13]


def test_by_image_gathers_the_tiles_of_each_image() -> None:
    images = torch.rand(3, 2, 8, 12)
    sorted_tiles = by_image(tile(images, 2), 2)
    for image, tiles in zip(images, sorted_tiles, strict=True):
        assert torch.equal(tiles, tile(image[None], 2))


def test_by_image_takes_vectors_too() -> None:
    assert by_image(torch.arange(8), 2).tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


@pytest.mark.parametrize(("size", "padded"), [((5, 9), (8, 12)), ((8, 4), (8, 4)), ((1, 1), (4, 4))])
def test_pad_to_multiple_adds_zeros_on_the_right_and_below(size: tuple[int, int], padded: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size) + 1
    result = pad_to_multiple(image, 4)
    assert result.shape == (2, 3, *padded)
    assert torch.equal(result[..., : size[0], : size[1]], image)
    assert result.sum() == pytest.approx(image.sum().item())


@pytest.mark.parametrize("size", [(6, 9), (9, 6), (7, 7)])
def test_tile_refuses_what_it_cannot_cut_equally(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]}.*pad_to_multiple"):
        tile(torch.zeros(1, 1, *size), 2)


def test_untile_refuses_a_broken_set_of_tiles() -> None:
    with pytest.raises(ValueError, match="6 tiles"):
        untile(torch.zeros(6, 1, 2, 2), 2)


@pytest.mark.parametrize(
    ("size", "grid", "min_side", "factor"),
    [
        ((224, 448), 2, 224, 2),
        ((512, 512), 2, 224, 1),
        ((512, 512), 2, 256, 1),
        ((512, 512), 2, 257, 2),
        ((300, 300), 3, 224, 3),
        ((64, 64), 2, 224, 2),  # at most the size of the image
        ((64, 64), 2, 0, 1),
        ((64, 64), 1, 224, 1),
    ],
)
def test_a_tile_is_enlarged_until_its_shorter_side_has_the_pixels(
    size: tuple[int, int], grid: int, min_side: int, factor: int
) -> None:
    assert enlargement(size, grid, min_side) == factor
