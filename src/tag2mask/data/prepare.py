"""Fetching and checking data sets, before anything is trained on them."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tag2mask import files
from tag2mask.data import folder, voc
from tag2mask.data.fetch import Archive, obtain, put, unpacked
from tag2mask.data.photos import Photo, Shown, check_tags, read_mask, shown
from tag2mask.data.supervision import unlearnable
from tag2mask.errors import InputError
from tag2mask.listing import MASK_ENDINGS, PHOTO_ENDINGS, masks_in, read_list, unread
from tag2mask.progress import progress

VOC = Archive(
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "6cd6e144f989b92b3379bac3b3de84fd",
    1_999_639_040,
)
SBD = Archive(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "82b4d87ceb2ed10f6038a1cba92111cb",
    1_419_539_633,
    grows=1.2,  # of its photographs, which are VOC's, none is unpacked
)
"""Addresses and checksums are torchvision's."""
BY_HAND = f"{VOC.address} and {SBD.address}"
DEVKIT = Path("VOCdevkit") / "VOC2012"
TRAINAUG = "trainaug"


def prepare_voc(
    root: Path,
    sbd: Path | None = None,
    download: bool = True,
    devkit: Path | None = None,
    require_masks: bool = True,
) -> str:
    """Fetch VOC 2012 and SBD where files of them are missing, derive SegmentationClassAug, check it all.

    Args:
        root: folder that holds or receives ``VOCdevkit/VOC2012``, the archives and ``SBD``; or the folder VOC2012.
        sbd: SBD's folder with ``cls/*.mat``, where it lies elsewhere.
        download: False takes nothing from the network; archives that lie in ``root`` are unpacked all the same.
        devkit: the folder VOC2012 by any name, in place of ``root``, which is then the folder that holds its
            VOCdevkit, or where there is none, itself.
        require_masks: False lets masks of ``trainaug`` be missing, which only the upper bound is trained on.

    Returns:
        A table of what is there.

    Raises:
        InputError: something that training needs is missing, or the network cannot be reached.
    """
    root, devkit = _places(root, devkit)
    lacking = _lacking(devkit)
    if lacking:
        print(f"missing in {devkit}: {', '.join(lacking)}", file=sys.stderr)
        archive = obtain(VOC, root, download)
        if archive is not None:
            _unpack_voc(archive, devkit)
    if not (devkit / "JPEGImages").is_dir():
        raise InputError(
            f"no {devkit / 'JPEGImages'}; leave out --no-download, or put {VOC.address} into {root} and give the same "
            "command"
        )
    sbd = sbd or root / "SBD"
    try:
        _add_masks(devkit, root, sbd, download)
    except InputError as error:
        if require_masks:
            raise
        print(
            f"tag2mask: {error}; masks of trainaug are missing meanwhile: training on tags needs none", file=sys.stderr
        )
    return check_voc(devkit, require_masks)


def _places(root: Path, devkit: Path | None) -> tuple[Path, Path]:
    """The folder of archives, and that of VOC 2012."""
    if devkit is None and (root.name == DEVKIT.name or (root / "JPEGImages").is_dir()):
        devkit = root
    if devkit is None:
        return root, root / DEVKIT
    return devkit.parents[1] if devkit.parts[-2:] == DEVKIT.parts else devkit, devkit


def _unpack_voc(archive: Path, devkit: Path) -> None:
    """Put what is missing into ``devkit``, the photographs last: where their folder is, all else is."""
    with unpacked(archive) as part:
        folders = sorted((part / DEVKIT).iterdir(), key=lambda path: path.name == "JPEGImages")
        for folder in folders:
            put(folder, devkit / folder.name)


def _add_masks(devkit: Path, root: Path, sbd: Path, download: bool) -> None:
    """Derive the masks of ``trainaug`` that are missing, of SBD's where VOC has none."""
    names = voc.split_names(devkit, TRAINAUG)
    there = _stems(devkit / "SegmentationClassAug", ".png")
    lacking = [name for name in names if name not in there]
    known = _stems(devkit / "SegmentationClass", ".png") | _stems(sbd / "cls", ".mat") if lacking else set()
    archive = obtain(SBD, root, download) if set(lacking) - known else None
    if archive is not None:
        with unpacked(archive, lambda name: "/cls/" in name) as part:
            put(part / "benchmark_RELEASE" / "dataset" / "cls", sbd / "cls")
    if lacking:
        derive_aug(devkit, sbd, lacking)


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


def check_voc(devkit: Path, require_masks: bool = True) -> str:
    """Count photographs, annotations and masks of each split; ``InputError`` where training or scoring lacks some."""
    rows = [f"{'split':<10}{'ids':>8}{'images':>8}{'tags':>8}{'masks':>8}   {devkit}"]
    for split, expected in voc.SPLITS.items():
        names = voc.split_names(devkit, split)
        counts = _counts(devkit, split, names)
        note = "" if len(names) == expected else f"   a list of your own; the published one has {expected}"
        missing = len(names) - counts["images"]
        if split == "test" and missing:
            note += f"   {missing} images to be had from the evaluation server, with a login"
        rows.append(f"{split:<10}{len(names):>8}" + "".join(f"{n:>8}" for n in counts.values()) + note)
    table = "\n".join(rows)
    lacking = _lacking(devkit, (TRAINAUG,) if require_masks else ())
    if lacking:
        print(table)
        raise InputError(
            f"missing in {devkit}: {', '.join(lacking)}; unpack {BY_HAND} there and under SBD, and run this again"
        )
    return table


def _lacking(devkit: Path, masks_of: tuple[str, ...] = ()) -> list[str]:
    """How much is missing of VOC's own files, and of the masks of further splits."""
    return [
        f"{len(names) - count} {what} of {split}"
        for split in voc.SPLITS
        if split != "test"
        for names in [voc.split_names(devkit, split)]
        for what, count in _counts(devkit, split, names).items()
        if count < len(names) and (what != "masks" or split != TRAINAUG or split in masks_of)
    ]


def _counts(devkit: Path, split: str, names: Iterable[str]) -> dict[str, int]:
    """How many of ``names`` have a photograph, an annotation and a mask; of ``test`` only photographs are published."""
    masks = "SegmentationClassAug" if split == TRAINAUG else "SegmentationClass"
    places = {"images": ("JPEGImages", ".jpg"), "annotations": ("Annotations", ".xml"), "masks": (masks, ".png")}
    if split == "test":
        places = {"images": places["images"]}
    return {what: len(_stems(devkit / place, ending).intersection(names)) for what, (place, ending) in places.items()}


def _stems(folder: Path, ending: str) -> set[str]:
    if not folder.is_dir():
        return set()
    return {name for name, found in map(os.path.splitext, os.listdir(folder)) if found == ending}


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
    deep = [photo for photo in photos if files.is_deep(photo.image)]
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
