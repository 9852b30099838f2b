"""Fetching VOC 2012 and SBD, deriving SegmentationClassAug, and checking both."""

import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tag2mask.data import voc
from tag2mask.data.prepare.fetch import Archive, obtain, put, unpacked
from tag2mask.errors import InputError
from tag2mask.io.labels import read_label, write_label
from tag2mask.utils.progress import progress

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
            write_label(out / f"{name}.png", read_label(official))
        elif (sbd / "cls" / f"{name}.mat").is_file():
            write_label(out / f"{name}.png", read_sbd(sbd / "cls" / f"{name}.mat"))

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
