"""What a data set says of its photographs, and what is checked of it, without torch: in a tenth of the time."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tag2mask.classes import BACKGROUND, IGNORE
from tag2mask.errors import InputError, MismatchError, MissingError
from tag2mask.io import disk, folders, images, labels
from tag2mask.utils.processes import cores
from tag2mask.utils.progress import progress


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph of a data set."""

    name: str  # without folder and ending; names the files made from it
    image: Path
    tags: tuple[int, ...] | None  # mask values of its classes (1 is the first), None where nobody tagged it
    mask: Path | None = None  # its label PNG
    cam: Path | None = None  # the CAM that its label was cut from
    edge: Path | None = None  # the edge map, a grey PNG, that stopped the random walk there

    def label(self, num_classes: int) -> np.ndarray:
        """Return the tags as 0/1, (C,) float32; all -1 without tags."""
        if self.tags is None:
            return np.full(num_classes, -1, np.float32)
        return np.isin(np.arange(1, num_classes + 1), self.tags).astype(np.float32)


def require_photos(folder: Path, names: Sequence[str], source: str) -> dict[str, Path]:
    """Return name -> photograph of a folder; a `MissingError` where ``names``, which ``source`` lists, have none."""
    if not folder.is_dir():
        raise MissingError(
            f"no folder {folder.absolute()}; name the folder that holds it (--root, --photos, --data.init_args.root), "
            "or fetch the data set with `tag2mask prepare`"
        )
    photos = folders.photos_in(folder)
    missing = [name for name in names if name not in photos]
    if missing:
        raise MissingError(
            f"{len(missing)} of {len(names)} names of {source} have no photograph in {folder}, the first "
            f"{missing[0]!r}; add it or take its name out{folders.near_photo(folder, missing[0])}"
        )
    return photos


def read_mask(photo: Photo, size: tuple[int, ...], num_classes: int) -> np.ndarray:
    """Read the mask of a photograph, (height, width) uint8, and check its size and values."""
    if photo.mask is None:
        raise MissingError(f"{photo.name} has no mask and cannot be scored; add one or take it off the list")
    mask = labels.read_label(photo.mask)
    if mask.shape != tuple(size):
        hint = images.sizes_hint(photo.image, size, mask.shape)
        raise MismatchError(
            f"{photo.mask} is {mask.shape[1]} x {mask.shape[0]} pixels and its photograph {size[1]} x {size[0]}; {hint}"
        )
    beyond = np.flatnonzero(np.bincount(mask.ravel(), minlength=IGNORE + 1)[num_classes + 1 : IGNORE])
    if beyond.size:
        value = num_classes + 1 + beyond[0]
        raise MismatchError(
            f"{photo.mask} holds the value {value}; expected 0 to {num_classes} ({num_classes} classes) or {IGNORE}"
        )
    return mask


def classes_in(mask: np.ndarray) -> set[int]:
    """Return the mask values in a mask, without the background and ``IGNORE``."""
    return set(np.unique(mask).tolist()) - {BACKGROUND, IGNORE}


def compared(photo: Photo, seen: set[int], names: Sequence[str]) -> str:
    """Say what the tags of a photograph are and which classes its mask shows; ``names`` are the foreground classes."""
    tags, classes = (
        ", ".join(names[value - 1] if value <= len(names) else f"value {value}" for value in sorted(values))
        for values in (photo.tags or (), seen)
    )
    return f"{photo.name}: tags {tags or 'none of the classes'}; mask {photo.mask} {classes or 'none of the classes'}"


def untagged(masks: Mapping[Photo, set[int]]) -> list[Photo]:
    """Return the tagged photographs whose masks show a class that is not among their tags."""
    return [photo for photo, seen in masks.items() if photo.tags is not None and seen - set(photo.tags)]


def check_tags(masks: Mapping[Photo, set[int]], names: Sequence[str]) -> None:
    """Refuse masks whose classes are not the tags of their photographs: most often ``classes.txt`` is in another order.

    ``masks`` is photograph -> the classes that its mask shows. It is a `MismatchError` where of the tagged photographs
    more than 5 % and more than three, or more than half, show a class that is not among their tags.
    """
    count, wrong = sum(photo.tags is not None for photo in masks), untagged(masks)
    if len(wrong) > min(max(3, count / 20), count / 2):
        order = [f"{value} {name}" for value, name in enumerate(names, 1)]
        raise MismatchError(
            f"{len(wrong)} of {count} masks show a class that their photograph's tags lack, the first of "
            f"{compared(wrong[0], masks[wrong[0]], names)}; the values of masks are {_some(order)}: "
            "write classes.txt in the order that the masks were made with, mend the tags, or make the masks again"
        )


def check_sampled_tags(photos: Sequence[Photo], names: Sequence[str]) -> None:
    """Do `check_tags` with some of the photographs that have tags and a mask: a few hundred, evenly spaced."""
    tagged = [(photo, photo.mask) for photo in photos if photo.tags is not None and photo.mask is not None]
    check_tags({photo: classes_in(labels.read_label(mask)) for photo, mask in disk.sample(tagged)}, names)


def check_masks(photos: Sequence[Photo], num_classes: int) -> None:
    """Check that every photograph has a mask as `read_mask` wants it; the error counts those that cannot be used."""

    def fault(photo: Photo) -> InputError | None:
        try:
            read_mask(photo, images.read_size(photo.image), num_classes)
        except InputError as error:
            return error
        return None

    with ThreadPoolExecutor(cores()) as pool:
        faults = list(filter(None, progress(pool.map(fault, photos), len(photos), "masks checked")))
    if faults:
        raise type(faults[0])(f"{len(faults)} of {len(photos)} masks cannot be used, the first: {faults[0]}")


def unlearnable(photos: Sequence[Photo], class_names: Sequence[str]) -> list[str]:
    """Say what cannot be learnt from the tags: classes of no photograph, of every one, or always tagged together."""
    tagged = [frozenset(photo.tags) for photo in photos if photo.tags is not None]
    on: dict[frozenset[int], list[str]] = defaultdict(list)
    for value, name in enumerate(class_names, 1):
        on[frozenset(index for index, tags in enumerate(tagged) if value in tags)].append(name)
    lines = []
    if absent := on.pop(frozenset(), []):
        lines.append(f"no photograph is tagged {_some(absent)}: nothing is learnt of that")
    if always := on.pop(frozenset(range(len(tagged))), []):
        lines.append(
            f"all {len(tagged)} photographs are tagged {_some(always)}: nothing shows what is not {always[0]}, and its "
            "masks may cover all; add photographs without it (in tags.csv a line with an empty field)"
        )
    return lines + [
        f"{_some(names)} are always tagged together: nothing tells them apart; if they are one class, set the tags of "
        "the file off by ;"
        for names in on.values()
        if len(names) > 1
    ]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
