"""Checking a folder of one's own photographs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tag2mask.data import folder
from tag2mask.data.photos import Photo, check_tags, classes_in, compared, read_mask, unlearnable, untagged
from tag2mask.errors import DamagedError, InputError
from tag2mask.io import folders, images, labels
from tag2mask.utils.progress import progress, shown


def prepare_folder(root: Path) -> str:
    """Open every photograph and mask of a folder of one's own, and return a report; print all faults, if any."""
    names, photos = folder.class_names(root), folder.folder_photos(root, "all")
    with ThreadPoolExecutor() as pool:
        opened = pool.map(lambda photo: _result(_open, photo, len(names)), photos)
        results = list(progress(opened, len(photos), "photographs opened"))
    masks = {photo: result for photo, result in zip(photos, results, strict=True) if isinstance(result, set)}
    counts = {name: sum(value in (photo.tags or ()) for photo in photos) for value, name in enumerate(names, 1)}
    checks = [_result(labels.require_classes, [photo.mask for photo in masks]), _result(check_tags, masks, names)]
    faults = [
        *(result for result in results if isinstance(result, str)),
        *_strays(root, {photo.name for photo in photos}),
        *folder.near_doubles(counts),
        *filter(None, checks),
    ]
    if faults:
        print("\n".join(map(shown, faults)))
        raise DamagedError(f"{len(faults)} thing(s) to mend in {root}, listed above; the first: {faults[0]}")
    tags = [photo.tags for photo in photos]
    empty, unknown, masked = tags.count(()), tags.count(None), sum(photo.mask is not None for photo in photos)
    lines = [
        f"{root}: {len(photos)} photographs, {len(photos) - unknown} tagged, {masked} with a mask",
        *(f"{value:>4} {name:<24}{counts[name]:>6} photographs" for value, name in enumerate(names, 1)),
        f"{empty} with an empty field of tags (none of the classes), {unknown} without a line in tags.csv (unknown)",
    ]
    if deep := [photo.name for photo in photos if images.is_deep(photo.image)]:
        lines.append(
            f"{len(deep)} photographs have more than 8 bits a value, the first {deep[0]}: each is scaled by the "
            "range that its highest value tells, 1 (of floats), 255, 4095 or 65535"
        )
    lines += [f"warning: {line}" for line in unlearnable(photos, names)]
    differences = {
        "show a class that the tags lack": untagged(masks),
        "have no pixel of a class that is tagged": [photo for photo in masks if set(photo.tags or ()) - masks[photo]],
    }
    for difference, some in differences.items():
        if some:
            first = compared(some[0], masks[some[0]], names)
            lines.append(f"{len(some)} of {len(masks)} masks {difference}, the first of {first}")
    for place, endings in {"images": folders.PHOTO_ENDINGS, "masks": folders.MASK_ENDINGS}.items():
        if others := folders.unread(root / place, endings):
            lines.append(f"not read in {place}: {others} (read are {' '.join(endings)})")
    if texts := {path.name for path in root.glob("[!.]*.txt")} - {"classes.txt", "train.txt", "val.txt"}:
        lines.append(f"not read: {', '.join(sorted(texts))} (a list NAME.txt is read where NAME is given as a split)")
    return "\n".join(lines)


def _result(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of some work, or the message of its error."""
    try:
        return work(*arguments)
    except InputError as error:
        return str(error)


def _open(photo: Photo, num_classes: int) -> set[int] | None:
    size = images.read_image(photo.image).shape[:2]
    return None if photo.mask is None else classes_in(read_mask(photo, size, num_classes))


def _strays(root: Path, names: set[str]) -> list[str]:
    """Tags, masks and listed names that have no photograph."""
    lists = [name for name in ("train.txt", "val.txt") if (root / name).is_file()]  # those that configs/folder names
    groups = {"tags.csv": set(folder.folder_tags(root)), "masks": set(folders.masks_in(root / "masks"))}
    groups |= {name: set(folders.read_list(root / name)) for name in lists}
    return [
        f"{root / place} has {name!r}, but images/ has no such photograph; add it or take the name out"
        for place, group in groups.items()
        for name in sorted(group - names)
    ]
