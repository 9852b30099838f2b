"""Runs of W&B: whether somebody is logged in, what a run is called, which one goes on."""

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from tag2mask.io.provenance import LAST
from tag2mask.io.records import record_of


def logged_in() -> bool:
    """Whether W&B would find a key here; W&B is not asked, and the key is not read."""
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return "WANDB_API_KEY" in os.environ or (netrc.is_file() and "wandb" in netrc.read_text(errors="ignore"))


def loggers_in(loggers: Any) -> list[Any]:
    """Return the settings of each ``WandbLogger`` among those of the trainer's loggers."""
    each = loggers if isinstance(loggers, list) else [loggers]
    return [one for one in each if hasattr(one, "get") and "WandbLogger" in str(one.get("class_path"))]


def name_run(logger: Any, root: Path, task: str, overwrite: bool) -> None:
    """Fill in what the configuration leaves open of a W&B run: where it lies, what it is called, which one goes on.

    A training that goes on in its run folder ``root`` goes on in its W&B run, unless ``overwrite`` discards it. Runs
    whose folders lie side by side share a group: they are stages of one pipeline, as for `tag2mask report`.
    """
    goes_on = not overwrite and (root / LAST).is_file()
    before = record_of(root).get("wandb_id") if goes_on else None
    folder = root.resolve()
    logger.id = logger.id or os.environ.get("WANDB_RUN_ID") or before or uuid4().hex[:8]
    logger.save_dir = str(root) if logger.save_dir in (None, ".") else logger.save_dir
    logger.name = logger.name or f"{folder.parent.name}/{folder.name}"
    logger.group = logger.group or os.environ.get("WANDB_RUN_GROUP") or folder.parent.name
    logger.job_type = logger.job_type or os.environ.get("WANDB_JOB_TYPE") or task
