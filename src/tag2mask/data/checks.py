"""What is checked before the first step: masks that cannot be used, tags that teach nothing."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tag2mask.data.photos import Photo, check_mask
from tag2mask.errors import InputError
from tag2mask.io.images import read_size
from tag2mask.utils.processes import cores
from tag2mask.utils.progress import progress


def check_masks(photos: Sequence[Photo], num_classes: int) -> None:
    """Open the mask of each photograph: it is there, whole, of the photograph's size, and holds classes that there are.

    Of a photograph only the head is read. For labels to train on, give the photographs with those as masks.

    Args:
        photos: of one split.
        num_classes: foreground classes.

    Raises:
        InputError: some masks cannot be used; how many, and what is wrong with the first.
    """

    def fault(photo: Photo) -> str | None:
        try:
            check_mask(photo, read_size(photo.image), num_classes)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(cores()) as pool:
        found = [told for told in progress(pool.map(fault, photos), len(photos), "masks checked") if told]
    if len(found) == 1:
        raise InputError(found[0])
    if found:
        raise InputError(f"{len(found)} of {len(photos)} masks cannot be used, the first: {found[0]}")


def unlearnable(photos: Sequence[Photo], class_names: Sequence[str]) -> list[str]:
    """Say in words what a network cannot learn from these tags; empty where there is nothing to be said.

    A class that no photograph has, a class that every photograph has, and classes that are always tagged together.

    Args:
        photos: that are trained on; those without tags are left out.
        class_names: of the foreground, by mask value from 1.
    """
    tagged = [frozenset(photo.tags) for photo in photos if photo.tags is not None]
    on: dict[frozenset[int], list[str]] = defaultdict(list)
    for value, name in enumerate(class_names, 1):
        on[frozenset(index for index, tags in enumerate(tagged) if value in tags)].append(name)
    said = []
    if absent := on.pop(frozenset(), []):
        said.append(f"no photograph is tagged {_some(absent)}: nothing is learnt of that")
    if always := on.pop(frozenset(range(len(tagged))), []):
        said.append(
            f"all {len(tagged)} photographs are tagged {_some(always)}: nothing shows what is not {always[0]}, and its "
            "masks may cover all; add photographs without it (in tags.csv a line with an empty field)"
        )
    for alike in (names for names in on.values() if len(names) > 1):
        said.append(
            f"{_some(alike)} are always tagged together: nothing tells them apart; if they are one class, set the tags "
            "of the file off by ;"
        )
    return said


def _some(names: Sequence[str], most: int = 6) -> str:
    beyond = len(names) - most
    return ", ".join(names[:most]) + (f" and {beyond} more" if beyond > 0 else "")
