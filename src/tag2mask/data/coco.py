"""MS COCO 2014: its folders, the tables of tags that are made of its annotations, and the photographs of a split.

``root`` holds ``train2014``, ``val2014`` and ``annotations/instances_*2014.json``. `data.prepare.coco` writes, there or
into a folder of its own, ``masks/<folder>/<name>.png``, ``tags_<folder>.csv`` and the lists ``train.txt``, ``val.txt``.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tag2mask import classes
from tag2mask.data.photos import Photo
from tag2mask.errors import InputError
from tag2mask.io.folders import read_list

SPLITS = ("train", "val")
PUBLISHED = {"all": {"train": 82783, "val": 40504}, "annotated": {"train": 82081, "val": 40137}}
"""Images of each list: every one of the annotation file, or those with an object that is no crowd."""
COLUMNS = ("name", "tags", "height", "width", "mask")


@dataclass(frozen=True)
class Split:
    """Where the files of ``train`` or ``val`` lie.

    Attributes:
        name: one of `SPLITS`.
        root: folder of photographs and annotations.
        out: folder of what is made of them.
    """

    name: str
    root: Path
    out: Path

    @property
    def folder(self) -> str:
        """Name that COCO gives the split."""
        return f"{self.name}2014"

    @property
    def photos(self) -> Path:
        """Folder of the photographs."""
        return self.root / self.folder

    @property
    def annotations(self) -> Path:
        """File of the objects."""
        return self.root / "annotations" / f"instances_{self.folder}.json"

    @property
    def masks(self) -> Path:
        """Folder of the label PNGs."""
        return self.out / "masks" / self.folder

    @property
    def table(self) -> Path:
        """File of tags, sizes and digests of masks, `Row` by row."""
        return self.out / f"tags_{self.folder}.csv"

    @property
    def names(self) -> Path:
        """File of the names to train on or to score."""
        return self.out / f"{self.name}.txt"


class Row(NamedTuple):
    """What the table of a split says of a photograph: tags as mask values, size in pixels, digest of its mask."""

    tags: tuple[int, ...]
    height: int
    width: int
    mask: str


def table_text(rows: Mapping[str, Row]) -> str:
    """Return the table of a split as CSV; the names of classes are separated by ``;``."""
    lines = [",".join(COLUMNS)]
    for name, row in rows.items():
        tags = ";".join(classes.COCO[tag] for tag in row.tags)
        lines.append(f"{name},{tags},{row.height},{row.width},{row.mask}")
    return "\n".join([*lines, ""])


def read_table(path: Path) -> dict[str, Row]:
    """Read the table of a split, name by name."""
    value_of = {name: value for value, name in enumerate(classes.COCO) if value != classes.BACKGROUND}
    known: dict[str, tuple[int, ...]] = {"": ()}
    again = "delete it and make it again with `tag2mask prepare coco`"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); {again}") from None
    if not lines or lines[0] != ",".join(COLUMNS):
        raise InputError(f"{path} does not start with {','.join(COLUMNS)}; {again}")
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            name, tags, height, width, mask = line.split(",")
            if tags not in known:
                known[tags] = tuple(value_of[tag] for tag in tags.split(";"))
            rows[name] = Row(known[tags], int(height), int(width), mask)
        except (ValueError, KeyError):
            raise InputError(f"{path}, line {number}: {line[:40]!r}; expected {','.join(COLUMNS)}; {again}") from None
    return rows


def require_photos(split: Split, names: Sequence[str]) -> dict[str, str]:
    """Return the file of each photograph of a split by its name without ending, from one listing of the folder.

    Raises:
        InputError: some of ``names`` are not there.
    """
    if not split.photos.is_dir():
        raise InputError(
            f"no folder {split.photos}; name the one of train2014 and val2014 as root, or fetch them with `tag2mask "
            "prepare coco`"
        )
    files = (os.path.splitext(file) for file in sorted(os.listdir(split.photos), reverse=True))
    there = {name: name + ending for name, ending in files if ending.lower() in (".jpg", ".png")}
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} photographs are missing in {split.photos}, the first {missing[0]}; unpack "
            f"{split.folder}.zip again"
        )
    return there


def coco_photos(root: Path, prepared: Path, split: str) -> list[Photo]:
    """Return the photographs of a split, with tags and the paths of their masks.

    Reads the list and the tables and lists the folders of the photographs; opens no image.

    Args:
        root: folder of ``train2014`` and ``val2014``.
        prepared: folder of masks, tables and lists, that `tag2mask prepare coco --out` wrote.
        split: ``train``, ``val``, or another list ``<split>.txt`` in ``prepared`` of photographs of either.
    """
    names = _listed(root, prepared, split)
    likely = sorted(SPLITS, key=lambda name: f"{name}2014" not in names[0])
    photos: dict[str, Photo] = {}
    for part in (Split(name, root, prepared) for name in likely):
        left = [name for name in names if name not in photos]
        if not left or not part.table.is_file():
            continue
        rows = read_table(part.table)
        found = [name for name in left if name in rows]
        there = require_photos(part, found) if found else {}
        folder, masks = part.photos, part.masks
        for name in found:
            photos[name] = Photo(name, folder / there[name], rows[name].tags, masks / f"{name}.png")
    missing = [name for name in names if name not in photos]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} names in {prepared / f'{split}.txt'} are in no table tags_*2014.csv "
            f"beside it, the first {missing[0]}; {_prepare(root, prepared)}, or take them off the list"
        )
    return [photos[name] for name in names]


def _listed(root: Path, prepared: Path, split: str) -> Sequence[str]:
    path = prepared / f"{split}.txt"
    if not path.is_file():
        expected = "its lists" if split in SPLITS else f"one of {', '.join(SPLITS)}, or that file"
        raise InputError(f"no split {split!r}: {path} does not exist; expected {expected}; {_prepare(root, prepared)}")
    names = read_list(path)
    if not names:
        raise InputError(f"{path} is empty; expected one name of a photograph a line")
    return names


def _prepare(root: Path, prepared: Path) -> str:
    out = "" if prepared == root else f" --out {prepared}"
    return f"make them with `tag2mask prepare coco --root {root}{out}`"
