"""Cutting images into tiles and putting maps of tiles together again.

Shape letters in this file: B images, C channels, H x W an image, g tiles on one side.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def tile(x: Tensor, grid: int = 2) -> Tensor:
    """Cut images (B, C, H, W), of sides that are multiples of ``grid``, into tiles: (g g B, C, H / g, W / g).

    All images' first tile, then all images' second, row by row, as in Puzzle-CAM.
    """
    b, c, h, w = x.shape
    if h % grid or w % grid:
        raise ValueError(f"cannot cut {h} x {w} into {grid} x {grid} equal tiles; pad it with pad_to_multiple first")
    cut = x.reshape(b, c, grid, h // grid, grid, w // grid)
    return cut.permute(2, 4, 0, 1, 3, 5).reshape(grid * grid * b, c, h // grid, w // grid)


def untile(x: Tensor, grid: int = 2) -> Tensor:
    """Put the tiles of `tile`, or maps of them, back in place: (g g B, C, H / g, W / g) -> (B, C, H, W)."""
    n, c, h, w = x.shape
    if n % (grid * grid):
        raise ValueError(f"{n} tiles are not a multiple of {grid} x {grid}")
    placed = x.reshape(grid, grid, n // (grid * grid), c, h, w)
    return placed.permute(2, 3, 0, 4, 1, 5).reshape(-1, c, grid * h, grid * w)


def by_image(x: Tensor, grid: int = 2) -> Tensor:
    """Sort tiles by image: (g g B, ...) in the order of `tile` -> (B, g g, ...)."""
    return x.reshape(grid * grid, -1, *x.shape[1:]).transpose(0, 1)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad images (B, C, H, W) with zeros on the right and below until both sides are multiples of ``multiple``."""
    h, w = x.shape[-2:]
    return F.pad(x, (0, -w % multiple, 0, -h % multiple))


def enlargement(size: Sequence[int], grid: int, min_side: int) -> int:
    """Return the smallest whole factor by which the shorter side of a tile reaches ``min_side`` pixels: 1 to ``grid``.

    ``size`` is the height and width of the image. A tile becomes at most as large as the image. A network that was
    pretrained on whole photographs recognises little in a tile of a hundred pixels.
    """
    return min(grid, max(1, -(-min_side // (min(size) // grid))))
