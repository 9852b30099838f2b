"""The parts of the page with pictures: CAMs by run and by training age, the worst images."""

from pathlib import Path

import numpy as np

from tag2mask.classes import BACKGROUND, IGNORE, palette
from tag2mask.report.album import Album, overlay, photograph, prediction, small, truth
from tag2mask.report.markup import Markup, el, join, note
from tag2mask.report.runs import Evaluation, Run
from tag2mask.report.summary import Chain, percent

MOST_AGES = 5
"""Validations shown of one run, the first and the last among them."""
MOST_PHOTOS = 4
MOST_WORST = 6


def by_run(runs: list[Run], album: Album) -> Markup:
    """Return the CAMs of the same photographs by each run, at the end of its training."""
    runs = _of_cams(runs)
    drawn = [run for run in runs if run.pictures]
    parts = _missing([run for run in runs if "cams" in run.evaluations])
    if not drawn:
        return join(*parts, note("No pictures of CAMs."))
    last = {run.name: run.pictures[max(run.pictures)] for run in drawn}
    names = _shared(list(last.values()))
    for name in names[:MOST_PHOTOS]:
        rows = [
            _row(f"{run.name}, iteration {max(run.pictures)}", last[run.name].get(name), name, album) for run in drawn
        ]
        parts.append(el("figure", el("figcaption", el("b", name)), *rows, class_="panel"))
    if len(names) > MOST_PHOTOS:
        parts.append(note(f"{len(names) - MOST_PHOTOS} further photographs are in the folders pictures of the runs."))
    return join(*parts)


def by_age(runs: list[Run], shown: Chain, album: Album) -> Markup:
    """Return the CAMs of one run over its training; other runs folded away."""
    runs = _of_cams(runs)
    aged = [run for run in runs if len(run.pictures) > 1]
    first = [run for run in aged if run is shown.cams] or aged[:1]
    parts = [_ages(run, album) for run in first]
    for run in aged:
        if run not in first:
            parts.append(el("details", el("summary", f"CAMs of {run.name} by training age"), _ages(run, album)))
    once = [run.name for run in runs if len(run.pictures) == 1]
    if once:
        parts.append(note(f"Pictured only once, at the end of training: {', '.join(once)}."))
    return join(*parts) if parts else note("No run has pictures of more than one validation.")


def _ages(run: Run, album: Album) -> Markup:
    steps = list(run.pictures)
    kept = [steps[i] for i in sorted({round(i) for i in np.linspace(0, len(steps) - 1, MOST_AGES)})]
    parts = [el("p", f"Run {run.name}, {len(kept)} of {len(steps)} validations.", class_="fine")]
    for name in _shared([run.pictures[step] for step in kept])[: MOST_PHOTOS // 2]:
        rows = [_row(f"iteration {step}", run.pictures[step].get(name), name, album) for step in kept]
        parts.append(el("figure", el("figcaption", el("b", name)), *rows, class_="panel"))
    return join(*parts)


def _of_cams(runs: list[Run]) -> list[Run]:
    """Leave out runs whose pictures are of masks."""
    return [run for run in runs if run.task in ("CAMTask", "")]


def _missing(runs: list[Run]) -> list[Markup]:
    names = [run.name for run in runs if not run.pictures]
    return [note(f"No folder pictures: {', '.join(names)}.")] if names else []


def _shared(folders: list[dict[str, Path]]) -> list[str]:
    """Names of photographs, those that most folders have first."""
    counts: dict[str, int] = {}
    for folder in folders:
        for name in folder:
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))


def _row(title: str, path: Path | None, name: str, album: Album) -> Markup:
    picture = el("span", "no picture", class_="gap")
    if path is not None:
        picture = album.file(path, f"CAMs of {name}: {title}")
    return el("div", el("span", title, class_="tag"), el("div", picture, class_="scroll"), class_="row")


def worst(shown: Chain, album: Album) -> Markup:
    """Return the images with the lowest mIoU of their own at each stage: photograph, prediction, truth."""
    parts = []
    for stage, title in (("cams", "CAMs"), ("labels", "Pseudo-labels"), ("weak", "Segmentation")):
        evaluation = shown.evaluation(stage)
        run: Run | None = getattr(shown, "weak" if stage == "weak" else stage)
        if evaluation is None or run is None:
            parts.append(join(el("h3", title), note("This stage was not scored.")))
            continue
        parts.append(el("h3", f"{title}, run {run.name}"))
        if evaluation.worst is None:
            parts.append(note("Not kept: scored by an older version; run `tag2mask evaluate` again."))
            continue
        figures = [_image(evaluation, run, name, miou, album) for name, miou in evaluation.worst[:MOST_WORST]]
        parts.append(el("div", *figures, class_="worst"))
        rest = len(evaluation.worst) - MOST_WORST
        if rest > 0:
            parts.append(el("p", f"{rest} more are listed in {evaluation.path.name}.", class_="fine"))
    return join(*parts)


def _image(evaluation: Evaluation, run: Run, name: str, miou: float, album: Album) -> Markup:
    root = run.setting("data", "init_args", "root")
    photo = photograph(evaluation, name, [Path(root)] if isinstance(root, str) else [])
    photo = None if photo is None else small(photo)
    maps = {"prediction": prediction(evaluation, name), "truth": truth(evaluation, name)}
    labels = {what: None if label is None else small(label) for what, label in maps.items()}
    pictures = [_thumb("photograph", photo, name, album)]
    for what, label in labels.items():
        pictures.append(_thumb(what, None if label is None else overlay(label, photo), name, album))
    caption = el("figcaption", el("b", name), f" mIoU {percent(miou)}", _key(labels, list(evaluation.score.iou)))
    return el("figure", el("div", *pictures, class_="three"), caption)


def _thumb(what: str, picture: np.ndarray | None, name: str, album: Album) -> Markup:
    if picture is None:
        return el("div", el("span", f"no {what} found", class_="gap"))
    return el("div", album.picture(picture, f"{what} of {name}"), el("span", what, class_="tag"))


def _key(labels: dict[str, np.ndarray | None], names: list[str]) -> Markup:
    """Name the colours of the classes in a prediction and its truth."""
    values = {int(value) for label in labels.values() if label is not None for value in np.unique(label)}
    colours = palette()
    items = []
    for value in sorted(values - {BACKGROUND, IGNORE}):
        red, green, blue = colours[value].tolist()
        dot = el("i", style=f"background:rgb({red},{green},{blue})")
        items.append(el("span", dot, names[value] if value < len(names) else str(value)))
    return el("span", *items, class_="key")
