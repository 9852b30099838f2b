"""Fetching published archives: a download goes on where it broke off, and nothing is seen before it is whole."""

import http.client
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

from tag2mask.errors import MissingError, UnreachableError
from tag2mask.io import disk
from tag2mask.io.files import decoding
from tag2mask.io.records import digest_of_file
from tag2mask.utils.progress import progress


class Archive(NamedTuple):
    """A ``.zip`` or ``.tar`` of ``size`` bytes; packed and unpacked, it takes ``grows`` times that on disk."""

    address: str
    md5: str
    size: int
    grows: float = 2.0


def obtain(archive: Archive, folder: Path, download: bool = True) -> Path:
    """Return the archive in ``folder``, where it is kept; ``download`` fetches one that is not there whole."""
    name = archive.address.rpartition("/")[2]
    path, part = folder / name, folder / f".{name}.part"
    if _is_whole(path, archive):
        return path
    if path.is_file():
        print(f"{path} is cut short or another file: its MD5 is not {archive.md5}", file=sys.stderr)
    if not download:
        raise MissingError(f"no whole {path}; leave out --no-download, or put {archive.address} there, by hand")
    disk.require_room(folder, 2, [archive.grows * archive.size / 2], f"copies of {name}, packed and unpacked,")
    print(f"fetching {archive.address} into {folder}", file=sys.stderr)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_whole(part, archive):  # it is, where killed between its last byte and its name
            _download(archive.address, part)
        if not _is_whole(part, archive):
            part.unlink()
            raise ValueError(f"the MD5 of what came is not {archive.md5}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        if getattr(error, "code", None) == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)  # longer than what is published
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnreachableError(
            f"{archive.address} cannot be fetched ({reason}); give the same command again: it goes on where it broke "
            f"off; or fetch it by hand and put it into {folder}"
        ) from error
    os.replace(part, path)
    return path


def _is_whole(path: Path, archive: Archive) -> bool:
    return path.is_file() and digest_of_file(path, "md5") == archive.md5


def _download(address: str, part: Path) -> None:
    """Append to ``part`` what it lacks; begin anew where the server cannot go on in the middle."""
    have = part.stat().st_size if part.is_file() else 0
    request = Request(address, headers={"User-Agent": "tag2mask"} | ({"Range": f"bytes={have}-"} if have else {}))
    with urlopen(request, timeout=60) as answer, open(part, "ab") as file:
        if getattr(answer, "status", None) != http.client.PARTIAL_CONTENT:
            file.truncate(0)
        left = int(answer.headers.get("Content-Length") or 0)
        megabyte = 1_000_000
        blocks = iter(lambda: answer.read(megabyte), b"")
        for block in progress(blocks, -(-left // megabyte), f"MB of {address.rpartition('/')[2]}"):
            file.write(block)
            left -= len(block)
    if left > 0:
        raise OSError(f"the connection broke off {disk.readable_size(left)} before the end")


@contextmanager
def unpacked(path: Path, only: str = "") -> Iterator[Path]:
    """Unpack an archive beside it while the block lasts; of a ``.tar`` only members with ``only`` in their names."""
    part = path.with_name(f".{path.name}.unpacked")
    print(f"unpacking {path}", file=sys.stderr)
    shutil.rmtree(part, ignore_errors=True)  # of a killed process
    try:
        with decoding(path, "an archive", "delete it and give the same command"):
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as packed:
                    packed.extractall(part)
            else:
                with tarfile.open(path) as tar:
                    tar.extractall(part, (member for member in tar if only in member.name), filter="data")
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put(source: Path, target: Path) -> None:
    """Move a file or a folder to its place; in a folder that stands there, only what is missing or cut short."""
    if target.is_dir() and source.is_dir():
        for inner in sorted(source.iterdir()):
            put(inner, target / inner.name)
    elif not target.exists() or target.stat().st_size < source.stat().st_size:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
