"""Checking a folder of one's own photographs."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tag2mask.data import folder
from tag2mask.data.checks import unlearnable
from tag2mask.data.photos import Photo, Shown, check_tags, read_mask, shown
from tag2mask.errors import InputError
from tag2mask.io.folders import MASK_ENDINGS, PHOTO_ENDINGS, masks_in, read_list, unread
from tag2mask.io.images import is_deep, read_image
from tag2mask.io.labels import require_classes
from tag2mask.utils.progress import progress


def prepare_folder(root: Path) -> str:
    """Open every photograph and mask of a folder of one's own, and return what was found.

    Raises:
        InputError: one that cannot be used; all of them are named.
    """
    names = folder.class_names(root)
    photos = folder.folder_photos(root, "all")
    with ThreadPoolExecutor() as pool:
        looked_at = pool.map(lambda photo: _look(photo, len(names)), photos)
        looks = list(progress(looked_at, len(photos), "photographs opened"))
    masks = [look for look in looks if isinstance(look, Shown)]
    counts = {name: sum(value in (photo.tags or ()) for photo in photos) for value, name in enumerate(names, 1)}
    faults = [
        *(look for look in looks if isinstance(look, str)),
        *_strays(root, {photo.name for photo in photos}),
        *folder.near_doubles(counts),
        *_complaint(lambda: require_classes([mask.mask for mask in masks])),
        *_complaint(lambda: check_tags(masks, names)),
    ]
    if faults:
        print("\n".join(faults))
        raise InputError(f"{len(faults)} thing(s) to mend in {root}, listed above; the first: {faults[0]}")
    tagged = [photo for photo in photos if photo.tags is not None]
    lines = [
        f"{root}: {len(photos)} photographs, {len(tagged)} tagged, "
        f"{sum(photo.mask is not None for photo in photos)} with a mask",
        *(f"{value:>4} {name:<24}{counts[name]:>6} photographs" for value, name in enumerate(names, 1)),
        f"{sum(not photo.tags for photo in tagged)} with an empty field of tags (none of the classes), "
        f"{len(photos) - len(tagged)} without a line in tags.csv (unknown)",
    ]
    deep = [photo for photo in photos if is_deep(photo.image)]
    if deep:
        lines.append(
            f"{len(deep)} photographs have more than 8 bits a value, the first {deep[0].name}: each is scaled by the "
            "range that its highest value tells, 1 (of floats), 255, 4095 or 65535"
        )
    lines += [f"warning: {line}" for line in unlearnable(photos, names)]
    return "\n".join([*lines, *_few(masks, names), *_passed_over(root, {photo.name for photo in photos})])


def _look(photo: Photo, num_classes: int) -> Shown | str | None:
    """Open a photograph and its mask; return what the mask shows, or what is wrong."""
    try:
        size = read_image(photo.image).shape[:2]
        if photo.mask is None:
            return None
        read_mask(photo, size, num_classes)
        return shown(photo, photo.mask)
    except InputError as error:
        return str(error)


def _complaint(check: Callable[[], None]) -> list[str]:
    try:
        check()
    except InputError as error:
        return [str(error)]
    return []


def _few(masks: Sequence[Shown], names: Sequence[str]) -> list[str]:
    """Say which masks differ from the tags, where these are no fault."""
    found = {
        "show a class that the tags lack": [mask for mask in masks if mask.untagged],
        "have no pixel of a class that is tagged": [mask for mask in masks if mask.unseen],
    }
    told = ((what, some) for what, some in found.items() if some)
    return [f"{len(some)} of {len(masks)} masks {what}, the first of {some[0].in_words(names)}" for what, some in told]


def _strays(root: Path, names: set[str]) -> list[str]:
    """Tags, masks and listed names that have no photograph."""
    groups = {"tags.csv": set(folder.folder_tags(root)), "masks": set(masks_in(root / "masks"))}
    for split in ("train", "val"):  # those that configs/folder names
        if (root / f"{split}.txt").is_file():
            groups[f"{split}.txt"] = set(read_list(root / f"{split}.txt"))
    return [
        f"{root / place} has {name!r}, but images/ has no such photograph; add it or take the name out"
        for place, found in groups.items()
        for name in sorted(found - names)
    ]


def _passed_over(root: Path, names: set[str]) -> list[str]:
    """What lies there and is not read, and texts beside the lists."""
    places = {"images": PHOTO_ENDINGS, "masks": MASK_ENDINGS}
    left = {place: unread(root / place, endings) for place, endings in places.items()}
    said = [f"not read in {place}: {what} (read are {' '.join(places[place])})" for place, what in left.items() if what]
    for path in sorted(root.glob("[!.]*.txt")):
        if path.name not in ("classes.txt", "train.txt", "val.txt"):
            said.append(f"{path.name}: {_as_list(path, names)}")
    return said


def _as_list(path: Path, names: set[str]) -> str:
    """Say whether a text could be a split: each of its lines is the name of a photograph."""
    try:
        listed = read_list(path)
    except InputError:
        return "not read as a list: it is not UTF-8 text"
    known = sum(name in names for name in listed)
    if listed and known == len(listed):
        return f"a split of {known} photographs, if you name it ({path.stem})"
    return f"not read as a list: {known} of {len(listed)} lines name a photograph"
