"""Masks checked before anything is trained: a bad one found at the first validation has cost all steps before it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tag2mask import files
from tag2mask.data.photos import Photo, check_mask
from tag2mask.errors import InputError
from tag2mask.processes import cores
from tag2mask.progress import progress


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
            check_mask(photo, files.read_size(photo.image), num_classes)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(cores()) as pool:
        found = [told for told in progress(pool.map(fault, photos), len(photos), "masks checked") if told]
    if len(found) == 1:
        raise InputError(found[0])
    if found:
        raise InputError(f"{len(found)} of {len(photos)} masks cannot be used, the first: {found[0]}")
