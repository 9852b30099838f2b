"""One's own photographs: a folder with ``images/``, ``tags.csv``, and if there are ``masks/`` and ``classes.txt``.

``tags.csv`` has the columns ``name`` and ``tags``. Where a tag of the file is set off by ``;`` or ``|``, these separate
all of its tags and blanks belong to them; else commas and blanks separate them. ``classes.txt`` has a class a line, in
the order of the mask values 1, 2, ...; without it, the tags in alphabetical order are the classes. ``train.txt``,
``val.txt`` and the like list the names of a split, one a line.
"""

import csv
import difflib
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tag2mask.classes import is_background
from tag2mask.data.photos import Photo
from tag2mask.errors import InputError
from tag2mask.io.folders import (
    check_classes,
    masks_in,
    near_photo,
    photos_in,
    plain,
    read_classes,
    read_list,
    read_text,
    without_ending,
)


class Row(NamedTuple):
    """A line of ``tags.csv``: its number, the name of the photograph, and its tags as they stand there."""

    line: int
    name: str
    field: str


def read_tags(path: Path, known: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Read ``tags.csv`` as name -> tags. An empty field is none of the classes.

    Args:
        path: the file; a byte-order mark, spaces around fields and ``;`` or tabs between columns are understood.
        known: the classes there are; a tag that is none of them is an error. Empty takes every tag.
    """
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; expected a table with the columns name,tags; name the folder that holds it and "
            "images/ (with --data.init_args.root for training)"
        )
    rows = list(_rows(path))
    blanks_belong = any(re.search("[;|]", row.field) for row in rows)
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        if row.name in found:
            raise InputError(f"{path}, line {row.line}: {row.name!r} stands there twice; keep one line a photograph")
        found[row.name] = _split_tags(row.field, known, blanks_belong)
        _check_tags(found[row.name], known, f"{path}, line {row.line}")
    if not found:
        raise InputError(f"{path} lists no photograph; expected a line name,tags for each")
    return found


def _rows(path: Path) -> Iterator[Row]:
    lines = read_text(path, "a table with the columns name,tags").splitlines()
    header = lines[0] if lines else ""
    delimiter = next((sign for sign in ",;\t" if sign in header), ",")
    rows = csv.reader(lines, delimiter=delimiter)
    columns = [field.strip().lower() for field in next(rows, [])]
    if "name" not in columns or "tags" not in columns:
        raise InputError(
            f"{path} starts with {header!r}; expected a first line that names the columns name and tags, with a comma, "
            "a semicolon or a tab between them: name,tags"
        )
    at_name, at_tags = columns.index("name"), columns.index("tags")
    surplus = "," if delimiter == "," else ";"  # name,cat,dog
    before = rows.line_num
    for row in rows:
        number, before = before + 1, rows.line_num
        if rows.line_num > number:
            raise InputError(f"{path}, line {number}: a quotation mark does not close on its line; mend or remove it")
        if not any(field.strip() for field in row):
            continue
        if len(row) <= max(at_name, at_tags):
            raise InputError(f"{path}, line {number}: {len(row)} column(s); expected {','.join(columns)}")
        if len(row) > len(columns) and at_tags < len(columns) - 1:
            raise InputError(f"{path}, line {number}: {len(row)} columns; expected {','.join(columns)}")
        tags = row[at_tags:] if at_tags == len(columns) - 1 else [row[at_tags]]
        yield Row(number, without_ending(row[at_name].strip()), surplus.join(tag for tag in tags if tag.strip()))


def _split_tags(field: str, known: tuple[str, ...], blanks_belong: bool) -> tuple[str, ...]:
    if blanks_belong or "," in field:
        parts = re.split("[;|,]", field)
    else:
        parts = [field] if plain(field) in known else field.split()
    return tuple(dict.fromkeys(plain(part) for part in parts if part.strip()))


def _check_tags(tags: tuple[str, ...], known: tuple[str, ...], where: str) -> None:
    for tag in tags:
        if is_background(tag):
            raise InputError(
                f"{where}: the tag {tag!r} is no class, but what is left when all are found; take it out: a photograph "
                "of no class has an empty field"
            )
        if known and tag not in known:
            near = difflib.get_close_matches(tag, known, 1)
            hint = f"did you mean {near[0]!r}" if near else f"the classes are {', '.join(known)}"
            raise InputError(f"{where}: unknown tag {tag!r} ({hint}); mend the tag or add it to classes.txt")


def near_doubles(counts: Mapping[str, int]) -> list[str]:
    """Ask about classes that may be one: they differ in case, blanks, hyphens or Unicode form, or one is two others.

    Args:
        counts: class -> how many photographs have it.

    Returns:
        A sentence for each group of such names.
    """
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(_bare(name), []).append(name)
    asked = []
    for group in (group for group in alike.values() if len(group) > 1):
        what = "case" if len({name.casefold() for name in group}) == 1 else "case, blanks, hyphens or Unicode form"
        asked.append(f"{_counted(group, counts)} differ only in {what}: are they one class? make them alike")
    for name in counts:
        words = name.split()
        if len(words) > 1 and set(words) <= set(counts):
            asked.append(
                f"{_counted([name], counts)} is made of the classes {' and '.join(map(repr, words))}: are these tags "
                "separated by blanks? where one tag of the file is set off by ; all must be"
            )
    return asked


def _bare(name: str) -> str:
    signs = unicodedata.normalize("NFKC", name).casefold()
    return "".join(sign for sign in signs if not (sign.isspace() or sign in "_-" or unicodedata.category(sign) == "Cf"))


def _counted(group: list[str], counts: Mapping[str, int]) -> str:
    first, *others = (f"{name!r} ({counts[name]}" for name in group)
    named = [f"{first} photograph{'' if counts[group[0]] == 1 else 's'})", *(f"{other})" for other in others)]
    return " and ".join([*([", ".join(named[:-1])] if others else []), named[-1]])


def place(root: Path, name: str) -> Path:
    """Return a file or folder of ``root``, there or not; ``InputError`` where only one of another case is there."""
    path = root / name
    if not path.exists() and root.is_dir():
        others = [other.name for other in sorted(root.iterdir()) if other.name.casefold() == name.casefold()]
        if others:
            raise InputError(f"{root} has {others[0]}, which is not read; rename it to {name}")
    return path


def class_names(root: Path) -> tuple[str, ...]:
    """Return the foreground classes: the lines of ``classes.txt``, or the tags in alphabetical order."""
    path = place(root, "classes.txt")
    if path.is_file():
        return read_classes(path)
    table = place(root, "tags.csv")
    return check_classes(tuple(sorted({tag for tags in read_tags(table).values() for tag in tags})), table)


def folder_tags(root: Path) -> dict[str, tuple[str, ...]]:
    """Return name -> tags of all photographs with a line in ``tags.csv``; none where there is no such file."""
    path = place(root, "tags.csv")
    return read_tags(path, class_names(root)) if path.is_file() else {}


def folder_photos(root: Path, split: str) -> list[Photo]:
    """Return the photographs of a split.

    A split is the names in ``<split>.txt``. Where there is no such file, ``train`` is every tagged photograph, ``val``
    every one with tags and mask, and any other split every photograph in ``images/``.
    """
    images = _images(root)
    names, tags = class_names(root), folder_tags(root)
    masks = masks_in(place(root, "masks"))
    listed = place(root, f"{split}.txt")
    if listed.is_file():
        wanted = read_list(listed)
    elif split in ("train", "val"):
        wanted = [name for name in tags if split == "train" or name in masks]
    else:
        wanted = sorted(images)
    missing = [name for name in wanted if name not in images]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(wanted)} names of the split {split} have no photograph in {root / 'images'}, the "
            f"first {missing[0]!r}; add it or take its line out of {listed.name if listed.is_file() else 'tags.csv'}"
            f"{near_photo(root / 'images', missing[0])}"
        )
    return [Photo(name, images[name], _values(tags.get(name), names), masks.get(name)) for name in wanted]


def _values(tags: tuple[str, ...] | None, names: tuple[str, ...]) -> tuple[int, ...] | None:
    return None if tags is None else tuple(sorted(names.index(tag) + 1 for tag in tags))


def _images(root: Path) -> dict[str, Path]:
    folder = place(root, "images")
    if not folder.is_dir():
        raise InputError(
            f"no folder images in {root.resolve()}; put the photographs there, or set --data.init_args.root"
        )
    return photos_in(folder)
