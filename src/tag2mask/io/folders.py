"""What a folder of photographs, masks or CAM files holds, and what lists and ``classes.txt`` name: one rule for all.

The name of a photograph is its file name without the ending. Upper and lower case of an ending are the same. All names
here are in the Unicode form NFC (macOS writes NFD). Files whose names begin with a dot are left out.
"""

import os
import unicodedata
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path

from tag2mask.classes import IGNORE, is_background
from tag2mask.errors import DamagedError, MismatchError
from tag2mask.io.files import TEXT, decoding
from tag2mask.io.names import checked, lines_of

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_ENDINGS = (".png",)
CAM_ENDINGS = (".npz",)


def paths_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder with one of ``endings`` (lower case), sorted; none where there is no folder."""
    return [folder / name for name, is_file in _entries(folder) if is_file and _ending(name) in endings]


def files_in(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Return name -> file of those with one of ``endings``; ``MismatchError`` where two files share a name."""
    files: dict[str, Path] = {}
    for path in paths_in(folder, endings):
        other = files.setdefault(unified(path.stem), path)
        if other is not path:
            raise MismatchError(f"{other.name} and {path.name} in {folder} share a name; rename one")
    return files


photos_in, masks_in = partial(files_in, endings=PHOTO_ENDINGS), partial(files_in, endings=MASK_ENDINGS)


def unread(folder: Path, endings: tuple[str, ...]) -> str | None:
    """Count what lies in a folder besides files with ``endings``, as ``3 .heic, 1 folder(s)``; None: nothing does."""
    entries = _entries(folder)
    kinds = Counter((_ending(name) or "without an ending") if is_file else "folder(s)" for name, is_file in entries)
    return ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds) if kind not in endings) or None


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """List the names in a folder, sorted, each with whether it is a file; empty where there is no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted((entry.name, entry.is_file()) for entry in entries if not entry.name.startswith("."))


def near_photo(folder: Path, name: str) -> str:
    """Return the end of a message: which file near a folder may be the photograph that is missing there; else empty."""
    stem = without_ending(name).casefold()
    near = (path for path in _all_in(folder) if stem in map(str.casefold, map(unified, (path.stem, path.name))))
    if (path := next(near, None)) is None:
        return ""
    if (ending := _ending(path.name)) not in PHOTO_ENDINGS:
        return f"; {path} is there, but {ending or 'a file without ending'} is not read: save it as JPEG or PNG"
    remedy = "name its folder, or move it" if path.parent != folder else "rename one as the other"
    return f"; {path} is there: {remedy}"


@lru_cache(4)  # every name of a list may be missing
def _all_in(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()))


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def unified(text: str) -> str:
    """Return a text in the Unicode form NFC, in which an accented letter is one character."""
    return unicodedata.normalize("NFC", text)


def plain(text: str) -> str:
    """Return the name of a class as it is compared: in NFC, its words separated by single blanks."""
    return unified(" ".join(text.split()))


def without_ending(name: str) -> str:
    """Return the name of a photograph that is given with or without the ending of its file."""
    return unified(os.path.splitext(name)[0] if _ending(name) in PHOTO_ENDINGS else name)


def photo_name(text: str, where: object) -> str:
    """Return the name of a photograph that a file of the user's gives, `checked`; see `without_ending`."""
    return without_ending(checked(text.strip(" \t").replace("\t", " "), where).strip())


def read_text(path: Path, expected: str) -> str:
    """Read a text file of the user's; ``MissingError`` or ``DamagedError`` where that fails, with what was expected."""
    with decoding(path, "a text", f"expected {expected}", TEXT):
        content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"{error.reason} at byte {error.start}"
        raise DamagedError(f"{path} is not UTF-8 text ({place}); save it as UTF-8") from None


def read_list(path: Path) -> list[str]:
    """Read names of photographs, one a line, with or without ending; a name that is repeated counts once."""
    lines = lines_of(read_text(path, "a list of names, one a line"))
    return list(dict.fromkeys(photo_name(line, path) for line in lines if line.strip()))


def read_classes(path: Path) -> tuple[str, ...]:
    """Read the foreground classes, one a line in the order of the mask values; the first line may be the background."""
    lines = lines_of(read_text(path, "a class a line"))
    names = [name for line in lines if (name := plain(checked(line.strip("\t"), path, of_file=False)))]
    names = names[1:] if names and is_background(names[0]) else names
    if wrong := next(filter(is_background, names), None):
        raise DamagedError(
            f"{path} names {wrong!r}, the background, which has the value 0 and no line among the classes; take the "
            "line out, and see that the others stand in the order of the mask values 1, 2, ..."
        )
    return check_classes(tuple(names), path)


def check_classes(names: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Return the foreground classes that ``path`` names; ``DamagedError`` for none, too many, or one twice."""
    if not names:
        raise DamagedError(f"{path} names no class; write a class a line, or tags")
    if len(set(names)) < len(names) or len(names) >= IGNORE:
        counts = f"{len(names)} names, {len(set(names))} of them different"
        raise DamagedError(f"{path} has {counts}; expected 1 to 254, each once")
    return names
