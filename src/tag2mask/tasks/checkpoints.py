"""What the checkpoints of the project say of themselves, and who may load them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tag2mask import __version__
from tag2mask.errors import InputError


def note(checkpoint: dict[str, Any], task: str, class_names: Sequence[str]) -> None:
    """Write into a checkpoint what it is of."""
    checkpoint["tag2mask"] = {"task": task, "classes": list(class_names), "version": __version__}


def check(checkpoint: dict[str, Any], task: str, class_names: Sequence[str]) -> None:
    """Raise ``InputError`` where a checkpoint is of another task or of other classes."""
    found = checkpoint.get("tag2mask")
    if not isinstance(found, dict) or found.get("task") != task:
        of = found.get("task") if isinstance(found, dict) else "another project"
        raise InputError(
            f"the checkpoint is not one of the {task} network but of {of}; give one made by `tag2mask fit` with a "
            f"configuration {task}_*.yaml"
        )
    if len(found["classes"]) != len(class_names):
        raise InputError(
            f"the checkpoint has {len(found['classes'])} classes ({', '.join(found['classes'][:3])}, ...), the data "
            f"{len(class_names)} ({', '.join(class_names[:3])}, ...); use the data set that it was trained on"
        )


def preprocessing(path: Path) -> dict[str, Any]:
    """Return how images are prepared for the network of a checkpoint: the settings of `data.transforms.Preprocessing`.

    Raises:
        InputError: it does not say so.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    found = content.get("datamodule_hyper_parameters", {}).get("preprocessing")
    if not isinstance(found, dict):
        raise InputError(f"{path} does not say how images are normalised; train with a data module of ours")
    return found
