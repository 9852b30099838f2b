"""Fetching and checking data sets, before anything is trained on them."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tag2mask import files
from tag2mask.data import folder, voc
from tag2mask.data.photos import Photo, read_mask
from tag2mask.errors import InputError
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
        looked_at = pool.map(lambda photo: _fault(photo, len(names)), photos)
        faults = [fault for fault in progress(looked_at, len(photos), "photographs opened") if fault]
    faults += _strays(root, {photo.name for photo in photos})
    if faults:
        print("\n".join(faults))
        raise InputError(f"{len(faults)} thing(s) to mend in {root}, listed above; the first: {faults[0]}")
    tagged = [photo for photo in photos if photo.tags is not None]
    lines = [
        f"{root}: {len(photos)} photographs, {len(tagged)} tagged, "
        f"{sum(photo.mask is not None for photo in photos)} with a mask"
    ]
    for value, name in enumerate(names, 1):
        lines.append(f"{value:>4} {name:<24}{sum(value in (photo.tags or ()) for photo in tagged):>6} photographs")
    return "\n".join(lines)


def _fault(photo: Photo, num_classes: int) -> str | None:
    try:
        size = files.read_image(photo.image).shape[:2]
        if photo.mask is not None:
            read_mask(photo, size, num_classes)
    except InputError as error:
        return str(error)
    return None


def _strays(root: Path, names: set[str]) -> list[str]:
    """Tags, masks and listed names that have no photograph."""
    tags = folder.read_tags(root / "tags.csv") if (root / "tags.csv").is_file() else {}
    groups = {"tags.csv": set(tags), "masks": {path.stem for path in (root / "masks").glob("*.png")}}
    for path in sorted(root.glob("*.txt")):
        if path.name != "classes.txt":
            groups[path.name] = set(folder.read_list(path))
    return [
        f"{root / place} has {name!r}, but images/ has no such photograph; add it or take the name out"
        for place, found in groups.items()
        for name in sorted(found - names)
    ]
