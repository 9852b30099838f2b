"""MS COCO 2014: where its files lie, the tables of tags that `data.prepare.coco` writes, the photographs of a split."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tag2mask import classes
from tag2mask.data.photos import Photo, require_photos
from tag2mask.errors import DamagedError, MissingError
from tag2mask.io.folders import read_list, read_text
from tag2mask.io.names import checked, lines_of

SPLITS = ("train", "val")
PUBLISHED = {"all": {"train": 82783, "val": 40504}, "annotated": {"train": 82081, "val": 40137}}
"""Images of each list: every one of the annotation file, or those with an object that is no crowd."""


class Split:
    """Where the files of ``train`` or ``val`` lie: what was published in ``root``, what is made of it in ``out``."""

    def __init__(self, name: str, root: Path, out: Path) -> None:
        self.name, self.folder = name, f"{name}2014"
        self.photos = root / self.folder
        self.annotations = root / "annotations" / f"instances_{self.folder}.json"
        self.masks = out / "masks" / self.folder
        self.table = out / f"tags_{self.folder}.csv"  # a `Row` a photograph
        self.names = out / f"{name}.txt"  # what is trained on or scored


class Row(NamedTuple):
    """What the table of a split says of a photograph."""

    tags: tuple[int, ...]  # mask values
    height: int
    width: int
    mask: str  # digest of its pixels


HEADER = ",".join(("name", *Row._fields))


def table_text(rows: Mapping[str, Row]) -> str:
    """Return the table of a split as CSV; the names of classes are separated by ``;``."""
    tags = {name: ";".join(classes.COCO[tag] for tag in row.tags) for name, row in rows.items()}
    lines = [f"{name},{tags[name]},{row.height},{row.width},{row.mask}" for name, row in rows.items()]
    return "\n".join([HEADER, *lines, ""])


def read_table(path: Path) -> dict[str, Row]:
    """Read the table of a split, name by name."""
    value_of = {name: value for value, name in enumerate(classes.COCO) if value != classes.BACKGROUND}
    again = "delete it and make it again with `tag2mask prepare coco`"
    header, *lines = lines_of(read_text(path, f"{HEADER}; {again}").removesuffix("\n"))
    if header != HEADER:
        raise DamagedError(f"{path} does not start with {HEADER}; {again}")
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, 2):
        try:
            name, tags, height, width, mask = line.split(",")
            values = tuple(value_of[tag] for tag in tags.split(";")) if tags else ()
            rows[checked(name, path)] = Row(values, int(height), int(width), mask)
        except (ValueError, KeyError):
            raise DamagedError(f"{path}, line {number}: {line[:40]!r}; expected {HEADER}; {again}") from None
    return rows


def coco_photos(root: Path, prepared: Path, split: str) -> list[Photo]:
    """Return the photographs that ``<split>.txt`` names, ``train``, ``val`` or another list; opens no image.

    It lies in ``prepared``, the folder of masks, tables and lists that `tag2mask prepare coco --out` wrote.
    """
    path = prepared / f"{split}.txt"
    make = f"make them with `tag2mask prepare coco --root {root}{'' if prepared == root else f' --out {prepared}'}`"
    if not path.is_file():
        raise MissingError(f"no split {split!r}: {path} does not exist; expected {', '.join(SPLITS)} or a list; {make}")
    names = read_list(path)
    if not names:
        raise DamagedError(f"{path} is empty; expected one name of a photograph a line")
    photos: dict[str, Photo] = {}
    for files in (Split(part, root, prepared) for part in SPLITS):
        rows = read_table(files.table) if files.table.is_file() else {}
        of_part = [name for name in names if name in rows]
        images = require_photos(files.photos, of_part, path.name) if of_part else {}
        photos |= {n: Photo(n, images[n], rows[n].tags, files.masks / f"{n}.png") for n in of_part}
    missing = [name for name in names if name not in photos]
    if missing:
        raise MissingError(
            f"{len(missing)} of {len(names)} names in {path} are in no table tags_*2014.csv beside it, the first "
            f"{missing[0]}; {make}, or take them off the list"
        )
    return [photos[name] for name in names]
