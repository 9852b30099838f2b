"""``run.json`` beside every output: the configuration, command, commit, versions and time that made it."""

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from tag2mask import __version__
from tag2mask.errors import DamagedError, MismatchError
from tag2mask.io.files import read_json, write_json
from tag2mask.io.names import checked

RUN_FILE = "run.json"
STEPS, SOFT, EDGES, ROUNDS = "steps", "soft", "edges", "rounds"
"""Folders within a folder of labels: label maps after each step before the last, ``steps/<step>``; the CAMs that the
labels were cut from; the edge maps that stopped the walk; labels of earlier rounds of a probe, ``rounds/<round>``."""


def write_run(folder: Path, config: dict[str, Any], **facts: Any) -> None:
    """Write ``run.json`` into ``folder``: the configuration, the command, commit, versions, time and ``facts``."""
    record = {"config": config, "command": " ".join(sys.argv), "commit": commit(), "versions": versions()}
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_json(folder / RUN_FILE, {**record, "time": time, **facts})


def record_of(folder: Path) -> dict[str, Any]:
    """Read ``run.json`` of a folder; empty where there is none, ``DamagedError`` where it records no run."""
    path = folder / RUN_FILE
    if not path.is_file():
        return {}
    record = read_json(path)
    config: Any = record.get("config") if isinstance(record, dict) else None
    names: Any = (config.get("classes") or []) if isinstance(config, dict) else None
    texts = [record.get("checkpoint", ""), config.get("cams", ""), *names] if isinstance(names, list) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise DamagedError(f"{path} is not the record of a run; delete it, and the files beside it that are not known")
    for name in texts[2:]:
        checked(str(name), path, of_file=False)
    return record  # type: ignore[no-any-return]


def same_run(folder: Path, config: dict[str, Any], overwrite: bool = False) -> bool:
    """Say whether a stage goes on in a folder: its files were made with the same configuration.

    It is False where the folder has no ``run.json`` or ``overwrite`` is set. Another configuration is a
    ``MismatchError``.
    """
    record = {} if overwrite else record_of(folder)
    if record and (changed := changed_setting(record, config)):
        raise other_configuration(folder, changed)
    return bool(record)


def other_configuration(folder: Path, changed: str) -> MismatchError:
    """Return the error that a folder was made with other settings, the first of which ``changed`` names."""
    remedy = "give --overwrite to replace it, or name another folder"
    return MismatchError(f"{folder} was made with another configuration ({changed}); {remedy}")


def changed_setting(record: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Name the first setting of ``config`` that differs from a record; None where none does."""
    before, now = record["config"], json.loads(json.dumps(config, default=str))
    return None if before == now else first_difference(before, now)


def first_difference(before: Any, now: Any, name: str = "") -> str:
    """Name the first place where two configurations differ, as ``trainer.max_epochs: 15, now 20``."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            if before.get(key) != now.get(key):
                return first_difference(before.get(key), now.get(key), f"{name}.{key}".strip("."))
    return f"{name or 'it'}: {before!r}, now {now!r}"


def made_with(folder: Path) -> str | None:
    """Return the digest of the configuration that a folder was made with; None where it has no ``run.json``."""
    record = record_of(folder)
    return digest_of_data(record["config"]) if record else None


def digest_of_data(content: Any) -> str:
    """Return the SHA-256 of plain data, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def digest_of_file(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file, in hexadecimal digits."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of tag2mask, of Python and of the installed packages that the numbers of a run depend on."""
    installed = {"tag2mask": __version__, "python": platform.python_version()}
    for name in ("torch", "torchvision", "lightning", "timm", "albumentations", "numpy", "opencv-python-headless"):
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def commit() -> str:
    """Return the commit of the running source tree, with ``+changes`` where files differ from it, or ``unknown``."""
    package = Path(__file__).parents[1]

    def git(*words: str) -> str:
        command = ["git", "-C", str(package), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # fails for a copy in somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
