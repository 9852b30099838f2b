"""The colours of mask values."""

import pytest

from tag2mask.classes import palette


@pytest.mark.parametrize(
    ("value", "colour"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (3, (128, 128, 0)),
        (8, (64, 0, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_palette_is_vocs(value: int, colour: tuple[int, int, int]) -> None:
    assert tuple(palette()[value].tolist()) == colour


def test_every_value_has_a_colour_of_its_own() -> None:
    assert len({tuple(colour) for colour in palette().tolist()}) == 256
