"""Runs of W&B: whether somebody is logged in, what a run is called, which one goes on."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from tag2mask.io.provenance import LAST
from tag2mask.io.records import record_of


def logged_in() -> bool:
    """Whether W&B would find a key here; W&B is not asked, and the key is not read."""
    if "WANDB_API_KEY" in os.environ:
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return netrc.is_file() and "wandb" in netrc.read_text(errors="ignore")


def offline_unless_logged_in() -> None:
    """Let W&B log into the run folder where nobody is logged in, rather than stop and ask."""
    if not logged_in():
        os.environ.setdefault("WANDB_MODE", "offline")


def loggers_in(loggers: Any) -> list[Any]:
    """Return the settings of each ``WandbLogger`` among those of the trainer's loggers."""
    each = loggers if isinstance(loggers, list) else [loggers]
    return [one for one in each if hasattr(one, "get") and "WandbLogger" in str(one.get("class_path"))]


def name_run(logger: Any, root: Path, task: str, overwrite: bool) -> None:
    """Fill in what the configuration leaves open of a W&B run: where it lies, what it is called, which one goes on.

    Runs whose folders lie side by side share a group: they are stages of one pipeline, as for `tag2mask report`.

    Args:
        logger: settings of ``WandbLogger``.
        root: the run folder; a training that goes on there goes on in its W&B run.
        task: the network that is trained: ``cam``, ``affinity``, ``segmentation``.
        overwrite: whatever the run folder holds is discarded.
    """
    goes_on = not overwrite and (root / LAST).is_file()
    before = record_of(root).get("wandb_id") if goes_on else None
    folder = root.resolve()
    logger.id = logger.id or os.environ.get("WANDB_RUN_ID") or before or uuid4().hex[:8]
    logger.save_dir = str(root) if logger.save_dir in (None, ".") else logger.save_dir
    logger.name = logger.name or f"{folder.parent.name}/{folder.name}"
    logger.group = logger.group or os.environ.get("WANDB_RUN_GROUP") or folder.parent.name
    logger.job_type = logger.job_type or os.environ.get("WANDB_JOB_TYPE") or task


def end_run(loggers: Sequence[Any], status: int) -> None:
    """End the W&B run of this process, where there is one."""
    if any(type(logger).__name__ == "WandbLogger" for logger in loggers):
        import wandb

        if wandb.run is not None:
            wandb.finish(exit_code=status)
