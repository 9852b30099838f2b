"""Masks beside the tags of their photographs."""

from pathlib import Path

import numpy as np
import pytest

from tag2mask.data import photos
from tag2mask.data.photos import Photo, check_sampled_tags, check_tags, compared
from tag2mask.errors import MismatchError
from tag2mask.io.labels import write_label

NAMES = ("cat", "dog")


def masks(count: int, wrong: int, untagged: int = 0) -> dict[Photo, set[int]]:
    """Masks of cats, of which the last ``wrong`` photographs are tagged as dogs, and more without tags."""
    tags = [(1,)] * (count - wrong) + [(2,)] * wrong + [None] * untagged
    return {Photo(f"p{i}", Path(f"p{i}.jpg"), tag, Path(f"m{i}.png")): {1} for i, tag in enumerate(tags)}


@pytest.mark.parametrize(
    ("count", "wrong", "refused"),
    [(1, 1, True), (2, 1, False), (2, 2, True), (3, 2, True), (40, 3, False), (40, 4, True), (200, 10, False)],
)
def test_more_than_a_few_masks_that_differ_from_the_tags_are_refused(count: int, wrong: int, refused: bool) -> None:
    if not refused:
        check_tags(masks(count, wrong, untagged=50), NAMES)
        return
    with pytest.raises(
        MismatchError, match=rf"{wrong} of {count} masks show .* p{count - wrong}: tags dog; mask m\d+.png cat"
    ):
        check_tags(masks(count, wrong, untagged=50), NAMES)


def test_a_tag_without_a_pixel_and_a_photograph_without_tags_are_no_fault() -> None:
    check_tags({Photo("a", Path("a.jpg"), (1, 2)): {2}, Photo("b", Path("b.jpg"), None): {2}}, NAMES)


def test_a_value_of_no_class_and_an_empty_field_are_said() -> None:
    photo = Photo("a", Path("a.jpg"), (), Path("a.png"))
    assert compared(photo, {9, 2}, NAMES) == "a: tags none of the classes; mask a.png dog, value 9"


@pytest.mark.parametrize(("count", "opened"), [(3, 3), (200, 200), (400, 200), (1000, 200)])
def test_a_sample_is_evenly_spaced(count: int, opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def read(path: Path) -> np.ndarray:
        seen.append(int(path.stem))
        return np.ones((1, 1), np.uint8)

    monkeypatch.setattr(photos.labels, "read_label", read)
    check_sampled_tags([Photo(str(i), Path("a.jpg"), (1,), Path(f"{i}.png")) for i in range(count)], NAMES)
    assert len(seen) == opened
    assert set(np.diff(seen)) == {seen[1] - seen[0]}


def test_a_sample_of_masks_is_compared_with_the_tags(tmp_path: Path) -> None:
    write_label(tmp_path / "cat.png", np.array([[0, 1, 255]]))
    masked = [Photo(str(i), Path(), tags, tmp_path / "cat.png") for i, tags in enumerate([(2,)] * 9 + [None])]
    with pytest.raises(MismatchError, match="9 of 9 masks show a class .* the first of 0: tags dog"):
        check_sampled_tags(masked, NAMES)
    check_sampled_tags([photo for photo in masked if photo.tags is None], NAMES)
