"""Files that a killed process cannot spoil: each is written beside its place and then moved over it.

What reads a file goes through `decoding`: whatever a decoder raises for a damaged file becomes one error.
"""

import errno
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile

from tag2mask.errors import DamagedError, InputError, MissingError, SpaceError

MEGABYTE = 1_000_000
TEXT = 100 * MEGABYTE
"""Bytes of a list, a table, an XML or JSON file (but COCO's annotations) at most."""
KEPT_BACK = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE)
"""Errors of the system that say nothing of what a file holds."""


@contextmanager
def decoding(path: Path, kind: str, remedy: str, most: int | None = None) -> Iterator[None]:
    """Turn whatever a decoder raises in the block into one error, which names the file, its ``kind`` and a ``remedy``.

    Decoders of damaged files raise dozens of kinds: ``struct.error``, ``zlib.error``, ``KeyError``, ``RecursionError``.

    Raises:
        MissingError: there is no such file, or the system does not let it be read.
        SpaceError: the file has more than ``most`` bytes, or does not fit into memory.
        DamagedError: whatever else, but a full disk; an ``InputError`` that names the file passes.
    """
    try:
        if most is not None and (size := path.stat().st_size) > most:
            raise SpaceError(f"{path} has {size:,} bytes, more than {most:,}, the limit of {kind}; {remedy}")
        yield
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist; {remedy.removeprefix('delete it and ')}") from None
    except MemoryError as error:
        raise SpaceError(f"{path} does not fit into memory, or is damaged; shrink it, or {remedy}") from error
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in KEPT_BACK:
            raise MissingError(
                f"{path} is kept back by the system ({brief(error)}); look at its permissions and its disk"
            ) from error
        if number == errno.ENOSPC or (isinstance(error, InputError) and str(path) in str(error)):
            raise
        raise DamagedError(f"{path} cannot be read as {kind} ({brief(error)}); {remedy}") from error


def brief(error: BaseException) -> str:
    """Return the text of an error as part of a line, its kind where it has none."""
    text = " ".join(str(error).split())
    return (f"{text} is missing" if isinstance(error, KeyError) else text or type(error).__name__)[:160]


def require_whole_zip(path: Path, most: int, stored: bool = False) -> None:
    """Raise ``ValueError`` for a zip file with a damaged member, or with more than ``most`` bytes in all members.

    ``stored``: members that are compressed are refused.
    """
    with ZipFile(path) as archive:
        members = archive.infolist()
        if (size := sum(member.file_size for member in members)) > most or len(members) > 100_000:
            raise ValueError(f"{len(members):,} parts of {size:,} bytes, more than {most:,}")
        if stored and any(member.compress_type != ZIP_STORED for member in members):
            raise ValueError("a part is compressed")
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} is wrong")


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
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say where
        raise
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
    with decoding(path, "JSON", "delete it and make it again, or correct the path", TEXT):
        return json.loads(path.read_bytes())
