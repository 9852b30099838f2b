import numpy as np
import pytest

from tag2mask.classes import IGNORE
from tag2mask.metrics.objects import ObjectScore, by_size, confusion_shares, cooccurrence, object_scores


def strip(text: str) -> np.ndarray:
    """Mask values of one row of pixels: digits, or ``x`` for ``IGNORE``."""
    return np.array([[IGNORE if letter == "x" else int(letter) for letter in text]], np.uint8)


@pytest.mark.parametrize(
    ("label", "truth", "expected"),
    [
        ("0110", "0110", [(1, 2 / 4, 1, 1)]),
        ("0111000", "0011110", [(1, 4 / 7, 2 / 4, 2 / 5)]),
        ("0220", "0110", [(1, 2 / 4, 0, 0)]),
        ("1100110", "1100000", [(1, 2 / 7, 1, 1)]),  # a region apart is no part of the object's
        ("11111", "11011", [(1, 2 / 5, 1, 2 / 3), (1, 2 / 5, 1, 2 / 3)]),  # what is of the other one is no fault
        ("1111", "11x0", [(1, 2 / 4, 1, 1)]),  # nothing is scored there, and nothing joined through it
        ("110220", "110222", [(1, 2 / 6, 1, 1), (2, 3 / 6, 2 / 3, 2 / 3)]),
        ("11", "00", []),
    ],
)
def test_objects_by_hand(label: str, truth: str, expected: list[tuple[float, ...]]) -> None:
    found = object_scores(strip(label), strip(truth))
    assert [tuple(scored) for scored in found] == [pytest.approx(each) for each in expected]


def test_pixels_that_touch_by_a_corner_are_one_object() -> None:
    corner = np.eye(2, dtype=np.uint8)
    assert len(object_scores(corner, corner)) == 1


def test_maps_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(1, 3\)"):
        object_scores(strip("00"), strip("000"))


def test_groups_rise_in_size_and_hold_every_object_once() -> None:
    objects = [
        ObjectScore(1, share / 10, recall, share / 20)
        for share, recall in ((5, 1), (1, 0), (3, 0.2), (2, 0.05), (4, 1))
    ]
    small, large = by_size(objects, groups=2)
    assert (small.low, small.high, small.objects, small.missed) == (0.1, 0.2, 2, 1.0)
    assert (large.low, large.high, large.objects, large.missed) == (0.3, 0.5, 3, 0.0)
    assert (small.iou, large.iou) == pytest.approx((0.075, 0.2))
    assert by_size(objects, groups=2, least=0.3)[1].missed == pytest.approx(1 / 3)


def test_few_objects_make_few_groups() -> None:
    assert [group.objects for group in by_size([ObjectScore(1, 0.1, 1, 1)] * 2, groups=4)] == [1, 1]
    assert by_size([]) == []


def test_what_became_of_the_pixels_of_each_class() -> None:
    shares = confusion_shares(np.array([[3, 1, 0], [1, 1, 2], [0, 0, 0]]))
    np.testing.assert_array_equal(shares, [[0.75, 0.25, 0], [0.25, 0.25, 0.5], [np.nan] * 3])


def test_tags_that_come_together() -> None:
    shares = cooccurrence([(1, 2), (1,), (1, 2), (2,), ()], num_classes=3)
    np.testing.assert_allclose(shares, [[1, 2 / 3, 0], [2 / 3, 1, 0], [np.nan] * 3])
