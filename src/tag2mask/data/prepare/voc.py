"""Fetching VOC 2012 and SBD, deriving SegmentationClassAug, and checking both."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tag2mask import classes
from tag2mask.data import voc
from tag2mask.data.prepare.fetch import Archive, obtain, put, unpacked
from tag2mask.data.prepare.mat import read_mat
from tag2mask.errors import InputError, MissingError
from tag2mask.io.files import MEGABYTE, decoding
from tag2mask.io.folders import files_in, masks_in
from tag2mask.io.labels import read_label, write_label
from tag2mask.utils.progress import progress

VOC = Archive(  # addresses and checksums are torchvision's
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
DEVKIT = Path("VOCdevkit") / "VOC2012"


def prepare_voc(
    root: Path, sbd: Path | None = None, download: bool = True, devkit: Path | None = None, require_masks: bool = True
) -> str:
    """Fetch VOC 2012 and SBD where files are missing, derive SegmentationClassAug; return a table of what is there.

    ``root`` holds or receives ``VOCdevkit/VOC2012``, the archives and ``SBD``, or is the folder VOC2012; in place of
    it, ``devkit`` is that folder by any name. ``sbd`` is SBD's folder with ``cls/*.mat``, where it lies elsewhere.
    Without ``download``, only archives that lie there are unpacked. Without ``require_masks``, masks of ``trainaug``
    may be missing: only the upper bound is trained on them.
    """
    if devkit is None:
        devkit = root if root.name == DEVKIT.name or (root / "JPEGImages").is_dir() else root / DEVKIT
    archives = devkit.parents[1] if devkit.parts[-2:] == DEVKIT.parts else devkit
    if missing := _survey(devkit, derived=False)[1]:
        print(f"missing in {devkit}: {', '.join(missing)}", file=sys.stderr)
        with unpacked(obtain(VOC, archives, download)) as part:
            for folder in sorted((part / DEVKIT).iterdir(), key=lambda path: path.name == "JPEGImages"):
                put(folder, devkit / folder.name)  # the photographs last: where their folder is, all else is
    sbd = sbd or archives / "SBD"
    try:
        if derive_aug(devkit, sbd):
            with unpacked(obtain(SBD, archives, download), "/cls/") as part:
                put(part / "benchmark_RELEASE" / "dataset" / "cls", sbd / "cls")
            derive_aug(devkit, sbd)
    except InputError as error:
        if require_masks:
            raise
        print(f"tag2mask: {error}; masks of trainaug are missing: training on tags needs none", file=sys.stderr)
    table, missing = _survey(devkit, derived=require_masks)
    if missing:
        print(table)
        raise MissingError(
            f"missing in {devkit}: {', '.join(missing)}; add them, or take their names off the lists in ImageSets"
        )
    return table


def _survey(devkit: Path, derived: bool) -> tuple[str, list[str]]:
    """Count what is there of each split; return a table, and what is missing: ``derived`` masks only on demand."""
    rows = [f"{'split':<10}{'ids':>8}{'images':>8}{'tags':>8}{'masks':>8}   {devkit}"]
    missing = []
    for split, published in voc.SPLITS.items():
        names = set(voc.split_names(devkit, split))
        row = f"{split:<10}{len(names):>8}"
        note = "" if len(names) == published else f"   a list of your own; the published one has {published}"
        masks = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
        places = {"images": ("JPEGImages", ".jpg"), "annotations": ("Annotations", ".xml"), "masks": (masks, ".png")}
        for kind in ("images",) if split == "test" else places:
            folder, ending = places[kind]
            count = len(names & files_in(devkit / folder, (ending,)).keys())
            row += f"{count:>8}"
            if split == "test" and count < len(names):
                note += f"   {len(names) - count} images to be had from the evaluation server, with a login"
            elif count < len(names) and (derived or (split, kind) != ("trainaug", "masks")):
                missing.append(f"{len(names) - count} {kind} of {split}")
        rows.append(row + note)
    return "\n".join(rows), missing


def derive_aug(devkit: Path, sbd: Path) -> list[str]:
    """Write the masks that SegmentationClassAug lacks, VOC's or else SBD's; return the names that have neither."""
    there = masks_in(out := devkit / "SegmentationClassAug")
    lacking = [name for name in voc.split_names(devkit, "trainaug") if name not in there]

    def derive(name: str) -> bool:
        official, other = devkit / "SegmentationClass" / f"{name}.png", sbd / "cls" / f"{name}.mat"
        if official.is_file() or other.is_file():
            write_label(out / f"{name}.png", read_label(official) if official.is_file() else read_sbd(other))
        return official.is_file() or other.is_file()

    with ThreadPoolExecutor() as pool:
        derived = list(progress(pool.map(derive, lacking), len(lacking), "masks"))
    return [name for name, done in zip(lacking, derived, strict=True) if not done]


def read_sbd(path: Path) -> np.ndarray:
    """Read the class segmentation of an SBD file, (H, W) uint8 of 0 to 20 and 255."""
    with decoding(path, "an SBD annotation", "unpack benchmark.tgz again", 10 * MEGABYTE):
        label = read_mat(path.read_bytes(), "GTcls", "Segmentation")
        if label.ndim != 2 or 0 in label.shape or not np.isin(label, (*range(len(classes.VOC)), classes.IGNORE)).all():
            values = np.unique(label)[-3:].tolist()
            raise ValueError(f"an array {label.shape} with values up to {values}; expected a map of 0 to 20 and 255")
        return label.astype(np.uint8)
