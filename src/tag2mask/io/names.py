"""Names that lists, tables and JSON files give: of photographs, which name files, and of classes."""

import re
import unicodedata
from pathlib import Path

from tag2mask.errors import DamagedError

LONGEST = 220
"""Bytes of a name: with its ending and what `files.atomic` adds it stays below the 255 of most file systems."""


def checked(name: str, where: object, of_file: bool = True) -> str:
    """Return a name that a file of the user's gives (``where``: which file, and where in it).

    It is a ``DamagedError`` where the name holds a control character, such as NUL or ESC, or is too long; where it
    becomes the name of a file, also where it holds ``/``, or is ``.`` or ``..``.
    """
    controls = name.translate(_CONTROLS) if not name.isprintable() else name
    fault = (
        "a control character"
        if controls != name
        else f"{len(name):,} characters"
        if len(name.encode(errors="surrogateescape")) > LONGEST
        else "a folder"
        if of_file and ("/" in name or name in (".", ".."))
        else None
    )
    if fault is not None:
        shown = ascii(name if len(name) <= 60 else f"{name[:60]}...")
        raise DamagedError(f"{where}: a name with {fault}, {shown}; expected a plain name of at most {LONGEST} bytes")
    return name


def file_in(folder: Path, name: str, ending: str) -> Path:
    """Return the file ``name`` with an ``ending`` in a folder; the name is `checked` once more, before it is written.

    What names a photograph may come from a file of the user's that was read elsewhere.
    """
    return folder / f"{checked(name, folder)}{ending}"


def lines_of(text: str) -> list[str]:
    """Split a text where lines end, on any system; ``str.splitlines`` splits at control characters too."""
    return re.split(r"\r\n|\r|\n", text)


_CONTROLS = {code: None for code in range(0x10000) if unicodedata.category(chr(code)) in ("Cc", "Zl", "Zp")}
