"""What a data set says of a photograph. Lists and masks are read and checked without torch, in a tenth of the time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tag2mask.classes import BACKGROUND, IGNORE
from tag2mask.errors import InputError
from tag2mask.io.images import sizes_hint
from tag2mask.io.labels import read_label


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph of a data set.

    Attributes:
        name: without folder and ending; names the files made from it.
        image: path of the photograph.
        tags: mask values of its classes (1 is the first), None where nobody tagged it.
        mask: path of its label PNG, None where there is none.
    """

    name: str
    image: Path
    tags: tuple[int, ...] | None
    mask: Path | None = None

    def label(self, num_classes: int) -> np.ndarray:
        """Return the tags as 0/1, (C,) float32; all -1 without tags."""
        if self.tags is None:
            return np.full(num_classes, -1, np.float32)
        return np.isin(np.arange(1, num_classes + 1), self.tags).astype(np.float32)


def read_mask(photo: Photo, size: tuple[int, ...], num_classes: int) -> np.ndarray:
    """Read the mask of a photograph, (height, width) int64, and check its size and values."""
    return check_mask(photo, size, num_classes).astype(np.int64)


def check_mask(photo: Photo, size: tuple[int, ...], num_classes: int) -> np.ndarray:
    """Return what `read_mask` does, as uint8: in a third of the time."""
    if photo.mask is None:
        raise InputError(f"{photo.name} has no mask and cannot be scored; add one or take it off the list")
    mask = read_label(photo.mask)
    if mask.shape != tuple(size):
        raise InputError(
            f"{photo.mask} is {mask.shape[1]} x {mask.shape[0]} pixels and its photograph {size[1]} x {size[0]}; "
            f"{sizes_hint(photo.image, size, mask.shape)}"
        )
    beyond = np.flatnonzero(np.bincount(mask.ravel(), minlength=IGNORE + 1)[num_classes + 1 : IGNORE])
    if beyond.size:
        raise InputError(
            f"{photo.mask} holds the value {num_classes + 1 + beyond[0]}; expected 0 to {num_classes} ({num_classes} "
            f"classes) or {IGNORE}"
        )
    return mask


class Shown(NamedTuple):
    """What a mask shows of a photograph.

    Attributes:
        photo: the photograph.
        mask: path of the label PNG.
        classes: mask values in it, in rising order; without the background and ``IGNORE``.
    """

    photo: Photo
    mask: Path
    classes: tuple[int, ...]

    @property
    def untagged(self) -> bool:
        """Whether it shows a class that is not among the tags; False where nobody tagged the photograph."""
        return self.photo.tags is not None and not set(self.classes) <= set(self.photo.tags)

    @property
    def unseen(self) -> bool:
        """Whether a tag has no pixel in it."""
        return not set(self.photo.tags or ()) <= set(self.classes)

    def in_words(self, names: Sequence[str]) -> str:
        """Say what the tags are and what the mask shows; ``names`` are the foreground classes."""

        def named(values: Sequence[int]) -> str:
            known = [names[v - 1] if v <= len(names) else f"value {v}" for v in values]
            return ", ".join(known) or "none of the classes"

        return f"{self.photo.name}: tags {named(self.photo.tags or ())}; mask {self.mask} {named(self.classes)}"


def shown(photo: Photo, mask: Path) -> Shown:
    """Open a mask and return what it shows."""
    values = np.setdiff1d(read_label(mask), (BACKGROUND, IGNORE))
    return Shown(photo, mask, tuple(values.tolist()))


def check_tags(masks: Sequence[Shown], names: Sequence[str]) -> None:
    """Refuse masks whose classes are not the tags of their photographs: most often ``classes.txt`` is in another order.

    A tag without a pixel is no fault here. Photographs without tags are left out.

    Raises:
        InputError: a class that is not among the tags stands in more than 5 % of the masks and more than three of them,
            or in more than half of them.
    """
    tagged = [mask for mask in masks if mask.photo.tags is not None]
    wrong = [mask for mask in tagged if mask.untagged]
    if len(wrong) > min(max(3, len(tagged) / 20), len(tagged) / 2):
        order = ", ".join(f"{value} {name}" for value, name in enumerate(names[:5], 1))
        raise InputError(
            f"{len(wrong)} of {len(tagged)} masks show a class that their photograph's tags lack, the first of "
            f"{wrong[0].in_words(names)}; the values of masks are {order}{', ...' if len(names) > 5 else ''}: write "
            "classes.txt in the order that the masks were made with, mend the tags, or make the masks again"
        )


def check_sampled_tags(pairs: Sequence[tuple[Photo, Path]], names: Sequence[str], most: int = 200) -> None:
    """Do `check_tags` with masks or labels of at most ``most`` tagged photographs, evenly spaced.

    Args:
        pairs: photographs, each with the path of its mask.
        names: the foreground classes.
        most: masks that are opened.
    """
    tagged = [pair for pair in pairs if pair[0].tags is not None]
    check_tags([shown(*pair) for pair in tagged[:: max(1, -(-len(tagged) // most))]], names)
