"""The part of the page with curves over iterations."""

import re

from tag2mask.report.charts import Line, chart, legend
from tag2mask.report.markup import Markup, el, join, note
from tag2mask.report.runs import Run

TASKS = {
    "CAMTask": "CAM networks",
    "AffinityTask": "Edge networks of the random walk",
    "SegmentationTask": "Segmentation networks",
    "": "Other trainings",
}
SCORES = {"miou": "mIoU", "mfdr": "mFDR", "mfnr": "mFNR"}
BY_CLASS = re.compile(r"(?:val|train)(?:/(iou|fdr|fnr)_|_(iou|fdr|fnr)/)")
"""Scores of one class; the first form is that of logs from before they had a section of their own."""
MOST = 24
"""Charts of one kind of network."""


def curves(runs: list[Run]) -> Markup:
    """Return charts of scores and losses, one quantity a chart, all runs of a kind of network in it."""
    styles = {run.name: number for number, run in enumerate(runs)}
    kinds = dict.fromkeys([*TASKS, *(run.task for run in runs)])
    parts = []
    for kind in kinds:
        here = [run for run in runs if run.task == kind]
        if here:
            parts.append(_kind(TASKS.get(kind, kind), here, styles))
    return join(*parts)


def _kind(title: str, runs: list[Run], styles: dict[str, int]) -> Markup:
    logged = [run for run in runs if run.log.series]
    silent = ", ".join(run.name for run in runs if not run.log.series)
    notes = [note(f"No log of a training: {silent}.")] if silent else []
    if not logged:
        return join(el("h3", title), *notes)
    keys = sorted({key for run in logged for key in run.log.series if _wanted(key)}, key=_order)
    empty = Line("", 0, [])
    drawn = [[Line(r.name, styles[r.name], r.log.series[k]) for r in logged if k in r.log.series] for k in keys]
    charts = [chart(_title(key), found, _is_score(key)) for key, found in zip(keys[:MOST], drawn, strict=False)]
    names = legend([Line(run.name, styles[run.name], empty.values) for run in logged])
    return join(el("h3", title), names, el("div", *charts, class_="charts"), *_remarks(logged, keys), *notes)


def _remarks(runs: list[Run], keys: list[str]) -> list[Markup]:
    found = []
    if not any(key.startswith("val/") for key in keys):
        found.append(note("Nothing was scored during training."))
    if any(BY_CLASS.match(key) for run in runs for key in run.log.series):
        text = "IoU, FDR and FNR by class during training are not drawn; they are in the CSV logs."
        found.append(el("p", text, class_="fine"))
    if "val/cam_miou" in keys:
        text = "Scores of CAMs during training are at the best threshold of each validation, chosen on its images."
        found.append(el("p", f"{text} Fig. 7 of Liu et al. 2023 shows the same quantities.", class_="fine"))
    joined = [f"{run.name} ({run.log.parts})" for run in runs if run.log.parts > 1]
    if joined:
        found.append(el("p", f"Resumed, logs joined by iteration: {', '.join(joined)}.", class_="fine"))
    for run in runs:
        if run.log.dropped:
            found.append(note(f"{run.name}: {run.log.dropped} logged values are nan or infinite and are not drawn."))
    if any(len(values) >= 40 for run in runs for values in run.log.series.values()):
        text = (
            "Strong lines are running means over a twentieth of the values; pale ones, where there are few, as logged."
        )
        found.append(el("p", text, class_="fine"))
    if len(keys) > MOST:
        found.append(note(f"{len(keys) - MOST} further quantities are in the CSV logs: {', '.join(keys[MOST:])}."))
    return found


def _wanted(key: str) -> bool:
    return key.startswith(("train/", "val/")) and not BY_CLASS.match(key)


def _score(key: str) -> re.Match[str] | None:
    return re.fullmatch(r"(?:val|train)/(cam_)?(miou|mfdr|mfnr)(_\w+)?", key)


def _is_score(key: str) -> bool:
    return _score(key) is not None


def _order(key: str) -> tuple[int, str]:
    """mIoU, mFDR, mFNR first, then losses of training, then all else."""
    found = _score(key)
    if found:
        return (list(SCORES).index(found[2]) + (3 if found[3] else 0), key)
    return (6 if "loss" in key and key.startswith("train/") else 7, key)


def _title(key: str) -> str:
    found = _score(key)
    if not found:
        return key
    of = " of the CAMs" if found[1] else ""
    kind = f" ({found[3].strip('_').replace('_', ' ')})" if found[3] else ""
    return f"{SCORES[found[2]]}{of}{kind}, {'validation' if key.startswith('val') else 'training'}"
