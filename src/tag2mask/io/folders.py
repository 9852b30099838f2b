"""What lies in a folder of photographs, masks or CAM files, and what lists and ``classes.txt`` name: one rule for all.

A name is that of the file without its ending. Endings count without regard to case, and a name may be written in either
Unicode form (NFC, or NFD as macOS writes it): all names here are NFC. Files that begin with a dot are nobody's.
"""

import os
import unicodedata
from collections import Counter
from functools import lru_cache
from pathlib import Path

from tag2mask.classes import IGNORE, is_background
from tag2mask.errors import InputError

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_ENDINGS = (".png",)
CAM_ENDINGS = (".npz",)


def paths_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder with one of ``endings`` (lower case), sorted; none where there is no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _ending(entry.name) in endings and entry.is_file()]
    return [folder / name for name in sorted(names) if not name.startswith(".")]


def files_in(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Return name -> file of those in a folder with one of ``endings``.

    Raises:
        InputError: two files share a name.
    """
    found: dict[str, Path] = {}
    for path in paths_in(folder, endings):
        other = found.setdefault(unified(path.stem), path)
        if other is not path:
            raise InputError(f"{other.name} and {path.name} in {folder} share a name; rename one")
    return found


def photos_in(folder: Path) -> dict[str, Path]:
    """Return name -> photograph of those in a folder; ``InputError`` where two share a name."""
    return files_in(folder, PHOTO_ENDINGS)


def masks_in(folder: Path) -> dict[str, Path]:
    """Return name -> label PNG of those in a folder; ``InputError`` where two share a name."""
    return files_in(folder, MASK_ENDINGS)


def near_photo(folder: Path, name: str) -> str:
    """Say which file may be meant by the name of a photograph that is not there; empty where none is near.

    Args:
        folder: where it was looked for; folders in it are looked into.
        name: with or without ending.
    """
    stem = without_ending(name).casefold()
    for path in _all_in(folder):
        if stem not in (unified(path.stem).casefold(), unified(path.name).casefold()):
            continue
        ending = _ending(path.name)
        if ending not in PHOTO_ENDINGS:
            return f"; {path} is there, but {ending or 'a file without ending'} is not read: save it as JPEG or PNG"
        if path.parent != folder:
            return f"; {path} is there: name its folder, or move it"
        return f"; {path} is there: rename one as the other"
    return ""


@lru_cache(4)  # every name of a list may be missing
def _all_in(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()))


def unread(folder: Path, endings: tuple[str, ...]) -> str | None:
    """Count what else lies in a folder, as ``3 .heic, 1 folder``; None where all has one of ``endings``."""
    if not folder.is_dir():
        return None
    with os.scandir(folder) as entries:
        seen = [(e.name, e.is_file()) for e in entries if not e.name.startswith(".")]
    kinds = Counter(_ending(name) or "without an ending" for name, is_file in seen if is_file)
    counts = [f"{kinds[kind]} {kind}" for kind in sorted(kinds) if kind not in endings]
    folders = sum(not is_file for _, is_file in seen)
    return ", ".join([*counts, *([f"{folders} folder(s)"] if folders else [])]) or None


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def unified(text: str) -> str:
    """Return a text in the Unicode form NFC: an accented letter is one sign, however it was typed."""
    return unicodedata.normalize("NFC", text)


def plain(text: str) -> str:
    """Return the name of a class as it is compared: NFC, without blanks around it, single ones within."""
    return unified(" ".join(text.split()))


def without_ending(name: str) -> str:
    """Return the name of a photograph that may be written with its ending."""
    return unified(os.path.splitext(name)[0] if _ending(name) in PHOTO_ENDINGS else name)


def read_text(path: Path, expected: str) -> str:
    """Read a text of the user's; ``InputError`` names what was ``expected`` where that fails."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected {expected}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def read_list(path: Path) -> list[str]:
    """Read names of photographs, one a line, with or without ending, each once; there are no comments.

    Raises:
        InputError: it cannot be read or is not UTF-8 text.
    """
    lines = (line.strip() for line in read_text(path, "a list of names, one a line").splitlines())
    return list(dict.fromkeys(without_ending(line) for line in lines if line))


def read_classes(path: Path) -> tuple[str, ...]:
    """Read the foreground classes, one a line in the order of the mask values; a first line may be the background.

    Raises:
        InputError: no class, too many, one twice, or the background on another line.
    """
    lines = [plain(line) for line in read_text(path, "a class a line").splitlines()]
    named = [(number, line) for number, line in enumerate(lines, 1) if line]
    for number, line in named[1:]:
        if is_background(line):
            raise InputError(
                f"{path}, line {number}: {line!r} is the background, which has the value 0 and no line among the "
                "classes; take the line out, and see that the others stand in the order of the mask values 1, 2, ..."
            )
    names = tuple(line for _, line in named)
    return check_classes(names[1:] if names and is_background(names[0]) else names, path)


def check_classes(names: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Return the foreground classes that ``path`` names; ``InputError`` where they are none, too many or not unique."""
    if not names:
        raise InputError(f"{path} names no class; write a class a line, or tags")
    if len(set(names)) < len(names) or len(names) >= IGNORE:
        raise InputError(
            f"{path} has {len(names)} names, {len(set(names))} of them different; expected 1 to 254, each once"
        )
    return names
