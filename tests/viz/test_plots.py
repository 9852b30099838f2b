"""Pictures are arrays of the right shape and colours; letters that no font has are told apart all the same."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tag2mask.viz import plots

GREY = np.full((40, 60, 3), 100, np.uint8)


def test_a_change_is_orange_where_it_grew_and_blue_where_it_shrank() -> None:
    change = np.zeros((4, 6))
    change[0, 0], change[3, 5] = 2.0, -1.0
    drawn = plots.difference(GREY, change, strength=1.0)
    assert drawn[0, 0] == pytest.approx(np.array(to_rgb(plots.ORANGE)) * 255, abs=1)
    assert drawn[-1, -1] == pytest.approx(50 + np.array(to_rgb(plots.BLUE)) * 127.5, abs=1)  # half as strong
    assert (drawn[0, -1] == 100).all()


def test_no_change_leaves_the_photograph_in_grey() -> None:
    colourful = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    drawn = plots.difference(colourful, np.zeros((2, 2)))
    assert drawn[..., 0] == pytest.approx(colourful.mean(2), abs=1)
    assert (np.ptp(drawn, axis=2) == 0).all()


@pytest.mark.parametrize("at", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_a_point_is_marked_within_the_photograph(at: tuple[float, float]) -> None:
    weights = np.ones((2, 3)) / 6
    drawn = plots.attended(GREY, weights, at)
    assert drawn.shape == GREY.shape
    assert (drawn[min(int(40 * at[1]), 39), min(int(60 * at[0]), 59)] == 255).all()


def test_what_a_point_does_not_look_at_is_grey() -> None:
    green = np.zeros((40, 60, 3), np.uint8)
    green[..., 1] = 90
    drawn = plots.attended(green, np.array([[0.0, 1.0]]), (1, 1))
    assert (drawn[:, :30] == 30).all()
    assert (np.ptp(drawn[:30, 30:], axis=2) > 0).all()


def test_weights_of_any_scale_look_alike() -> None:
    weights = np.random.default_rng(0).random((4, 6))
    np.testing.assert_array_equal(plots.attended(GREY, weights, (0, 0)), plots.attended(GREY, weights / 1000, (0, 0)))


def test_a_gallery_breaks_into_rows() -> None:
    one = plots.row([("a", GREY)], height=1)
    both = plots.gallery([("a", GREY)] * 3, columns=2, height=1)
    assert both.shape[0] == 2 * one.shape[0]
    assert (both[one.shape[0] :, one.shape[1] + 20 :] == 255).all()  # the last row has one picture only


def test_a_long_title_is_broken_and_not_cut() -> None:
    short, long = (plots.row([(title, GREY)], height=1) for title in ("a", "a title that is wider than its picture"))
    assert long.shape[0] > short.shape[0]
    assert (long[0] == 255).all()  # pixels above the letters
    assert (long[:, 0] == 255).all()


def test_the_key_shows_every_colour() -> None:
    drawn = plots.key({1: "cat", 2: "dog", 255: "undecided"}, columns=2)
    for value in (1, 2, 255):
        assert (drawn == plots.label_colours(np.array([[value]]))[0, 0]).all(2).any()


NAN = float("nan")


@pytest.mark.parametrize(
    "draw",
    [
        lambda name: plots.row([(name, GREY)]),
        lambda name: plots.key({1: name}),
        lambda name: plots.lines([0, 1], {name: [0.2, NAN]}, across=name, up=name, mark=0.5),
        lambda name: plots.bars([name, "b"], {"x": [0.1, NAN], name: [1.0, 2.0]}, title=name),
        lambda name: plots.matrix(np.array([[0.1, NAN]]), [name], [name, "b"], title=name),
    ],
)
def test_names_of_any_letters_are_drawn_and_told_apart(draw: Callable[[str], np.ndarray]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where it draws a box for a letter
        cat, dog = draw("猫"), draw("狗")
        price, line = draw("$5 or 5$_a$"), draw("first\nsecond")
    assert cat.dtype == np.uint8
    assert cat.shape[2] == 3
    assert cat.shape != dog.shape or (cat != dog).any()
    assert price.std() > 0
    assert line.std() > 0


def test_a_letter_is_taken_from_another_font_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = "\u1d81"  # in STIX, which matplotlib brings, and not in DejaVu
    numbered = plots.row([(letter, GREY)])
    monkeypatch.setattr(plots, "FONTS", ["DejaVu Sans", "STIXGeneral"])
    drawn = plots.row([(letter, GREY)])
    assert (drawn == 255).all(2).sum() > (numbered == 255).all(2).sum()  # one letter in place of ``\\u1d81``
