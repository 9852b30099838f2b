"""Scores of a folder of CAM files or label PNGs against masks."""

import hashlib
import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tag2mask.classes import IGNORE
from tag2mask.errors import MismatchError, MissingError, SettingError
from tag2mask.io import folders
from tag2mask.io.cams import read_cam
from tag2mask.io.images import sizes_hint
from tag2mask.io.labels import read_label, require_classes
from tag2mask.io.records import STEPS, record_of
from tag2mask.metrics.functional import at_each_threshold, at_full_size, confusion, histogram, miou_of_image, scores
from tag2mask.utils.progress import progress

RATES = ("iou", "fdr", "fnr")
MEANS = tuple(f"m{rate}{classes}" for classes in ("", "_foreground") for rate in RATES)
WORST = 12  # photographs that ``images_worst`` names


class Task(NamedTuple):
    """What is scored against what; both must be there of each name."""

    predictions: Path  # folder of CAM files (.npz) or label PNGs
    masks: Path  # folder of label PNGs
    names: Sequence[str]  # of photographs
    classes: Sequence[str]  # by mask value, the background first


def predicted(folder: Path) -> set[str]:
    """Return the names of the CAM files and label PNGs in a folder."""
    paths = folders.paths_in(folder, (*folders.CAM_ENDINGS, *folders.MASK_ENDINGS))
    return {folders.unified(path.stem) for path in paths}


def read_names(predictions: Path, masks: Path, listed: Path | None) -> list[str]:
    """Return the photographs to score: those on the list, or without a list every prediction that has a mask."""
    for folder in (predictions, masks):
        if not folder.is_dir():
            raise MissingError(f"{folder} is not a folder; expected one of predictions and one of masks")
    with_mask = predicted(predictions) & set(folders.masks_in(masks))
    names = sorted(with_mask) if listed is None else folders.read_list(listed)
    if not names:
        raise MissingError(f"nothing to score: no name in {listed or predictions} that has a mask in {masks}")
    return names


def evaluate(task: Task, thresholds: Sequence[float], threshold: float | None = None) -> dict[str, Any]:
    """Score every photograph at full size; CAM files at the background ``thresholds``, and at a chosen ``threshold``.

    Returns:
        For label PNGs the scores under ``best``; where the label maps of the steps before the last were kept, the
        scores of each step under ``steps``. For CAM files the scores at the best threshold under ``best``, at
        ``threshold`` under ``fixed``, and at each threshold under ``sweep``. Scores are fractions; ``iou``, ``fdr`` and
        ``fnr`` are by class name, None where undefined. ``images_digest`` is the SHA-256 of the names. ``images_worst``
        are the lowest by mean IoU over the classes that they truly show; CAM files as under ``fixed``, else ``best``.

    Raises:
        MissingError: a photograph lacks its prediction or its mask.
        DamagedError: a file cannot be read, or all masks hold only 0 and 255.
        MismatchError: sizes differ, or a value is none of the classes.
    """
    cams, truths = folders.files_in(task.predictions, folders.CAM_ENDINGS), folders.masks_in(task.masks)
    predictions = cams or folders.masks_in(task.predictions)
    wanted = ((task.predictions, ".npz" if cams else ".png", predictions), (task.masks, ".png", truths))
    for folder, ending, files in wanted:
        if missing := [name for name in task.names if name not in files]:
            raise MissingError(
                f"{len(missing)} of {len(task.names)} listed photographs have no {ending} file in {folder}, the first "
                f"{missing[0]}; make them or shorten the list: none is left out silently"
            )
    require_classes([truths[name] for name in task.names])
    levels = sorted({*thresholds, *([] if threshold is None else [threshold])}) if cams else []
    total, mious = torch.zeros((), dtype=torch.long), []
    for name in progress(task.names, len(task.names), f"photographs of {task.predictions} scored"):
        matrices = _confusion_matrices(predictions[name], truths[name], levels, len(task.classes))
        total = total + matrices
        mious.append(miou_of_image(matrices))
    each = [_named(matrix, task.classes) for matrix in total]
    digest = hashlib.sha256("\n".join(sorted(task.names)).encode()).hexdigest()
    images = {"images": len(task.names), "images_digest": digest}
    if not cams:
        return {**images, "best": each[0], "images_worst": _worst(task.names, mious, 0), **_steps(task, each[0])}
    for level, score in zip(levels, each, strict=True):
        score["threshold"] = level
    best = max(each, key=lambda score: score["miou"] or 0.0)
    fixed = {} if threshold is None else {"fixed": each[levels.index(threshold)]}
    worst = _worst(task.names, mious, each.index(fixed.get("fixed", best)))
    sweep = [{key: score[key] for key in ("threshold", *MEANS)} for score in each]
    return {**images, "best": best, **fixed, "images_worst": worst, "sweep": sweep}


def _confusion_matrices(path: Path, mask: Path, thresholds: Sequence[float], num_classes: int) -> Tensor:
    """Return the confusion matrices of one photograph, (thresholds, classes, classes); a label PNG has one of them."""
    truth, is_cam = torch.from_numpy(read_label(mask)), path.suffix.lower() == ".npz"
    if is_cam:
        cam, values, size = read_cam(path)
    else:
        values = torch.from_numpy(read_label(path))
        size = (values.shape[0], values.shape[1])
    if size != truth.shape:
        raise MismatchError(
            f"{path} is of a photograph of {size[0]} x {size[1]} pixels (height x width), {mask} is {truth.shape[0]} x "
            f"{truth.shape[1]}; {sizes_hint(None, size, truth.shape)}"
        )
    for file, present in ((path, values), (mask, truth.where(truth != IGNORE, 0))):
        if len(present) and present.max() >= num_classes:
            raise MismatchError(
                f"{file} holds the value {present.max()}; expected 0 to {num_classes - 1}, and {IGNORE} only in masks: "
                "give --classes of the data set that it was made for"
            )
    if not is_cam:
        return confusion(values, truth, num_classes)[None]
    levels = torch.tensor(thresholds, dtype=torch.float32)
    return at_each_threshold(histogram(*at_full_size(cam, values.to(torch.uint8), size), truth, levels, num_classes))


def _named(confusion: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return the scores of a confusion matrix as plain numbers, by class name or as means; None where undefined."""
    named: dict[str, Any] = {}
    for key, value in scores(confusion).items():
        numbers = [None if math.isnan(number) else number for number in value.flatten().tolist()]
        named[key] = dict(zip(classes, numbers, strict=True)) if value.ndim else numbers[0]
    return named


def _worst(names: Sequence[str], mious: list[Tensor], level: int) -> list[dict[str, Any]]:
    """Name the photographs with the lowest mean IoU, the lowest first; one without a scored pixel is left out."""
    pairs = zip(torch.stack(mious)[:, level].tolist(), names, strict=True)
    worst = heapq.nsmallest(WORST, (pair for pair in pairs if not math.isnan(pair[0])))
    return [{"name": name, "miou": miou} for miou, name in worst]


def _steps(task: Task, best: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Score the label maps after each step, which lie in ``steps/<step>``; the last step is the label itself."""
    names = record_of(task.predictions).get("config", {}).get("step_names", [])
    before = [task._replace(predictions=task.predictions / STEPS / name) for name in names[:-1]]
    steps = {step.predictions.name: evaluate(step, ())["best"] for step in before if step.predictions.is_dir()}
    return {"steps": {**steps, names[-1]: dict(best)}} if steps else {}


def mean_over(score: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the means of IoU, FDR and FNR over some classes, keyed ``miou7``, ``mfdr7``, ``mfnr7`` for seven."""
    if unknown := [name for name in names if name not in score["iou"]]:
        raise SettingError(f"no class {unknown[0]!r} among {', '.join(score['iou'])}; correct --mean-over")
    values = {rate: [score[rate][name] for name in names if score[rate][name] is not None] for rate in RATES}
    return {f"m{rate}{len(names)}": sum(part) / len(part) if part else None for rate, part in values.items()}


def table(result: dict[str, Any]) -> str:
    """Return the scores of one folder as text, in percent: a line a class, then the means."""
    score = result.get("fixed", result["best"])
    head = f"{result['images']} images, percent"
    if "threshold" in score:
        origin = "given" if "fixed" in result else "best of the sweep, chosen on these images"
        head += f", threshold {score['threshold']:.2f} ({origin})"
    lines = [head, f"{'class':<16}{'IoU':>7}{'FDR':>7}{'FNR':>7}"]
    lines += [f"{name:<16}{_percents(score[rate][name] for rate in RATES)}" for name in score["iou"]]
    count = _classes_of_mean(score)
    means = {"mean": "", "mean foreground": "_foreground"} | ({f"mean of {count}": count} if count else {})
    lines += [f"{title:<16}{_percents(score[f'm{rate}{mean}'] for rate in RATES)}" for title, mean in means.items()]
    return "\n".join(lines)


def steps_table(results: Mapping[Path, dict[str, Any]]) -> str:
    """Return the means of several folders as text, in percent: a line a folder, or a line for each step of one."""
    rows: list[tuple[str, dict[str, Any]]] = []
    for folder, result in results.items():
        steps = [(f"{folder.name}: {step}", score) for step, score in result.get("steps", {}).items()]
        rows += steps or [(folder.name, result.get("fixed", result["best"]))]
    count = _classes_of_mean(rows[0][1])
    images = " and ".join(map(str, sorted({result["images"] for result in results.values()})))
    head = f"{images} images, percent" + (f", mean of {count} classes" if count else "")
    width = max(len(name) for name, _ in rows)
    lines = [head, f"{'':<{width}}{'mIoU':>7}{'mFDR':>7}{'mFNR':>7}{'threshold':>11}"]
    for name, score in rows:
        threshold = f"{score['threshold']:.2f}" if "threshold" in score else "-"
        lines.append(f"{name:<{width}}{_percents(score[f'm{rate}{count}'] for rate in RATES)}{threshold:>11}")
    return "\n".join(lines)


def _classes_of_mean(score: dict[str, Any]) -> str:
    """Return over how many classes `mean_over` went, as it stands in the keys of a score; empty without one."""
    return next((key[4:] for key in score if key.startswith("miou") and key[4:].isdigit()), "")


def _percents(values: Iterable[float | None]) -> str:
    return "".join(f"{'-':>7}" if value is None else f"{100 * value:>7.1f}" for value in values)
