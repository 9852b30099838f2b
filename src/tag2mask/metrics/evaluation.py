"""Scores of a folder of CAM files or label PNGs against masks.

Shape letters in this file: G classes with the background, N thresholds.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tag2mask.classes import IGNORE
from tag2mask.errors import InputError
from tag2mask.io import folders
from tag2mask.io.cams import read_cam
from tag2mask.io.files import read_json
from tag2mask.io.labels import read_label, require_classes
from tag2mask.io.records import RUN_FILE, STEPS
from tag2mask.metrics.functional import at_each_threshold, at_full_size, confusion, histogram, miou_of_image, scores
from tag2mask.utils.progress import progress

MEANS = ("miou", "mfdr", "mfnr", "miou_foreground", "mfdr_foreground", "mfnr_foreground")
WORST = 12
"""How many photographs ``images_worst`` names."""


@dataclass(frozen=True)
class Task:
    """What is scored.

    Attributes:
        predictions: folder of CAM files (.npz) or of label PNGs.
        masks: folder of label PNGs with the truth.
        names: photographs to score; each must have both.
        classes: names by mask value, the background first.
    """

    predictions: Path
    masks: Path
    names: Sequence[str]
    classes: Sequence[str]

    @cached_property
    def predicted(self) -> dict[str, Path]:
        """Name -> CAM file where the folder holds such, else label PNG."""
        return folders.files_in(self.predictions, folders.CAM_ENDINGS) or folders.masks_in(self.predictions)

    @cached_property
    def truths(self) -> dict[str, Path]:
        """Name -> mask."""
        return folders.masks_in(self.masks)

    @property
    def ending(self) -> str:
        """``.npz`` where the folder holds CAM files, else ``.png``."""
        return next((path.suffix.lower() for path in self.predicted.values()), ".png")


def read_names(predictions: Path, masks: Path, listed: Path | None) -> list[str]:
    """Return the photographs to score: those in the list, or without a list every prediction that has a mask."""
    for folder in (predictions, masks):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; expected one of predictions and one of masks")
    if listed is not None:
        names = folders.read_list(listed)
    else:
        names = sorted(predicted(predictions) & set(folders.masks_in(masks)))
    if not names:
        raise InputError(f"nothing to score: no name in {listed or predictions} that has a mask in {masks}")
    return names


def predicted(folder: Path) -> set[str]:
    """Return the names of the CAM files and label PNGs in a folder."""
    found = folders.paths_in(folder, (*folders.CAM_ENDINGS, *folders.MASK_ENDINGS))
    return {folders.unified(path.stem) for path in found}


def check_complete(task: Task) -> None:
    """Raise ``InputError`` where a photograph of the list lacks its prediction or its mask."""
    for folder, ending, there in (
        (task.predictions, task.ending, task.predicted),
        (task.masks, ".png", task.truths),
    ):
        missing = [name for name in task.names if name not in there]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(task.names)} listed photographs have no {ending} file in {folder}, the first "
                f"{missing[0]}; make them or shorten the list: none is left out silently"
            )
    require_classes([task.truths[name] for name in task.names])


def evaluate(task: Task, thresholds: Sequence[float], threshold: float | None = None) -> dict[str, Any]:
    """Score every photograph at full size.

    Args:
        task: what is scored.
        thresholds: background thresholds of the sweep, for CAM files.
        threshold: one chosen elsewhere, scored besides.

    Returns:
        For label PNGs the scores under ``best``, and where `labels` has kept the steps on the way to them, all of them
        under ``steps``; for CAM files those of the best threshold under ``best``, of the given one under
        ``fixed`` and all under ``sweep``. Fractions; ``iou``, ``fdr``, ``fnr`` by class name, null where undefined.
        ``images_digest`` is the SHA-256 of the names. ``images_worst`` names the photographs with the lowest ``miou``
        of their own, over the classes that they truly show; for CAM files at the threshold of ``fixed``, else of
        ``best``.
    """
    check_complete(task)
    digest = hashlib.sha256("\n".join(sorted(task.names)).encode()).hexdigest()
    what = {"images": len(task.names), "images_digest": digest}
    if task.ending == ".png":
        counts, each_image = count_labels(task)
        best = _named(scores(counts), task.classes)
        worst = _worst(task.names, each_image)
        return {**what, "best": best, "images_worst": worst, **_steps(task, best)}
    steps = sorted({*thresholds, *([] if threshold is None else [threshold])})
    counts, each_image = count_cams(task, steps)
    each = [_named(scores(matrix), task.classes) for matrix in counts]
    for value, score in zip(steps, each, strict=True):
        score["threshold"] = value
    result: dict[str, Any] = {**what, "best": max(each, key=lambda s: s["miou"] or 0.0)}
    if threshold is not None:
        result["fixed"] = each[steps.index(threshold)]
    chosen = steps.index(result.get("fixed", result["best"])["threshold"])
    result["images_worst"] = _worst(task.names, each_image[:, chosen])
    result["sweep"] = [{k: s[k] for k in ("threshold", *MEANS)} for s in each]
    return result


def _worst(names: Sequence[str], means: Tensor) -> list[dict[str, Any]]:
    """Name the photographs with the lowest means, the lowest first; those without a scored pixel are left out."""
    known = ((mean, name) for name, mean in zip(names, means.tolist(), strict=True) if mean == mean)
    return [{"name": name, "miou": mean} for mean, name in heapq.nsmallest(WORST, known)]


def _steps(task: Task, best: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Score the label maps after each step, which lie in ``steps/<step>``; the last step is the label itself."""
    record = task.predictions / RUN_FILE
    names = read_json(record).get("config", {}).get("step_names", []) if record.is_file() else []
    found = {}
    for name in names[:-1]:
        before = replace(task, predictions=task.predictions / STEPS / name)
        if before.predictions.is_dir():
            found[name] = evaluate(before, ())["best"]
    return {"steps": {**found, names[-1]: dict(best)}} if found else {}


def count_cams(task: Task, thresholds: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the confusion matrix of CAM files at every threshold, (N, G, G) int64, and each photograph's mean IoU.

    Args:
        task: what is scored.
        thresholds: in rising order, (N,). The mean IoUs are (names, N).
    """
    counts, bounds = torch.zeros((), dtype=torch.long), torch.tensor(thresholds, dtype=torch.float32)
    means = torch.empty(len(task.names), len(thresholds), dtype=torch.float64)
    for row, name in enumerate(_told(task)):
        path = task.predicted[name]
        cam, truth = read_cam(path), _truth(task, name)
        if cam.size != truth.shape:
            raise InputError(_sizes(path, cam.size, task.truths[name], truth.shape))
        if len(cam.classes) and not 0 < cam.classes.min() <= cam.classes.max() < len(task.classes):
            raise InputError(
                f"{path} holds the class {cam.classes.max()}; expected 1 to {len(task.classes) - 1}: give --classes of "
                "the data set it was made for"
            )
        score, winner = at_full_size(cam.cam, cam.classes.to(torch.uint8), truth.shape)
        image = histogram(score, winner, torch.from_numpy(truth), bounds, len(task.classes))
        counts = counts + image
        means[row] = miou_of_image(at_each_threshold(image))
    return at_each_threshold(counts), means


def count_labels(task: Task) -> tuple[Tensor, Tensor]:
    """Return the confusion matrix of label PNGs, (G, G) int64, and the mean IoU of each photograph, (names,)."""
    counts = torch.zeros((), dtype=torch.long)
    means = torch.empty(len(task.names), dtype=torch.float64)
    for row, name in enumerate(_told(task)):
        path = task.predicted[name]
        label, truth = read_label(path), _truth(task, name)
        if label.shape != truth.shape:
            raise InputError(_sizes(path, label.shape, task.truths[name], truth.shape))
        if label.max() >= len(task.classes):
            raise InputError(f"{path} holds the value {label.max()}; expected 0 to {len(task.classes) - 1} for scoring")
        image = confusion(torch.from_numpy(label), torch.from_numpy(truth), len(task.classes))
        counts = counts + image
        means[row] = miou_of_image(image)
    return counts, means


def _told(task: Task) -> Iterator[str]:
    """Pass the names on, and tell how many are scored."""
    return progress(task.names, len(task.names), f"photographs of {task.predictions} scored")


def _truth(task: Task, name: str) -> np.ndarray:
    path = task.truths[name]
    truth = read_label(path)
    beyond = truth[(truth >= len(task.classes)) & (truth != IGNORE)]
    if beyond.size:
        raise InputError(f"{path} holds the value {beyond[0]}; expected 0 to {len(task.classes) - 1} or {IGNORE}")
    return truth


def _sizes(path: Path, size: Iterable[int], mask: Path, other: Iterable[int]) -> str:
    ours, theirs = tuple(map(int, size)), tuple(other)
    shown = [" x ".join(map(str, each)) for each in (ours, theirs)]
    hint = "they must be of one size"
    if ours == theirs[::-1]:
        hint = (
            "the photograph is turned by its EXIF orientation and one of them is not: turn that, or remove the EXIF tag"
        )
    return f"{path} is of a photograph of {shown[0]} pixels (height x width), {mask} is {shown[1]}; {hint}"


def _named(found: dict[str, Tensor], classes: Sequence[str]) -> dict[str, Any]:
    """Turn scores into plain numbers, per-class ones by name, undefined ones into None."""
    plain: dict[str, Any] = {}
    for key, value in found.items():
        numbers = [None if v != v else v for v in value.double().flatten().tolist()]
        plain[key] = dict(zip(classes, numbers, strict=True)) if value.ndim else numbers[0]
    return plain


def mean_over(score: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the means of IoU, FDR and FNR over some classes, keyed ``miou7``, ``mfdr7``, ``mfnr7`` for seven."""
    unknown = [name for name in names if name not in score["iou"]]
    if unknown:
        raise InputError(f"no class {unknown[0]!r} among {', '.join(score['iou'])}; mend --mean-over")
    means = {}
    for key in ("iou", "fdr", "fnr"):
        values = [score[key][name] for name in names if score[key][name] is not None]
        means[f"m{key}{len(names)}"] = sum(values) / len(values) if values else None
    return means


def table(result: dict[str, Any]) -> str:
    """Return the scores as text, in percent: a line a class, then the means."""
    shown = result.get("fixed", result["best"])
    lines = [f"{'class':<16}{'IoU':>7}{'FDR':>7}{'FNR':>7}"]
    for name in shown["iou"]:
        lines.append(f"{name:<16}" + "".join(_percent(shown[key][name]) for key in ("iou", "fdr", "fnr")))
    lines.append(f"{'mean':<16}" + "".join(_percent(shown[key]) for key in MEANS[:3]))
    lines.append(f"{'mean foreground':<16}" + "".join(_percent(shown[key]) for key in MEANS[3:]))
    for key in shown:
        if key.startswith("miou") and key[4:].isdigit():
            names = (key, key.replace("iou", "fdr"), key.replace("iou", "fnr"))
            lines.append(f"{'mean of ' + key[4:]:<16}" + "".join(_percent(shown[name]) for name in names))
    head = f"{result['images']} images, percent"
    if "threshold" in shown:
        how = "given" if "fixed" in result else "best of the sweep, chosen on these images"
        head += f", threshold {shown['threshold']:.2f} ({how})"
    return "\n".join([head, *lines])


def steps_table(results: Mapping[Path, dict[str, Any]]) -> str:
    """Return a line for each folder of predictions, and for each step on the way to it, in percent."""
    lines = []
    for folder, result in results.items():
        rows = {f"{folder.name}: {step}": score for step, score in result.get("steps", {}).items()}
        rows = rows or {folder.name: result.get("fixed", result["best"])}
        for name, score in rows.items():
            over = next((key[4:] for key in score if key.startswith("miou") and key[4:].isdigit()), "")
            shown = [score[f"{key}{over}"] for key in ("miou", "mfdr", "mfnr")]
            threshold = f"{score['threshold']:>11.2f}" if "threshold" in score else f"{'-':>11}"
            lines.append((name, "".join(_percent(value) for value in shown) + threshold, over))
    width = max(len(name) for name, _, _ in lines)
    over = lines[0][2]
    images = {result["images"] for result in results.values()}
    head = f"{' and '.join(map(str, sorted(images)))} images, percent" + (f", mean of {over} classes" if over else "")
    columns = f"{'':<{width}}{'mIoU':>7}{'mFDR':>7}{'mFNR':>7}{'threshold':>11}"
    return "\n".join([head, columns, *(f"{name:<{width}}{numbers}" for name, numbers, _ in lines)])


def _percent(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{100 * value:>7.1f}"
