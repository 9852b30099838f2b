"""What the checkpoints of the project say of themselves, and who may load them."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from itertools import takewhile
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
    if task != "affinity" and tuple(found["classes"]) != tuple(class_names):  # edges have no classes
        raise InputError(
            f"the checkpoint has the classes {shown(found['classes'], class_names)}, the data "
            f"{shown(class_names, found['classes'])}; names and order must be the same: use the data set that it was "
            "trained on"
        )


def shown(names: Sequence[str], others: Sequence[str]) -> str:
    """Name some classes up to the first that another list has otherwise, and how many there are."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(names, others, strict=False)))
    begin = max(0, same - 2)
    part = ", ".join(names[begin : begin + 4])
    return f"{'..., ' if begin else ''}{part}{', ...' if begin + 4 < len(names) else ''} ({len(names)})"


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Digest of all weights of a ``state_dict``, the same on any device and from the network's checkpoint."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # bytes: NumPy knows no bfloat16
        digest.update(name.encode() + flat.numpy().tobytes())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return `weights_digest` of the network in a checkpoint."""
    return weights_digest(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])


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


def check_file(path: Path, task: str | None = None) -> None:
    """Raise ``InputError`` where a checkpoint is missing, cut short, not of this project, or of another task."""
    from tag2mask.tasks import affinity, cam, segmentation  # noqa: F401  they name the types that checkpoints hold

    if not path.is_file():
        raise InputError(f"no checkpoint {path}; give the .ckpt file that `tag2mask fit` wrote into its run folder")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is not a whole checkpoint (cut short, or another file); use another one or train again"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"{path} is not a whole checkpoint ({reason}); use another one or train again") from None
    if not isinstance(content, dict) or "tag2mask" not in content:
        raise InputError(f"{path} is not a checkpoint of tag2mask; give the .ckpt file that `tag2mask fit` wrote")
    if task is not None and content["tag2mask"]["task"] != task:
        raise InputError(
            f"{path} is a checkpoint of the {content['tag2mask']['task']} network; expected one of the {task} network, "
            f"trained with a configuration {task}_*.yaml"
        )
