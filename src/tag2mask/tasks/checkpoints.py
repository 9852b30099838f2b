"""Checkpoints: what they say of themselves, and the one place that loads them."""

import hashlib
import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tag2mask.classes import IGNORE
from tag2mask.errors import MismatchError, MissingError
from tag2mask.io.files import decoding, require_whole_zip
from tag2mask.io.names import checked
from tag2mask.tasks import (
    settings,  # noqa: F401  it names the types that checkpoints hold
    weights,
)

Task = TypeVar("Task", bound=Any)
REMEDY = "use another one or train again"
KINDS = {
    **dict.fromkeys(("state_dict", "hyper_parameters", "loops", "callbacks"), dict),
    **dict.fromkeys(("optimizer_states", "lr_schedulers"), list),
    **dict.fromkeys(("epoch", "global_step"), int),
    "pytorch-lightning_version": str,
}
"""Types of what Lightning reads of a checkpoint."""


def check_file(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Return the content of a checkpoint of ours, of the ``kind`` cam, affinity or segmentation (None: any).

    A file of `weights.write` counts as one.

    Raises:
        MissingError: there is no such file.
        DamagedError: it is cut short, or not a checkpoint.
        MismatchError: it is not of tag2mask, or of a network of another kind.
    """
    if not path.is_file():
        raise MissingError(f"no checkpoint {path}; give the .ckpt file that `tag2mask fit` wrote into its run folder")
    with decoding(path, "a checkpoint", REMEDY):
        if path.suffix == weights.ENDING:
            content = weights.read(path)
        else:
            require_whole_zip(path, path.stat().st_size, stored=True)
            _require_small_pickle(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
        require_kind(content, kind, str(path))
        _require_sane(content)
    checked: dict[str, Any] = content
    return checked


def _require_small_pickle(path: Path) -> None:
    """Raise ``ValueError`` for a pickle that would make arrays of any size out of a number; torch allows these."""
    with zipfile.ZipFile(path) as archive:
        pickle = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    for operation, argument, _ in pickletools.genops(pickle):
        if operation.name == "GLOBAL" and argument in ("builtins bytearray", "__builtin__ bytearray", "torch Tensor"):
            raise ValueError(f"it holds a {argument}")


def _require_sane(content: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where a checkpoint holds values of wrong types, or weights that are no finite numbers."""
    if wrong := [key for key, kind in KINDS.items() if not isinstance(content.get(key, kind()), kind)]:
        raise ValueError(f"{wrong[0]} is of type {type(content[wrong[0]]).__name__}")
    ours, state = content["tag2mask"], content["state_dict"]
    names, prepared, given = ours["classes"], ours.get("preprocessing"), content.get("hyper_parameters", {})
    if not isinstance(names, list | tuple) or not 0 < len(names) < IGNORE:
        raise ValueError("no list of 1 to 254 classes")
    for name in names:
        checked(name, "its classes", of_file=False)
    if not isinstance(prepared, dict | None) or given.get("num_classes", len(names)) != len(names):
        raise ValueError("no preprocessing, or another number of classes")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise ValueError(f"{name} is no array of weights")
        if value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{name} has more values than the file holds")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} holds values that are no finite numbers")


def require_kind(content: Any, kind: str | None, path: str = "the checkpoint") -> None:
    """Raise ``MismatchError`` where a checkpoint is not of tag2mask, or of another network than the ``kind``."""
    ours = content.get("tag2mask") if isinstance(content, dict) else None
    trained = ours.get("task") if isinstance(ours, dict) else None
    if trained is None or kind not in (None, trained):
        of = f"a checkpoint of the {trained} network" if trained else "not a checkpoint of tag2mask"
        wanted = f"with a configuration {kind}_*.yaml" if kind else "into its run folder"
        raise MismatchError(f"{path} is {of}; give the .ckpt file that `tag2mask fit` wrote {wanted}")


def load(task_class: type[Task], path: str | Path, device: str = "cpu") -> Task:
    """Return the trained network of a checkpoint as a `NetworkTask` in evaluation mode, with its ``preprocessing``.

    Raises:
        InputError: as for `check_file`; also where the checkpoint does not say how images are normalised.
    """
    content = check_file(Path(path), task_class.kind)
    with decoding(Path(path), "a checkpoint", REMEDY):  # its settings and weights may not belong together
        task: Task
        if Path(path).suffix == weights.ENDING:
            task = task_class(**content["hyper_parameters"])
            task.load_state_dict(content["state_dict"])
            task.on_load_checkpoint(content)
        else:
            task = task_class.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    if not task.preprocessing:
        raise MismatchError(f"{path} does not say how images are normalised; train with a data module of tag2mask")
    task.to(device).eval()
    return task


def require_same_classes(content: Mapping[str, Any], class_names: Sequence[str]) -> None:
    """Raise ``MismatchError`` where a checkpoint was trained for other classes than those of the data."""
    trained = content["tag2mask"]["classes"]
    if list(trained) != list(class_names):
        ours, theirs = some_of(trained, class_names), some_of(class_names, trained)
        raise MismatchError(
            f"the checkpoint has the classes {ours}, the data {theirs}; names and order must be the same: use the data "
            "set that it was trained on"
        )


def some_of(names: Sequence[str], others: Sequence[str]) -> str:
    """Return a few of the names, up to the first one that differs in another list, and the number of all names."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(names, others, strict=False)))
    begin = max(0, same - 2)
    part = ", ".join(names[begin : begin + 4])
    return f"{'..., ' if begin else ''}{part}{', ...' if begin + 4 < len(names) else ''} ({len(names)})"


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return a digest of all weights of a ``state_dict``, the same on any device."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # bytes: NumPy has no bfloat16
        digest.update(name.encode() + flat.numpy().tobytes())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return `weights_digest` of the network in a checkpoint."""
    return weights_digest(check_file(path)["state_dict"])
