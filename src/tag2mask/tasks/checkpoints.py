"""Checkpoints: what they say of themselves, and the one place that loads them."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import torch

from tag2mask.errors import DamagedError, MismatchError, MissingError
from tag2mask.tasks import settings  # noqa: F401  it names the types that checkpoints hold

Task = TypeVar("Task", bound=Any)


def check_file(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Return the content of a checkpoint of ours, of the ``kind`` cam, affinity or segmentation (None: any).

    Raises:
        MissingError: there is no such file.
        DamagedError: it is cut short, or not a checkpoint.
        MismatchError: it is not of tag2mask, or of a network of another kind.
    """
    if not path.is_file():
        raise MissingError(f"no checkpoint {path}; give the .ckpt file that `tag2mask fit` wrote into its run folder")
    try:
        reason = "cut short, or another file"
        content = torch.load(path, map_location="cpu", weights_only=True) if zipfile.is_zipfile(path) else None
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        content, reason = None, (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    if content is None:
        raise DamagedError(f"{path} is not a whole checkpoint ({reason}); use another one or train again")
    require_kind(content, kind, str(path))
    checked: dict[str, Any] = content
    return checked


def require_kind(content: Any, kind: str | None, path: str = "the checkpoint") -> None:
    """Raise ``MismatchError`` where a checkpoint is not of tag2mask, or of another network than the ``kind``."""
    trained = content["tag2mask"]["task"] if isinstance(content, dict) and "tag2mask" in content else None
    if trained is None or kind not in (None, trained):
        of = f"a checkpoint of the {trained} network" if trained else "not a checkpoint of tag2mask"
        wanted = f"with a configuration {kind}_*.yaml" if kind else "into its run folder"
        raise MismatchError(f"{path} is {of}; give the .ckpt file that `tag2mask fit` wrote {wanted}")


def load(task_class: type[Task], path: str | Path, device: str = "cpu") -> Task:
    """Return the trained network of a checkpoint as a `NetworkTask` in evaluation mode, with its ``preprocessing``.

    Raises:
        InputError: as for `check_file`; also where the checkpoint does not say how images are normalised.
    """
    check_file(Path(path), task_class.kind)
    task: Task = task_class.load_from_checkpoint(path, map_location="cpu", weights_only=True)
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
