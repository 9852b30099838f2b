"""Masks beside the tags of their photographs."""

from pathlib import Path

import numpy as np
import pytest

from tag2mask.data import photos
from tag2mask.data.photos import Photo, Shown, check_sampled_tags, check_tags
from tag2mask.errors import InputError
from tag2mask.io.labels import write_label

NAMES = ("cat", "dog")


def masks(count: int, wrong: int, untagged: int = 0) -> list[Shown]:
    """Masks of cats, of which the last ``wrong`` photographs are tagged as dogs, and more without tags."""
    tags = [(1,)] * (count - wrong) + [(2,)] * wrong + [None] * untagged
    return [Shown(Photo(f"p{i}", Path(f"p{i}.jpg"), tag), Path(f"m{i}.png"), (1,)) for i, tag in enumerate(tags)]


@pytest.mark.parametrize(
    ("count", "wrong", "refused"),
    [(1, 1, True), (2, 1, False), (2, 2, True), (3, 2, True), (40, 3, False), (40, 4, True), (200, 10, False)],
)
def test_more_than_a_few_masks_that_differ_from_the_tags_are_refused(count: int, wrong: int, refused: bool) -> None:
    if not refused:
        check_tags(masks(count, wrong, untagged=50), NAMES)
        return
    with pytest.raises(
        InputError, match=rf"{wrong} of {count} masks show .* p{count - wrong}: tags dog; mask m\d+.png cat"
    ):
        check_tags(masks(count, wrong, untagged=50), NAMES)


def test_a_tag_without_a_pixel_and_a_photograph_without_tags_are_no_fault() -> None:
    shown = Shown(Photo("a", Path("a.jpg"), (1, 2)), Path("a.png"), (2,))
    assert (shown.untagged, shown.unseen) == (False, True)
    shown = Shown(Photo("a", Path("a.jpg"), None), Path("a.png"), (2,))
    assert (shown.untagged, shown.unseen) == (False, False)


def test_a_value_of_no_class_and_an_empty_field_are_said() -> None:
    shown = Shown(Photo("a", Path("a.jpg"), ()), Path("a.png"), (2, 9))
    assert shown.in_words(NAMES) == "a: tags none of the classes; mask a.png dog, value 9"


@pytest.mark.parametrize(("count", "opened"), [(3, 3), (10, 10), (11, 6), (1000, 10)])
def test_a_sample_is_evenly_spaced(count: int, opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_label(tmp_path / "cat.png", np.array([[0, 1, 255]]))
    seen = []

    def look(photo: Photo, mask: Path) -> Shown:
        seen.append(int(photo.name))
        return Shown(photo, mask, (1,))

    monkeypatch.setattr(photos, "shown", look)
    check_sampled_tags(
        [(Photo(str(i), Path("a.jpg"), (1,)), tmp_path / "cat.png") for i in range(count)], NAMES, most=10
    )
    assert len(seen) == opened
    assert set(np.diff(seen)) == {seen[1] - seen[0]}


def test_a_sample_of_masks_is_compared_with_the_tags(tmp_path: Path) -> None:
    write_label(tmp_path / "cat.png", np.array([[0, 1, 255]]))
    pairs = [(Photo(str(i), Path("a.jpg"), tags), tmp_path / "cat.png") for i, tags in enumerate([(2,)] * 9 + [None])]
    with pytest.raises(InputError, match="9 of 9 masks show a class .* the first of 0: tags dog"):
        check_sampled_tags(pairs, NAMES)
    check_sampled_tags([(photo, mask) for photo, mask in pairs if photo.tags is None], NAMES)
