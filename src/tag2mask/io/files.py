"""Files that a killed process cannot spoil: each is written beside its place and then moved over it."""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tag2mask.errors import DamagedError, MissingError


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path, names: Collection[str]) -> None:
    """Delete the half-written files of killed processes in ``folder``; ``names`` are the file names without endings."""
    for part in folder.glob(".*.part"):
        if part.name[1:].rsplit(".", 3)[0] in names:
            part.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON; tuples become lists and paths text."""
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str)
    with atomic(path) as file:
        file.write(text.encode(errors="backslashreplace") + b"\n")  # names of files may be any bytes


def read_json(path: Path) -> Any:
    """Read a JSON file; ``MissingError`` where there is none, ``DamagedError`` where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist; make it again, or correct the path") from None
    except (ValueError, OSError) as error:
        raise DamagedError(f"{path} is not a JSON file ({error}); delete it and make it again") from error
