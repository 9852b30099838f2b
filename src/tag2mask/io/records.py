"""``run.json`` beside every output: configuration, command, commit, versions, time."""

import hashlib
import json
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from tag2mask import __version__
from tag2mask.errors import InputError
from tag2mask.io.files import read_json, write_json

RUN_FILE = "run.json"
STEPS = "steps"
"""Folder, within a folder of labels, of the label maps after each step before the last: ``steps/<step>``."""


def commit() -> str:
    """Return the commit of the source tree that runs, with ``+changes`` where files differ from it, or ``unknown``."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not a copy that lies in somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", str(folder)) else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    names = ("torch", "torchvision", "lightning", "timm", "albumentations", "numpy", "opencv-python-headless")
    found = {"tag2mask": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_run(folder: Path, config: dict[str, Any], **facts: Any) -> None:
    """Write ``run.json`` into ``folder``: the configuration, the command, commit, versions, time and ``facts``."""
    record = {
        "config": config,
        "command": " ".join(sys.argv),
        "commit": commit(),
        "versions": versions(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **facts,
    }
    write_json(Path(folder) / RUN_FILE, record)


def digest(path: Path, kind: str = "sha256") -> str:
    """Return the digest of a file, in hexadecimal digits."""
    found = hashlib.new(kind)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def made_with(folder: Path) -> str | None:
    """Return a digest of the configuration that the outputs in ``folder`` were made with; None where nothing says."""
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        return None
    config = read_json(path).get("config", {})
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def same_run(folder: Path, config: dict[str, Any], overwrite: bool = False) -> bool:
    """Say whether the outputs in ``folder`` were made with ``config``, so that the work can be taken up there.

    Returns:
        False where the folder has no ``run.json`` (nothing was begun) or where ``overwrite`` is set.

    Raises:
        InputError: they were made with another configuration.
    """
    path = Path(folder) / RUN_FILE
    if overwrite or not path.exists():
        return False
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(f"{path} is not the record of a run; delete it, and what is beside it if you do not know it")
    before = record.get("config")
    now = json.loads(json.dumps(config, default=str))
    if before != now:
        raise InputError(
            f"{folder} was made with another configuration ({first_difference(before, now)}); give --overwrite to "
            "replace it, or name another folder"
        )
    return True


def first_difference(before: Any, now: Any, name: str = "") -> str:
    """Name the first place where two configurations differ, as ``trainer.max_epochs: 15, now 20``."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            if before.get(key) != now.get(key):
                return first_difference(before.get(key), now.get(key), f"{name}.{key}".strip("."))
    return f"{name or 'it'}: {before!r}, now {now!r}"
