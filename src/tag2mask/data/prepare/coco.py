"""Fetching COCO 2014, painting its masks on all cores, and checking both; all depends on the annotation file alone."""

import hashlib
import sys
from pathlib import Path

import numpy as np

from tag2mask import classes
from tag2mask.data import coco
from tag2mask.data.photos import require_photos
from tag2mask.data.prepare import instances
from tag2mask.data.prepare.fetch import Archive, obtain, put, unpacked
from tag2mask.errors import DamagedError, MismatchError, OccupiedError
from tag2mask.io import disk, files, folders, labels, records
from tag2mask.utils.processes import spread
from tag2mask.utils.progress import progress

SITE = "http://images.cocodataset.org"
ARCHIVES = {
    "train2014": Archive(f"{SITE}/zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88", 13_000_000_000),
    "val2014": Archive(f"{SITE}/zips/val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3", 6_000_000_000),
    "annotations": Archive(
        f"{SITE}/annotations/annotations_trainval2014.zip", "0a379cfc70b0e71301e0f377548639bd", 241_000_000, grows=5
    ),
}  # the archive of each folder; sizes as the site says them


def prepare_coco(
    root: Path, out: Path | None, lists: str, workers: int, verify: bool, overwrite: bool, download: bool
) -> str:
    """Fetch COCO 2014 where it is missing, paint its masks, write tags and lists; return a table of what is there.

    What is there of the same annotations is kept. Nothing is written before annotations and photographs are checked.
    ``root`` holds or receives ``train2014``, ``val2014`` and ``annotations``; ``out``, or else ``root``, receives
    ``masks``, ``tags_*.csv``, ``train.txt`` and ``val.txt``. ``lists`` says which names these two hold, a key of
    `coco.PUBLISHED`. ``verify`` also reads every mask and compares it with what was painted. ``overwrite`` replaces
    masks of other annotations, and other lists. Without ``download``, only archives that lie in ``root`` are unpacked.
    """
    for folder, archive in ARCHIVES.items():
        is_folder = folder != "annotations"
        names = [folder] if is_folder else [f"{folder}/instances_{split}2014.json" for split in coco.SPLITS]
        if missing := [name for name in names if not (root / name).exists()]:
            with unpacked(obtain(archive, root, download)) as part:
                for name in missing:
                    put(part / name, root / name)
    out = out or root
    train, val = stages = [Stage(name, root, out, lists, overwrite) for name in coco.SPLITS]
    if both := sorted(train.rows.keys() & val.rows):  # lists and CAM files know a photograph by its name alone
        raise MismatchError(
            f"{len(both)} names of photographs stand in both {train.annotations} and {val.annotations}, the first "
            f"{both[0]}; expected each once"
        )
    if rows := [row for stage in stages for name, row in stage.rows.items() if name not in stage.painted]:
        sizes = [disk.label_bytes(row.height, row.width) for row in rows]
        print(disk.require_room(out / "masks", len(rows), sizes, "masks"), file=sys.stderr)
    for stage in stages:
        stage.paint(workers)
        with files.atomic(stage.names) as file:
            file.write("".join(f"{name}\n" for name in stage.listed).encode())
    for stage in stages if verify else ():
        stage.verify(workers)
    head = f"{'split':<10}{'ids':>8}{'tagged':>8}  {'checksum':<18}{out}"
    return "\n".join([head, *(stage.report() for stage in stages)])


class Stage(coco.Split):
    """The way of one split from annotations to masks, tags and list."""

    def __init__(self, name: str, root: Path, out: Path, lists: str, overwrite: bool) -> None:
        """Take the table of a finished split, else read the annotations; look for photographs and for another list."""
        super().__init__(name, root, out)
        digest = records.digest_of_file(self.annotations)
        self.config = {"prepare": "coco", "annotations": digest, "rule": instances.RULE, "classes": list(classes.COCO)}
        self.begun = records.same_run(self.masks, self.config, overwrite)
        self.painted = set(folders.masks_in(self.masks)) if self.begun else set()
        self.scenes: list[instances.Scene] | None = None  # nothing is left to paint
        if not (self.masks / records.RUN_FILE).exists() and folders.masks_in(self.masks):
            raise OccupiedError(f"{self.masks} holds PNG files that were not made here; name another folder with --out")
        record = records.record_of(self.masks) if self.begun else {}
        finished = bool(record.get("finished")) and self.table.is_file()
        if finished and records.digest_of_file(self.table) != record.get("checksum"):
            raise MismatchError(
                f"{self.table} has not the checksum in {self.masks / records.RUN_FILE}; delete it and prepare again"
            )
        self.rows = coco.read_table(self.table) if finished else {}
        if not self.rows or not self.rows.keys() <= self.painted:
            if lacking := len(self.rows.keys() - self.painted):
                print(f"{lacking} masks are missing in {self.masks} and are painted again", file=sys.stderr)
            print(f"reading {self.annotations}", file=sys.stderr)
            self.scenes = instances.read_scenes(self.annotations)
            self.rows = {scene.name: coco.Row(scene.tags, scene.height, scene.width, "") for scene in self.scenes}
        require_photos(self.photos, list(self.rows), self.annotations.name)
        self.listed = [photo for photo, row in self.rows.items() if lists == "all" or row.tags]
        self.published = coco.PUBLISHED[lists][name]
        if not overwrite and self.names.exists() and folders.read_list(self.names) != self.listed:
            raise OccupiedError(
                f"{self.names} is not the list that --lists {lists} makes; rename or delete it, or give its own --lists"
            )

    def paint(self, workers: int) -> None:
        """Paint every scene, for its digest, and write the masks that are not there yet and the table; once."""
        if self.scenes is None:
            return
        if not self.begun:  # the table goes first of what was made of other annotations: nothing is trained on the rest
            for path in (self.table, *(self.masks / f"{name}.png" for name in self.rows)):
                path.unlink(missing_ok=True)
            records.write_run(self.masks, self.config, finished=False)
        files.remove_parts(self.masks, {*self.rows, "run"})
        jobs = ((each, None if each.name in self.painted else self.masks / f"{each.name}.png") for each in self.scenes)
        painted = progress(spread(_paint, jobs, workers, modules=[__name__]), len(self.rows), f"masks of {self.folder}")
        for name, pixels in painted:
            self.rows[name] = self.rows[name]._replace(mask=pixels)
        with files.atomic(self.table) as file:
            file.write(coco.table_text(self.rows).encode())
        checksum = records.digest_of_file(self.table)
        records.write_run(self.masks, self.config, finished=True, files=len(self.rows), checksum=checksum)

    def verify(self, workers: int) -> None:
        """Read every mask; a `DamagedError` where one is not what was painted."""
        jobs = ((self.masks / f"{name}.png", row) for name, row in self.rows.items())
        compared = progress(
            spread(_compare, jobs, workers, modules=[__name__]), len(self.rows), f"masks of {self.folder} read"
        )
        if faults := [f"{name}.png: {fault}" for name, fault in zip(self.rows, compared, strict=True) if fault]:
            raise DamagedError(
                f"{len(faults)} of {len(self.rows)} masks in {self.masks} are not as painted, the first {faults[0]}; "
                "delete them and give the same command: they are made again"
            )

    def report(self) -> str:
        """Count what the list holds, beside the published number."""
        count, tagged = len(self.listed), sum(bool(self.rows[name].tags) for name in self.listed)
        checksum = records.record_of(self.masks)["checksum"]
        note = "as published" if count == self.published else f"the published one has {self.published:,}"
        return f"{self.name:<10}{count:>8}{tagged:>8}  {checksum[:16]:<18}{note}"


def _paint(job: tuple[instances.Scene, Path | None]) -> tuple[str, str]:
    scene, path = job
    label = instances.paint(scene)
    if path is not None:
        labels.write_label(path, label)
    return scene.name, _digest(label)


def _compare(job: tuple[Path, coco.Row]) -> str | None:
    """Return what is wrong with a mask file, None where nothing is."""
    path, row = job
    try:
        label = labels.read_label(path)
    except Exception as error:  # of a damaged file, Pillow raises more kinds than read_label names
        return str(error)
    if label.shape != (row.height, row.width):
        return f"{label.shape[1]} x {label.shape[0]} pixels, expected {row.width} x {row.height}"
    return None if _digest(label) == row.mask else "other pixels"


def _digest(label: np.ndarray) -> str:
    """Digest of the pixels, not of the file, which depends on the version of zlib."""
    return hashlib.sha256(label.tobytes()).hexdigest()[:16]
