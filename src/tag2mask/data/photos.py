"""What a data set says of a photograph. Lists and masks are read and checked without torch, in a tenth of the time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tag2mask import files
from tag2mask.classes import IGNORE
from tag2mask.errors import InputError


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
    mask = files.read_label(photo.mask)
    if mask.shape != tuple(size):
        raise InputError(
            f"{photo.mask} is {mask.shape[1]} x {mask.shape[0]} pixels and its photograph {size[1]} x {size[0]}; "
            f"{files.sizes_hint(photo.image, size, mask.shape)}"
        )
    beyond = np.flatnonzero(np.bincount(mask.ravel(), minlength=IGNORE + 1)[num_classes + 1 : IGNORE])
    if beyond.size:
        raise InputError(
            f"{photo.mask} holds the value {num_classes + 1 + beyond[0]}; expected 0 to {num_classes} ({num_classes} "
            f"classes) or {IGNORE}"
        )
    return mask
