"""Fetching COCO 2014, painting its masks on all cores, and checking both.

Masks, tags and lists depend on the annotation file alone, so that a run that was killed is taken up by painting every
scene again and writing the masks that are not there yet: the digests in the table are of what was painted.
"""

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tag2mask import classes
from tag2mask.data import coco
from tag2mask.data.prepare import instances
from tag2mask.data.prepare.fetch import Archive, obtain, put, unpacked
from tag2mask.errors import InputError
from tag2mask.io import disk
from tag2mask.io.files import atomic, read_json, remove_parts
from tag2mask.io.labels import read_label, write_label
from tag2mask.io.records import RUN_FILE, digest_of_file, same_run, write_run
from tag2mask.utils.processes import spread
from tag2mask.utils.progress import progress

SITE = "http://images.cocodataset.org"
ARCHIVES = {
    "train2014": Archive(f"{SITE}/zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88", 13_000_000_000),
    "val2014": Archive(f"{SITE}/zips/val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3", 6_000_000_000),
    "annotations": Archive(
        f"{SITE}/annotations/annotations_trainval2014.zip", "0a379cfc70b0e71301e0f377548639bd", 241_000_000, grows=5
    ),
}
"""The archive of each folder; sizes as the site says them."""


def prepare_coco(
    root: Path,
    out: Path | None = None,
    lists: str = "all",
    workers: int = 1,
    verify: bool = False,
    overwrite: bool = False,
    download: bool = True,
) -> str:
    """Fetch COCO 2014 where it is missing, paint its masks, write tags and lists, and check it all.

    What is there already is kept, if it was made of the same annotations. Nothing is written before both annotation
    files and the folders of photographs have been checked.

    Args:
        root: folder that holds or receives ``train2014``, ``val2014`` and ``annotations``.
        out: folder that receives ``masks``, ``tags_*.csv``, ``train.txt`` and ``val.txt``; None: ``root``.
        lists: which names ``train.txt`` and ``val.txt`` hold, a key of `coco.PUBLISHED`.
        workers: processes.
        verify: also read every mask and compare it with what was painted.
        overwrite: replace masks of other annotations, and other lists.
        download: False takes nothing from the network; archives that lie in ``root`` are unpacked all the same.

    Returns:
        A table of what is there.

    Raises:
        InputError: an annotation file is damaged, something is missing, or the network cannot be reached.
    """
    _fetch(root, download)
    stages = [Stage(coco.Split(name, root, out or root), overwrite) for name in coco.SPLITS]
    for stage in stages:
        stage.read()
    _check_names(stages)
    for stage in stages:
        stage.check_list(lists, overwrite)
    sizes = [size for stage in stages for size in stage.expected_bytes()]
    if sizes:
        print(disk.require_room((out or root) / "masks", len(sizes), sizes, "masks"), file=sys.stderr)
    for stage in stages:
        stage.paint(workers)
        stage.write_list(lists)
    if verify:
        for stage in stages:
            _verify(stage.split, stage.rows, workers)
    head = f"{'split':<10}{'ids':>8}{'images':>8}{'tagged':>8}{'masks':>8}  {'checksum':<18}{out or root}"
    return "\n".join([head, *(stage.report(lists) for stage in stages)])


class Stage:
    """The way of one split from annotations to masks, tags and list.

    Attributes:
        split: where its files lie.
        config: what its masks depend on.
        rows: its table; the digests are empty until the masks are painted.
    """

    def __init__(self, split: coco.Split, overwrite: bool) -> None:
        """Look at what stands there; ``InputError`` where it is of other annotations and not to be overwritten."""
        self.split = split
        self.config = {
            "prepare": "coco",
            "annotations": digest_of_file(split.annotations),
            "rule": instances.RULE,
            "classes": list(classes.COCO),
        }
        self.begun = same_run(split.masks, self.config, overwrite)
        self.rows: dict[str, coco.Row] = {}
        self.scenes: list[instances.Scene] | None = None
        if not (split.masks / RUN_FILE).exists() and _mask_names(split.masks):
            raise InputError(f"{split.masks} holds PNG files that were not made here; name another folder with --out")

    def read(self) -> None:
        """Take the table of a finished split, else read the annotations; look for the photographs."""
        finished = _finished(self.split) if self.begun else None
        if finished is not None:
            self.rows = finished
        else:
            print(f"reading {self.split.annotations}", file=sys.stderr)
            self.scenes = instances.read_scenes(self.split.annotations)
            self.rows = {scene.name: coco.Row(scene.tags, scene.height, scene.width, "") for scene in self.scenes}
        coco.require_photos(self.split, list(self.rows))

    def names(self, lists: str) -> list[str]:
        """Return the names of a list, sorted."""
        return [name for name, row in self.rows.items() if lists == "all" or row.tags]

    def check_list(self, lists: str, overwrite: bool) -> None:
        """Raise ``InputError`` where another list stands in the place of the one that is to be written."""
        path, wanted = self.split.names, self.names(lists)
        if overwrite or not path.exists():
            return
        found = path.read_text(encoding="utf-8-sig", errors="replace").split()
        if found != wanted:
            kind = next((f"--lists {kind}" for kind in coco.PUBLISHED if found == self.names(kind)), "none of --lists")
            raise InputError(
                f"{path} holds {len(found)} names ({kind}), not the {len(wanted)} of --lists {lists}; rename it, "
                "delete it, or give the --lists that it was made with"
            )

    def write_list(self, lists: str) -> None:
        """Write the names to train on or to score."""
        _write_text(self.split.names, "\n".join([*self.names(lists), ""]))

    def expected_bytes(self) -> list[float]:
        """Estimate the sizes of the masks that `paint` will write."""
        if self.scenes is None:
            return []
        there = _mask_names(self.split.masks) if self.begun else set()
        return [disk.label_bytes(row.height, row.width) for name, row in self.rows.items() if name not in there]

    def paint(self, workers: int) -> None:
        """Write the masks that are not there yet, then the table; nothing where the split is finished."""
        if self.scenes is None:
            return
        if not self.begun:
            self._clear()
            write_run(self.split.masks, self.config, finished=False)
        remove_parts(self.split.masks, {*self.rows, "run"})
        there = _mask_names(self.split.masks)
        jobs = (
            (scene, None if scene.name in there else self.split.masks / f"{scene.name}.png") for scene in self.scenes
        )
        done = progress(spread(_paint, jobs, workers), len(self.rows), f"masks of {self.split.folder}")
        for name, pixels in done:
            self.rows[name] = self.rows[name]._replace(mask=pixels)
        text = coco.table_text(self.rows)
        _write_text(self.split.table, text)
        checksum = hashlib.sha256(text.encode()).hexdigest()
        write_run(self.split.masks, self.config, finished=True, files=len(self.rows), checksum=checksum)

    def _clear(self) -> None:
        """Delete what was made of other annotations: the table first, without which nothing is trained on the rest."""
        self.split.table.unlink(missing_ok=True)
        for name in self.rows:
            (self.split.masks / f"{name}.png").unlink(missing_ok=True)

    def report(self, lists: str) -> str:
        """Count what is there of the split, beside the published number."""
        names, published = self.names(lists), coco.PUBLISHED[lists][self.split.name]
        photos, masks = coco.require_photos(self.split, names), _mask_names(self.split.masks)
        counts = (
            len(names),
            sum(name in photos for name in names),
            sum(bool(self.rows[name].tags) for name in names),
            sum(name in masks for name in names),
        )
        checksum = read_json(self.split.masks / RUN_FILE)["checksum"]
        note = "a part: " if len(names) < published else ""
        note = "as published" if len(names) == published else f"{note}the published one has {published:,}"
        return f"{self.split.name:<10}" + "".join(f"{n:>8}" for n in counts) + f"  {checksum[:16]:<18}{note}"


def _finished(split: coco.Split) -> dict[str, coco.Row] | None:
    """The table of a split that is finished and whole, else None.

    Raises:
        InputError: the table is not the one that was written.
    """
    record = read_json(split.masks / RUN_FILE)
    if not record.get("finished") or not split.table.is_file():
        return None
    if digest_of_file(split.table) != record.get("checksum"):
        raise InputError(
            f"{split.table} has changed: it has not the checksum in {split.masks / RUN_FILE}; delete it and give "
            "the same command: it is made again"
        )
    rows = coco.read_table(split.table)
    missing = rows.keys() - _mask_names(split.masks)
    if missing:
        print(f"{len(missing)} masks are missing in {split.masks} and are painted again", file=sys.stderr)
    return None if missing else rows


def _check_names(stages: Sequence[Stage]) -> None:
    """A name stands for one photograph: lists and CAM files know no more of it."""
    both = sorted(set.intersection(*(set(stage.rows) for stage in stages)))
    if both:
        places = " and ".join(str(stage.split.annotations) for stage in stages)
        raise InputError(
            f"{len(both)} names of photographs stand in both {places}, the first {both[0]}; expected each once"
        )


def _verify(split: coco.Split, rows: Mapping[str, coco.Row], workers: int) -> None:
    """Read every mask of a split; ``InputError`` where one is not what was painted."""
    jobs = ((split.masks / f"{name}.png", row) for name, row in rows.items())
    done = progress(spread(_compare, jobs, workers), len(rows), f"masks of {split.folder} read")
    faults = dict(sorted((path, fault) for path, fault in done if fault is not None))
    if faults:
        path, fault = next(iter(faults.items()))
        raise InputError(
            f"{len(faults)} of {len(rows)} masks in {split.masks} are not as painted, the first {path.name}: {fault}; "
            "delete them and give the same command: they are made again"
        )


def _paint(job: tuple[instances.Scene, Path | None]) -> tuple[str, str]:
    """Paint a scene, write it where a path is given, and return its name and digest."""
    scene, path = job
    label = instances.paint(scene)
    if path is not None:
        write_label(path, label)
    return scene.name, _digest(label)


def _compare(job: tuple[Path, coco.Row]) -> tuple[Path, str | None]:
    """Return what is wrong with a mask file, None where nothing is."""
    path, row = job
    try:
        label = read_label(path)
    except Exception as error:  # of a damaged file, Pillow raises more kinds than read_label names
        return path, str(error)
    if label.shape != (row.height, row.width):
        return path, f"{label.shape[1]} x {label.shape[0]} pixels, expected {row.width} x {row.height}"
    return path, None if _digest(label) == row.mask else "other pixels"


def _digest(label: np.ndarray) -> str:
    """Digest of the pixels, not of the file, which depends on the version of zlib."""
    return hashlib.sha256(label.tobytes()).hexdigest()[:16]


def _mask_names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {name for name, ending in map(os.path.splitext, os.listdir(folder)) if ending == ".png" and name[0] != "."}


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as file:
        file.write(text.encode())


def _fetch(root: Path, download: bool) -> None:
    """Put there what is missing; ``InputError`` where that must not or cannot be."""
    for folder, archive in ARCHIVES.items():
        wanted = [root / folder]
        if folder == "annotations":
            wanted = [coco.Split(name, root, root).annotations for name in coco.SPLITS]
        missing = [path for path in wanted if not path.exists()]
        path = obtain(archive, root, download) if missing else None
        if missing and path is None:
            raise InputError(f"no {missing[0]}; leave out --no-download, or put {archive.address} into {root}, by hand")
        if path is not None:
            with unpacked(path) as part:
                for each in missing:
                    put(part / each.relative_to(root), each)
