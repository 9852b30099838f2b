"""The report as one HTML page that needs no other file, no network and no JavaScript."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

import jinja2
import numpy as np
import yaml

from tag2mask import __version__
from tag2mask.io.records import commit
from tag2mask.report import published
from tag2mask.report.pictures import Album, scored_image
from tag2mask.report.runs import MEANS, STAGES, Run, Score
from tag2mask.report.summary import chain, chain_scores, notes_of, percent, rows, supervision_ratio
from tag2mask.viz import svg

STEPS = {"seed": "seeds", "walk": "+ random walk", "crf": "+ CRF", "labels": "pseudo-labels"}
TASKS = {
    "CAMTask": "CAM networks",
    "AffinityTask": "Edge networks of the random walk",
    "SegmentationTask": "Segmentation networks",
    "": "Other trainings",
}
MAX_AGES = 5
"""Validations of one run that are shown, the first and the last among them."""
MAX_PHOTOS = 4
MAX_WORST = 6
MAX_CHARTS = 24
"""Charts of one kind of network."""
BY_CLASS = re.compile(r"(?:val|train)(?:/(iou|fdr|fnr)_|_(iou|fdr|fnr)/)")
"""Scores of one class; the first form is that of older logs."""
SCORE = re.compile(r"(?:val|train)/(cam_)?(miou|mfdr|mfnr)(_\w+)?")


def page(name: str, runs: list[Run], budget: int = 9_000_000) -> str:
    """Return the page.

    Args:
        name: of the folder that holds the runs.
        runs: result of `read_runs`.
        budget: bytes for pictures.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tag2mask.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "thousands": "{:,}".format}
    chosen, album, data = chain(runs), Album(budget), _data_set(runs)
    pictures = {
        "worst": worst_images(chosen, album),
        "by_run": cams_by_run(runs, album),
        "by_age": cams_by_age(runs, chosen, album),
    }
    return environment.get_template("report.html.j2").render(
        pictures,
        name=name,
        runs=runs,
        chain=chosen,
        scores=chain_scores(chosen),
        cards=cards(chosen),
        ratio=supervision_ratio(chosen),
        same_images=_same_images(chosen),
        stage_rows=stage_rows(runs, data),
        notes=[f"{text[0].upper()}{text[1:]}." for text in notes_of(runs)],
        data=data,
        image_counts=_image_counts(runs, data),
        unscored=_unscored(runs),
        published_rows=[
            ("", [n[key] for key in ("method", "backbone", "miou", "images", "split", "supervision")])
            for n in (data.segmentation if data else ())
        ],
        other_folders=[row for run in runs for row in _other_folders(run)],
        classes=class_tables(runs, chosen),
        trainings=trainings(runs),
        line_style=svg.line_style,
        album=album,
        records={run.name: [_record(name, record) for name, record in run.records.items()] for run in runs},
        paper=published.PAPER,
        version=__version__,
        commit=commit(),
    )


def _record(folder: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a ``run.json``, the names of the missing ones, and the configuration as YAML."""
    titles = {"": "training", "cams": "CAMs", "seeds": "confident labels", "labels": "pseudo-labels"}
    facts: dict[str, Any] = {name: record[name] for name in ("command", "commit", "seed", "time") if name in record}
    if "command" in record:  # without the folder of the program
        program, space, rest = str(record["command"]).partition(" ")
        facts["command"] = f"{PurePath(program).name}{space}{rest}"
    if isinstance(record.get("versions"), dict):
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    missing = [name for name in ("command", "commit", "time", *(["seed"] if not folder else [])) if name not in record]
    config = yaml.safe_dump(record.get("config", {}), sort_keys=False, allow_unicode=True, width=110)
    return {"title": titles.get(folder, folder), "facts": facts, "missing": missing, "config": config}


def _unscored(runs: list[Run]) -> list[tuple[str, str]]:
    """Return run and stage of the outputs that are there and have no scores."""
    outputs = {run.name: {folder.partition("/")[0] for folder in run.records} - run.evaluations.keys() for run in runs}
    return [(name, stage) for name, there in outputs.items() for stage in STAGES if stage in there]


def _other_folders(run: Run) -> list[tuple[str, list[str]]]:
    others = {name: result for name, result in run.evaluations.items() if name not in STAGES}
    return [("", [name, run.name, *map(percent, r.score[:3]), f"{r.images:,}"]) for name, r in others.items()]


def _same_images(chosen: dict[str, Run]) -> bool:
    scored = [result for stage, result in chain_scores(chosen).items() if stage != "full"]
    return all(result.same_images(scored[0]) for result in scored)


def cards(chosen: dict[str, Run]) -> list[tuple[str, str, Score | None, str]]:
    """Return title, stage, score and, where there is no score, the reason, of each card of the headline."""
    scores = chain_scores(chosen)
    labels = scores.get("labels")
    steps = labels.steps if labels else {}
    last = next(reversed(steps), "labels")
    reason = "Not run or not scored; make them with `tag2mask labels`."
    if labels:
        reason = "Not in the recipe." if steps else "Not scored apart: the labels were made without steps."
    cam, network = (scores[stage].score if stage in scores else None for stage in ("cams", "weak"))
    stages = [("CAM", "cams", cam, "Not run or not scored; make them with `tag2mask predict`.")]
    for step in ("walk", "crf"):
        title = f"{STEPS[step]}: pseudo-labels" if step == last else STEPS[step]
        stages.append((title, "labels", steps.get(step), reason))
    if labels and last not in ("walk", "crf"):
        stages.append(("pseudo-labels", "labels", labels.score, ""))
    untrained = "Not run or not scored; train a segmentation network on labels."
    return [*stages, ("segmentation", "weak", network, untrained)]


def _data_set(runs: list[Run]) -> published.DataSet | None:
    """The data set with published numbers that these runs were scored on."""
    data_sets = (published.data_set_of(result) for run in runs for result in run.evaluations.values())
    return next((data for data in data_sets if data), None)


def _image_counts(runs: list[Run], data: published.DataSet | None) -> dict[str, list[int]]:
    """Return the numbers of images that the stages of a data set were scored on."""
    results = [item for run in runs for item in run.evaluations.items() if published.data_set_of(item[1]) is data]
    return {stage: sorted({result.images for name, result in results if name == stage}) for stage in STAGES}


def stage_rows(runs: list[Run], data: published.DataSet | None) -> list[tuple[str, list[str]]]:
    """Return class and cells of each row: all stages of all runs, and the published numbers of the data set."""
    groups: dict[str, list[tuple[str, list[str]]]] = {"CAM": [], "labels": [], "segmentation": []}
    for row in rows(runs):
        cells = [STEPS.get(row.stage, row.stage), row.run.name, *map(percent, row.score[:3]), f"{row.images:,}"]
        group = groups.get(row.stage.partition(",")[0], groups["labels"])
        group.append(("", [*cells, row.threshold or "-", row.run.backbone or "-"]))
    for stage, numbers in (("CAM", data.cams), ("segmentation", data.ours)) if data else ():
        for n in numbers:
            source = f"published: {published.PAPER}, {n['table']}, {n['split']}"
            cells = [stage, n["method"], n["miou"], "-", "-", n["images"], source, n["backbone"]]
            groups[stage].append(("theirs", cells))
    return [row for group in groups.values() for row in group]


def class_tables(runs: list[Run], chosen: dict[str, Run]) -> dict[str, Any]:
    """Return the tables of the IoU by class: of the stages, and of the CAMs of all runs."""
    scores = chain_scores(chosen)
    columns: dict[str, Score] = {"CAM": scores["cams"].score} if "cams" in scores else {}
    if "labels" in scores:
        steps = {STEPS.get(step, step): score for step, score in scores["labels"].steps.items()}
        columns |= steps or {"labels": scores["labels"].score}
    columns |= {
        title: scores[s].score for s, title in (("weak", "segmentation"), ("full", "true masks")) if s in scores
    }
    cams = {run.name: run.evaluations["cams"].score for run in runs if "cams" in run.evaluations}
    data = published.data_set_of(scores["weak"]) if "weak" in scores else None
    theirs = data.per_class if data else {}
    return {"stages": _class_table(columns, theirs), "cams": _class_table(cams, {}), "data": data if theirs else None}


def _class_table(columns: dict[str, Score], theirs: dict[str, dict[str, float]]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for score in columns.values() for name in score.iou))
    table = {title: score.iou | {"mean": score.miou} for title, score in columns.items() if score.iou}
    for method, values in theirs.items():
        means = {"mean": sum(values.values()) / len(values)}
        table[f"{method}*"] = {name: value / 100 for name, value in (values | means).items()}
    without = [title for title, score in columns.items() if not score.iou]
    return {"names": names, "columns": table, "without": without, "number": len(columns)}


def trainings(runs: list[Run]) -> list[dict[str, Any]]:
    """Return runs and charts of each kind of network: one quantity a chart, with a line for each run."""
    styles = {run.name: number for number, run in enumerate(runs)}
    groups = []
    for task in dict.fromkeys([*TASKS, *(run.task for run in runs)]):
        here = [run for run in runs if run.task == task]
        logged = [run for run in here if run.log.series]
        logged_keys = {key for run in logged for key in run.log.series if key.startswith(("train/", "val/"))}
        keys = sorted((key for key in logged_keys if not BY_CLASS.match(key)), key=_order)
        groups.append(
            {
                "title": TASKS.get(task, task),
                "runs": here,
                "silent": [run.name for run in here if not run.log.series],
                "resumed": [f"{run.name} ({run.log.parts})" for run in logged if run.log.parts > 1],
                "validated": any(key.startswith("val/") for key in keys),
                "logged": [(run, styles[run.name]) for run in logged],
                "keys": keys,
                "maximum": MAX_CHARTS,
                "charts": [_chart(key, logged, styles) for key in keys[:MAX_CHARTS]],
                "by_class": any(map(BY_CLASS.match, logged_keys)),
                "smoothed": any(len(values) >= 40 for run in logged for values in run.log.series.values()),
            }
        )
    return [group for group in groups if group["runs"]]


def _chart(key: str, runs: list[Run], styles: dict[str, int]) -> dict[str, str]:
    scale, unit = (100, ", percent") if SCORE.fullmatch(key) else (1, "")
    lines = [(run.name, styles[run.name], run.log.series[key]) for run in runs if key in run.log.series]
    drawing, logarithmic = svg.line_chart(lines, scale)
    last = "; ".join(f"{name} {scale * values[-1][1]:.4g} at {values[-1][0]}" for name, _, values in lines)
    label = f"{_title(key)}. Last values: {last}"
    unit = unit or (", logarithmic" if logarithmic else "")
    return {"title": _title(key), "unit": unit, "label": label, "svg": drawing}


def _order(key: str) -> tuple[int, str]:
    """mIoU, mFDR, mFNR first, then losses of training, then all else."""
    score = SCORE.fullmatch(key)
    if score:
        return (MEANS.index(score[2]) + (3 if score[3] else 0), key)
    return (6 if "loss" in key and key.startswith("train/") else 7, key)


def _title(key: str) -> str:
    score = SCORE.fullmatch(key)
    if not score:
        return key
    kind = f" ({score[3].strip('_').replace('_', ' ')})" if score[3] else ""
    name = f"m{score[2][1:].upper()}".replace("IOU", "IoU") + (" of the CAMs" if score[1] else "")
    return f"{name}{kind}, {'validation' if key.startswith('val') else 'training'}"


def cams_by_run(runs: list[Run], album: Album) -> dict[str, Any]:
    """Return the CAMs of the same photographs by each run, at the end of its training."""
    runs = [run for run in runs if run.task in ("CAMTask", "")]
    last = {
        f"{run.name}, iteration {max(run.pictures)}": run.pictures[max(run.pictures)] for run in runs if run.pictures
    }
    names = _shared_names(last.values())
    missing = [run.name for run in runs if "cams" in run.evaluations and not run.pictures]
    panels = _panels(last, names[:MAX_PHOTOS], album)
    return {"panels": panels, "missing": missing, "further": max(0, len(names) - MAX_PHOTOS)}


def cams_by_age(runs: list[Run], chosen: dict[str, Run], album: Album) -> dict[str, Any]:
    """Return the CAMs of each run over its training, the run of the headline first."""
    runs = [run for run in runs if run.task in ("CAMTask", "")]
    aged = sorted((run for run in runs if len(run.pictures) > 1), key=lambda run: run is not chosen.get("cams"))
    ages = []
    for run in aged:
        steps = list(run.pictures)
        kept = [steps[i] for i in sorted({round(i) for i in np.linspace(0, len(steps) - 1, MAX_AGES)})]
        folders = {f"iteration {step}": run.pictures[step] for step in kept}
        panels = _panels(folders, _shared_names(folders.values())[: MAX_PHOTOS // 2], album)
        ages.append({"run": run.name, "kept": len(kept), "of": len(steps), "panels": panels})
    return {"runs": ages, "once": [run.name for run in runs if len(run.pictures) == 1]}


def _shared_names(folders: Iterable[dict[str, Path]]) -> list[str]:
    """Names of photographs; those that most folders have come first."""
    counts = Counter(name for folder in folders for name in folder)
    return sorted(counts, key=lambda name: (-counts[name], name))


def _panels(folders: dict[str, dict[str, Path]], names: list[str], album: Album) -> dict[str, dict[str, Any]]:
    """Return photograph -> title of a folder -> picture."""

    def picture(title: str, name: str) -> dict[str, Any]:
        path = folders[title].get(name)
        return {"gap": "no picture"} if path is None else album.file(path, f"CAMs of {name}: {title}")

    return {name: {title: picture(title, name) for title in folders} for name in names}


def worst_images(chosen: dict[str, Run], album: Album) -> list[dict[str, Any]]:
    """Return the images with the lowest mIoU at each stage: photograph, prediction and truth."""
    parts: list[dict[str, Any]] = []
    scores = chain_scores(chosen)
    for stage, title in (("cams", "CAMs"), ("labels", "Pseudo-labels"), ("weak", "Segmentation")):
        if stage not in scores:
            parts.append({"title": title, "evaluation": None})
            continue
        run, result = chosen[stage], scores[stage]
        root = run.setting("data", "init_args", "root")
        root = root if isinstance(root, str) else None
        images = [
            {"name": name, "miou": miou, **scored_image(result, name, root, album)}
            for name, miou in (result.worst or [])[:MAX_WORST]
        ]
        parts.append({"title": f"{title}, run {run.name}", "evaluation": result, "images": images})
    return parts
