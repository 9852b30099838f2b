"""One writer for each output folder: a lock that ends with its process, however that ends."""

import errno
import fcntl
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from tag2mask.errors import OccupiedError

LOCK = ".lock"
PATIENCE = 10.0  # seconds: the loaders of a killed process live on for a moment, and hold what it held
WITHOUT = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}  # of file systems that have no locks
_held: dict[Path, tuple[IO[str], list[Path]]] = {}  # by this process: the lock file, and the folders made for it


def take(folder: Path, shared: bool = False) -> None:
    """Hold an output folder, which is made if it is missing, until `release_all`, or until the process ends.

    ``shared`` lets others in that also share it, such as the shards of one job. Folders that cannot be written, and
    file systems without locks, are not held.

    Raises:
        OccupiedError: another process writes into the folder, and the error says which one; or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OccupiedError(f"{folder} is a file, but files are to be written into it; name a folder")
    if (key := folder.resolve()) in _held:
        return
    made = [each for each in (key, *key.parents) if not each.exists()]  # the innermost first
    end = time.monotonic() + PATIENCE
    while (file := _opened(key / LOCK)) and not _locked(file, shared):
        if time.monotonic() > end:
            file.seek(0)
            who = " ".join(file.read(500).split()) or "another process"
            file.close()
            raise OccupiedError(f"{folder} is being written by {who}; wait for its end, or name another folder")
        file.close()
        time.sleep(0.2)
    if file is None:
        return
    _held[key] = file, made
    with suppress(OSError):  # a full disk
        file.truncate(0)
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        command = " ".join(["tag2mask", *sys.argv[1:4]])
        print(f"process {os.getpid()} on {socket.gethostname()} since {now} ({command} ...)", file=file, flush=True)


def release_all() -> None:
    """Let all folders go that this process holds; take away lock files, and new folders that nothing was written to."""
    while _held:
        folder, (file, made) = _held.popitem()
        with file:
            if _locked(file, shared=False):  # no other shard is left
                (folder / LOCK).unlink(missing_ok=True)
                with suppress(OSError):  # one that is not empty
                    for each in made:
                        each.rmdir()
            fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would leave it to processes that were forked meanwhile


def _opened(path: Path) -> IO[str] | None:
    """Open a lock file, which is made if it is missing, with its folder; None where nothing can be written there."""
    try:
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # its last holder has just taken the folder away
                return open(path, "a+", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return None
        raise


def _locked(file: IO[str], shared: bool) -> bool:
    """Try to lock a file that still stands at its place; True also where the file system has no locks."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in WITHOUT
    with suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))  # else its holder took it away meanwhile
    return False
