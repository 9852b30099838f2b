"""Fetching and checking data sets, before anything is trained on them."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tag2mask import files
from tag2mask.data import folder, voc
from tag2mask.data.photos import Photo, Shown, check_tags, read_mask, shown
from tag2mask.data.supervision import unlearnable
from tag2mask.errors import InputError
from tag2mask.listing import MASK_ENDINGS, PHOTO_ENDINGS, masks_in, read_list, unread
from tag2mask.progress import progress

BY_HAND = (
    "host.robots.ox.ac.uk/pascal/VOC/voc2012 (VOCtrainval_11-May-2012.tar) and "
    "www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours (benchmark.tgz)"
)


def prepare_voc(root: Path, sbd: Path | None = None, download: bool = True) -> str:
    """Fetch VOC 2012 and SBD through torchvision where they are missing, derive SegmentationClassAug, check it all.

    Args:
        root: folder that holds or receives ``VOCdevkit/VOC2012``, and ``SBD``.
        sbd: SBD's folder with ``cls/*.mat``, where it lies elsewhere.
        download: False only derives and checks.

    Returns:
        A table of what is there.

    Raises:
        InputError: something that training needs is missing, or the network cannot be reached.
    """
    devkit = root / "VOCdevkit" / "VOC2012"
    sbd = sbd or root / "SBD"
    if download and not (devkit / "JPEGImages").is_dir():
        _download("VOC 2012", "VOCSegmentation", root, year="2012", image_set="trainval")
    if not (devkit / "JPEGImages").is_dir():
        raise InputError(f"no {devkit / 'JPEGImages'}; leave out --no-download, or unpack {BY_HAND} into {root}")
    wanted = voc.packaged_names("trainaug")
    lacking = [name for name in wanted if not (devkit / "SegmentationClassAug" / f"{name}.png").is_file()]
    if lacking and download and not (sbd / "cls").is_dir():
        _download("SBD", "SBDataset", sbd, image_set="train", mode="segmentation")
    if lacking and (sbd / "cls").is_dir():
        derive_aug(devkit, sbd, lacking)
    return check_voc(devkit)


def _download(what: str, dataset: str, root: Path, **settings: str) -> None:
    import torchvision

    root.mkdir(parents=True, exist_ok=True)
    try:
        getattr(torchvision.datasets, dataset)(str(root), download=True, **settings)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{what} cannot be downloaded ({reason}); fetch it by hand from {BY_HAND}, unpack it into {root}, and run "
            "this again with --no-download"
        ) from error


def derive_aug(devkit: Path, sbd: Path, names: Sequence[str]) -> None:
    """Write the masks of SegmentationClassAug: the official one where VOC has one, else SBD's class segmentation."""
    out = devkit / "SegmentationClassAug"

    def derive(name: str) -> None:
        official = devkit / "SegmentationClass" / f"{name}.png"
        if official.is_file():
            files.write_label(out / f"{name}.png", files.read_label(official))
        elif (sbd / "cls" / f"{name}.mat").is_file():
            files.write_label(out / f"{name}.png", read_sbd(sbd / "cls" / f"{name}.mat"))

    with ThreadPoolExecutor() as pool:
        for _ in progress(pool.map(derive, names), len(names), "masks"):
            pass


def read_sbd(path: Path) -> np.ndarray:
    """Read the class segmentation of an SBD file, (H, W) uint8."""
    from scipy.io import loadmat

    try:
        return np.asarray(loadmat(str(path))["GTcls"]["Segmentation"][0, 0], np.uint8)
    except Exception as error:  # scipy and zlib raise half a dozen kinds for a damaged file
        raise InputError(f"{path} is not a whole SBD annotation ({error}); unpack benchmark.tgz again") from None


def check_voc(devkit: Path) -> str:
    """Count photographs, annotations and masks of each split; ``InputError`` where training or scoring lacks some."""
    rows = [f"{'split':<10}{'ids':>8}{'images':>8}{'tags':>8}{'masks':>8}   {devkit}"]
    lacking = []
    for split, expected in voc.SPLITS.items():
        names = voc.split_names(devkit, split)
        masks = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
        counts = {
            "images": _count(devkit / "JPEGImages", names, ".jpg"),
            "annotations": _count(devkit / "Annotations", names, ".xml"),
            "masks": _count(devkit / masks, names, ".png"),
        }
        note = "" if len(names) == expected else f"   a list of your own; the published one has {expected}"
        if split == "test":
            counts = {"images": counts["images"]}
            missing = len(names) - counts["images"]
            note += f"   {missing} images to be had from the evaluation server, with a login" if missing else ""
        else:
            lacking += [f"{len(names) - n} {what} of {split}" for what, n in counts.items() if n < len(names)]
        rows.append(f"{split:<10}{len(names):>8}" + "".join(f"{n:>8}" for n in counts.values()) + note)
    table = "\n".join(rows)
    if lacking:
        print(table)
        raise InputError(
            f"missing in {devkit}: {', '.join(lacking)}; unpack {BY_HAND} there and under SBD, and run this again"
        )
    return table


def _count(folder: Path, names: Iterable[str], ending: str) -> int:
    there = {path.stem for path in folder.glob(f"*{ending}")}
    return sum(name in there for name in names)


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
        *_complaint(lambda: files.require_classes([mask.mask for mask in masks])),
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
    lines += [f"warning: {line}" for line in unlearnable(photos, names)]
    return "\n".join([*lines, *_few(masks, names), *_passed_over(root, {photo.name for photo in photos})])


def _look(photo: Photo, num_classes: int) -> Shown | str | None:
    """Open a photograph and its mask; return what the mask shows, or what is wrong."""
    try:
        size = files.read_image(photo.image).shape[:2]
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
