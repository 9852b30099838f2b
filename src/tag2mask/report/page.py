"""The report as text and Markdown, and as one HTML page that needs no other file, no network and no JavaScript."""

import re
from typing import Any

import jinja2
import yaml

from tag2mask import __version__
from tag2mask.io.records import commit
from tag2mask.report import published
from tag2mask.report.pictures import Album
from tag2mask.report.runs import MEANS, STAGES, Run, Score
from tag2mask.report.summary import StageScore, Summary
from tag2mask.viz import svg

STEPS = {"seed": "seeds", "walk": "+ random walk", "crf": "+ CRF", "labels": "pseudo-labels"}
MAX_PHOTOS = 4
MAX_CHARTS = 24  # of one kind of network
BY_CLASS = re.compile(r"(?:val|train)(?:/(iou|fdr|fnr)_|_(iou|fdr|fnr)/)")  # the first form is that of older logs
SCORE = re.compile(r"^(?P<set>val|train)/(?P<cam>cam_)?(?P<mean>miou|mfdr|mfnr)(?P<kind>_\w+)?$")
ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("tag2mask.report"),
    autoescape=jinja2.select_autoescape(["html.j2"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters |= {
    "percent": lambda fraction: "-" if fraction is None else f"{100 * fraction:.1f}",
    "thousands": "{:,}".format,
    "literal": lambda name: re.sub(r"([\\|<>&*_`\[\]])", r"\\\1", name).replace("\n", " "),  # no Markdown, no HTML
    "yaml": lambda data: yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110),
}


def scores(summary: Summary, ending: str) -> str:
    """Return the scores in percent, as Markdown for the ending ``md``, as text for ``txt``."""
    return ENVIRONMENT.get_template(f"report.{ending}.j2").render(summary=summary)


def page(name: str, summary: Summary, budget: int = 9_000_000) -> str:
    """Return the page of the folder ``name``, whose pictures take at most ``budget`` bytes."""
    chain, album = summary.chain, Album(budget)
    results = [(run, folder, result) for run in summary.runs for folder, result in run.evaluations.items()]
    data = next(filter(None, (published.data_set_of(result) for _, _, result in results)), None)
    theirs = published.data_set_of(chain["weak"].evaluation) if "weak" in chain else None
    comparable = [(folder, result.images) for _, folder, result in results if published.data_set_of(result) is data]
    outputs = [(run, {name.partition("/")[0] for name in run.records} - run.evaluations.keys()) for run in summary.runs]
    stages = [row.evaluation for stage, row in chain.items() if stage != "full"]
    return ENVIRONMENT.get_template("report.html.j2").render(
        name=name,
        summary=summary,
        same_images=all(result.same_images(stages[0]) for result in stages),
        steps=STEPS,
        data=data,
        theirs=theirs,
        image_counts={stage: sorted({count for name, count in comparable if name == stage}) for stage in STAGES},
        unscored=[(run.name, stage) for run, names in outputs for stage in STAGES if stage in names],
        others=[item for item in results if item[1] not in STAGES],
        classes=_scores_by_class(chain, theirs),
        cams_by_class={row.run.name: row.score for row in summary.cams},
        trainings=_trainings(summary.runs),
        line_style=svg.line_style,
        worst=_worst_images(chain, album),
        **_cams(summary, album),
        album=album,
        version=__version__,
        commit=commit(),
    )


def _scores_by_class(chain: dict[str, StageScore], theirs: published.DataSet | None) -> dict[str, Score]:
    """Return the scores of the stages by title, and published ones of segmentation networks, which have a star."""
    columns: dict[str, Score] = {}
    for stage, title in (("cams", "CAM"), ("labels", "labels"), ("weak", "segmentation"), ("full", "true masks")):
        if stage in chain:
            steps = {STEPS.get(step, step): score for step, score in chain[stage].evaluation.steps.items()}
            columns |= steps or {title: chain[stage].score}
    return columns | {f"{method}*": score for method, score in (theirs.per_class.items() if theirs else ())}


def _trainings(runs: list[Run]) -> list[dict[str, Any]]:
    """Return runs and charts of each kind of network: one quantity a chart, with a line for each run."""
    groups = []
    for task in dict.fromkeys(["CAMTask", "AffinityTask", "SegmentationTask", "", *(run.task for run in runs)]):
        numbered = [(number, run) for number, run in enumerate(runs) if run.task == task]
        logged = [(number, run) for number, run in numbered if run.log.series]
        logged_keys = {key for _, run in logged for key in run.log.series if key.startswith(("train/", "val/"))}
        keys = sorted((key for key in logged_keys if not BY_CLASS.match(key)), key=_order)
        group = {
            "task": task,
            "silent": [run.name for _, run in numbered if not run.log.series],
            "logged": logged,
            "charts": [_chart(key, logged) for key in keys[:MAX_CHARTS]],
            "validated": any(key.startswith("val/") for key in keys),
            "best_thresholds": "val/cam_miou" in keys,
            "further": keys[MAX_CHARTS:],
            "by_class": len(keys) < len(logged_keys),
            "smoothed": any(len(values) >= 40 for _, run in logged for values in run.log.series.values()),
        }
        groups += [group] if numbered else []
    return groups


def _chart(key: str, runs: list[tuple[int, Run]]) -> dict[str, str]:
    title, scale = key, 1
    if score := SCORE.fullmatch(key):
        name = {"miou": "mIoU", "mfdr": "mFDR", "mfnr": "mFNR"}[score["mean"]]
        kind = f" ({score['kind'].strip('_').replace('_', ' ')})" if score["kind"] else ""
        cams, images = " of the CAMs" if score["cam"] else "", "validation" if score["set"] == "val" else "training"
        title, scale = f"{name}{cams}{kind}, {images}", 100
    lines = [(run.name, style, run.log.series[key]) for style, run in runs if key in run.log.series]
    drawing, logarithmic = svg.line_chart(lines, scale)
    last = "; ".join(f"{name} {scale * values[-1][1]:.4g} at {values[-1][0]}" for name, _, values in lines)
    unit = ", percent" if score else ", logarithmic" if logarithmic else ""
    return {"title": title, "unit": unit, "label": f"{title}. Last values: {last}", "svg": drawing}


def _order(key: str) -> tuple[int, str]:
    """mIoU, mFDR, mFNR first, then losses of training, then all else."""
    if score := SCORE.fullmatch(key):
        return MEANS.index(score["mean"]) + (3 if score["kind"] else 0), key
    return 6 if "loss" in key and key.startswith("train/") else 7, key


def _worst_images(chain: dict[str, StageScore], album: Album) -> list[dict[str, Any]]:
    """Return the images with the lowest mIoU at each stage: photograph, prediction and truth."""
    parts = []
    for stage, title in (("cams", "CAMs"), ("labels", "Pseudo-labels"), ("weak", "Segmentation")):
        images, row = [], chain.get(stage)
        if row:
            root, worst = row.run.setting("data", "init_args", "root"), (row.evaluation.worst or [])[:6]
            images = [{"name": n, "miou": miou, **album.scored_image(row.evaluation, n, root)} for n, miou in worst]
        parts.append({"title": title, "row": row, "images": images})
    return parts


def _cams(summary: Summary, album: Album) -> dict[str, Any]:
    """Return the CAMs of the same photographs by each run at its end, and over the training of each run."""
    runs = [run for run in summary.runs if run.task in ("CAMTask", "")]
    last = {f"{run.name}, iteration {step}": run.pictures[step] for run in runs for step in [*run.pictures][-1:]}
    by_run = {
        "panels": album.panels(last, MAX_PHOTOS),
        "missing": [run.name for run in runs if "cams" in run.evaluations and not run.pictures],
        "further": max(0, len({name for folder in last.values() for name in folder}) - MAX_PHOTOS),
    }
    head, ages = summary.chain.get("cams"), []
    for run in sorted((run for run in runs if len(run.pictures) > 1), key=lambda run: not head or run is not head.run):
        steps = list(run.pictures)
        kept = dict.fromkeys(steps[round(quarter / 4 * (len(steps) - 1))] for quarter in range(5))  # at most 5
        panels = album.panels({f"iteration {step}": run.pictures[step] for step in kept}, MAX_PHOTOS // 2)
        ages.append({"run": run.name, "kept": len(kept), "of": len(steps), "panels": panels})
    return {"by_run": by_run, "by_age": ages, "once": [run.name for run in runs if len(run.pictures) == 1]}
