"""One's own photographs: a folder with ``images/``, ``tags.csv``, and if there are ``masks/`` and ``classes.txt``.

``tags.csv`` has the columns ``name`` and ``tags``. Where a tag of the file is set off by ``;`` or ``|``, these separate
all of its tags and blanks belong to them; else commas and blanks separate them. ``classes.txt`` has a class a line, in
the order of the mask values 1, 2, ...; without it, the tags in alphabetical order are the classes.
"""

import csv
import difflib
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from tag2mask.classes import is_background
from tag2mask.data.photos import Photo, require_photos
from tag2mask.errors import DamagedError, MismatchError
from tag2mask.io import folders
from tag2mask.io.files import decoding
from tag2mask.io.folders import plain
from tag2mask.io.names import checked, lines_of


def read_tags(path: Path, known: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Read ``tags.csv``, with commas, ``;`` or tabs between columns, as name -> tags; an empty field is no class.

    A tag that is none of the ``known`` classes is an error, where these are given.
    """
    with decoding(path, "a table", "expected the columns name,tags: mend it"):
        fields = _read_fields(path)
    blanks_belong = any(re.search("[;|]", field) for _, field in fields.values())
    tags_of: dict[str, tuple[str, ...]] = {}
    for name, (where, field) in fields.items():
        whole = blanks_belong or "," in field or plain(field) in known
        parts = re.split("[;|,]", field) if whole else field.split()
        tags = (plain(checked(part, where, of_file=False)) for part in parts if part.strip())
        tags_of[name] = tuple(dict.fromkeys(tags))
        for tag in tags_of[name]:
            if is_background(tag):
                raise DamagedError(
                    f"{where}: the tag {tag!r} is no class, but what is left when all are found; take it out"
                )
            if known and tag not in known:
                near = difflib.get_close_matches(tag, known, 1)
                hint = f"did you mean {near[0]!r}" if near else f"the classes are {', '.join(known)}"
                raise MismatchError(f"{where}: unknown tag {tag!r} ({hint}); mend the tag or add it to classes.txt")
    return tags_of


def _read_fields(path: Path) -> dict[str, tuple[str, str]]:
    """Read ``tags.csv`` as name -> its file and line, and its tags as they stand there."""
    expected = "a table with the columns name,tags; name the folder that holds it and images/ (--data.init_args.root)"
    lines = lines_of(folders.read_text(path, expected))
    delimiter = next((sign for sign in ",;\t" if sign in lines[0]), ",")
    columns = [field.strip().lower() for field in next(csv.reader(lines[:1], delimiter=delimiter), [])]
    if "name" not in columns or "tags" not in columns:
        raise DamagedError(
            f"{path} starts with {lines[0][:60]!r}; expected a first line that names the columns name and tags, with a "
            "comma, a semicolon or a tab between them: name,tags"
        )
    at_name, at_tags = columns.index("name"), columns.index("tags")
    tags_end = None if at_tags == len(columns) - 1 else at_tags + 1  # name,cat,dog
    fields: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines[1:], 2):
        where = f"{path}, line {number}"
        row, *rest = csv.reader([line, ""], delimiter=delimiter)
        if not rest:  # it has gone on in the next line
            raise DamagedError(f"{where}: a quotation mark does not close on its line; mend or remove it")
        if not any(field.strip() for field in row):
            continue
        if len(row) <= max(at_name, at_tags) or (tags_end and len(row) > len(columns)):
            raise DamagedError(f"{where}: {len(row)} column(s); expected {','.join(columns)}")
        name = folders.photo_name(row[at_name], where)
        if name in fields:
            raise DamagedError(f"{where}: {name!r} stands there twice; keep one line a photograph")
        mark = "," if delimiter == "," else ";"
        fields[name] = where, mark.join(tag for tag in row[at_tags:tags_end] if tag.strip())
    if not fields:
        raise DamagedError(f"{path} lists no photograph; expected a line name,tags for each")
    return fields


def near_doubles(counts: Mapping[str, int]) -> list[str]:
    """Ask, a sentence each, about classes that may be one; ``counts`` is class -> how many photographs have it."""
    alike: dict[str, list[str]] = {}
    questions = []
    for name in counts:
        signs = unicodedata.normalize("NFKC", name).casefold()
        bare = (sign for sign in signs if unicodedata.category(sign) not in ("Zs", "Cf", "Pc", "Pd"))  # blanks, - and _
        alike.setdefault("".join(bare), []).append(f"{name!r} ({counts[name]} photographs)")
        if len(words := name.split()) > 1 and set(words) <= set(counts):
            questions.append(
                f"{name!r} ({counts[name]} photographs) is made of the classes {' and '.join(map(repr, words))}: are "
                "these tags separated by blanks? where one tag of the file is set off by ; all must be"
            )
    doubles = [" and ".join(group) for group in alike.values() if len(group) > 1]
    advice = "differ only in case, blanks, hyphens or Unicode form: are they one class? make them alike"
    return [f"{names} {advice}" for names in doubles] + questions


def place(root: Path, name: str) -> Path:
    """Return a file or folder of ``root``, there or not; ``MismatchError`` where only one of another case is there."""
    path = root / name
    if not path.exists() and root.is_dir():
        for other in sorted(root.iterdir()):
            if other.name.casefold() == name.casefold():
                raise MismatchError(f"{root} has {other.name}, which is not read; rename it to {name}")
    return path


def class_names(root: Path) -> tuple[str, ...]:
    """Return the foreground classes: the lines of ``classes.txt``, or the tags in alphabetical order."""
    path = place(root, "classes.txt")
    if path.is_file():
        return folders.read_classes(path)
    table = place(root, "tags.csv")
    return folders.check_classes(tuple(sorted({tag for tags in read_tags(table).values() for tag in tags})), table)


def folder_tags(root: Path) -> dict[str, tuple[str, ...]]:
    """Return name -> tags of all photographs with a line in ``tags.csv``; none where there is no such file."""
    path = place(root, "tags.csv")
    return read_tags(path, class_names(root)) if path.is_file() else {}


def folder_photos(root: Path, split: str) -> list[Photo]:
    """Return the photographs of a split: those that ``<split>.txt`` names, one a line.

    Where there is no such file, ``train`` is every tagged photograph, ``val`` every one with tags and mask, and any
    other split every photograph in ``images/``.
    """
    folder = place(root, "images")
    images, masks = require_photos(folder, (), ""), folders.masks_in(place(root, "masks"))
    names, tags_of = class_names(root), folder_tags(root)
    listed = place(root, f"{split}.txt")
    if listed.is_file():
        wanted = folders.read_list(listed)
    elif split in ("train", "val"):
        wanted = [name for name in tags_of if split == "train" or name in masks]
    else:
        wanted = sorted(images)
    require_photos(folder, wanted, listed.name if listed.is_file() else "tags.csv")
    values = {name: tuple(sorted(names.index(tag) + 1 for tag in tags)) for name, tags in tags_of.items()}
    return [Photo(name, images[name], values.get(name), masks.get(name)) for name in wanted]
