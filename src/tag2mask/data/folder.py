"""One's own photographs: a folder with ``images/``, ``tags.csv``, and if there are ``masks/`` and ``classes.txt``.

``tags.csv`` has the columns ``name`` and ``tags``; tags are separated by spaces or, where names of classes hold spaces,
by ``;``. ``classes.txt`` has a class a line, in the order of the mask values 1, 2, ...; without it, the tags in
alphabetical order are the classes. ``train.txt``, ``val.txt`` and the like list the names of a split, one a line.
"""

import csv
import difflib
import re
from pathlib import Path

from tag2mask import classes
from tag2mask.data.photos import Photo
from tag2mask.errors import InputError
from tag2mask.files import PHOTO_ENDINGS


def read_tags(path: Path, known: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Read ``tags.csv`` as name -> tags.

    Args:
        path: the file; a byte-order mark, spaces around fields and ``;`` between columns are understood.
        known: the classes there are; a tag that is none of them is an error. Empty takes every tag.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; expected a table with the columns name,tags; name the folder that holds it and "
            "images/ (with --data.init_args.root for training)"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    lines = text.splitlines()
    header = lines[0] if lines else ""
    rows = csv.reader(lines, delimiter="," if "," in header or ";" not in header else ";")
    columns = [field.strip().lower() for field in next(rows, [])]
    if "name" not in columns or "tags" not in columns:
        raise InputError(f"{path} starts with {header!r}; its first line must name the columns: name,tags")
    at_name, at_tags = columns.index("name"), columns.index("tags")
    found: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(rows, 2):
        if not any(field.strip() for field in row):
            continue
        if len(row) <= max(at_name, at_tags):
            raise InputError(f"{path}, line {number}: {len(row)} column(s); expected {','.join(columns)}")
        if len(row) > len(columns) and at_tags < len(columns) - 1:
            raise InputError(f"{path}, line {number}: {len(row)} columns; expected {','.join(columns)}")
        name = _stem(row[at_name].strip())
        if name in found:
            raise InputError(f"{path}, line {number}: {name!r} stands there twice; keep one line a photograph")
        beyond = row[at_tags:] if at_tags == len(columns) - 1 else [row[at_tags]]  # name,cat,dog
        found[name] = _split_tags(";".join(beyond), known)
        _check_tags(found[name], known, f"{path}, line {number}")
    if not found:
        raise InputError(f"{path} lists no photograph; expected a line name,tags for each")
    return found


def _stem(name: str) -> str:
    return Path(name).stem if name.lower().endswith(PHOTO_ENDINGS) else name


def _split_tags(field: str, known: tuple[str, ...]) -> tuple[str, ...]:
    if ";" in field or "," in field:
        parts = re.split("[;,]", field)
    else:
        parts = [field] if field.strip() in known else field.split()
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _check_tags(tags: tuple[str, ...], known: tuple[str, ...], where: str) -> None:
    for tag in tags:
        if known and tag not in known:
            near = difflib.get_close_matches(tag, known, 1)
            hint = f"did you mean {near[0]!r}" if near else f"the classes are {', '.join(known)}"
            raise InputError(f"{where}: unknown tag {tag!r} ({hint}); mend the tag or add it to classes.txt")


def class_names(root: Path) -> tuple[str, ...]:
    """Return the foreground classes: the lines of ``classes.txt``, or the tags in alphabetical order."""
    path = root / "classes.txt"
    if path.is_file():
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        names = tuple(line for line in lines if line and line != classes.VOC[classes.BACKGROUND])
    else:
        names = tuple(sorted({tag for tags in read_tags(root / "tags.csv").values() for tag in tags}))
    if not names:
        raise InputError(f"{root} names no class: its classes.txt or the tags in its tags.csv are empty")
    if len(set(names)) < len(names) or len(names) >= classes.IGNORE:
        raise InputError(
            f"{path} has {len(names)} names, {len(set(names))} of them different; expected 1 to 254, each once"
        )
    return names


def folder_photos(root: Path, split: str) -> list[Photo]:
    """Return the photographs of a split.

    A split is the names in ``<split>.txt``. Where there is no such file, ``train`` is every tagged photograph, ``val``
    every one with tags and mask, and any other split every photograph in ``images/``.
    """
    images = _images(root)
    names = class_names(root)
    tags = read_tags(root / "tags.csv", names) if (root / "tags.csv").is_file() else {}
    masks = {path.stem: path for path in sorted((root / "masks").glob("*.png"))}
    listed = root / f"{split}.txt"
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
        )
    return [Photo(name, images[name], _values(tags.get(name), names), masks.get(name)) for name in wanted]


def read_list(path: Path) -> list[str]:
    """Read names, one a line, with or without the ending of the photograph."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [_stem(line) for line in lines if line]


def _values(tags: tuple[str, ...] | None, names: tuple[str, ...]) -> tuple[int, ...] | None:
    return None if tags is None else tuple(sorted(names.index(tag) + 1 for tag in tags))


def _images(root: Path) -> dict[str, Path]:
    folder = root / "images"
    if not folder.is_dir():
        raise InputError(
            f"no folder images in {root.resolve()}; put the photographs there, or set --data.init_args.root"
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PHOTO_ENDINGS:
            if path.stem in found:
                raise InputError(f"{found[path.stem].name} and {path.name} in {folder} share a name; rename one")
            found[path.stem] = path
    return found
