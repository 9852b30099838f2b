"""The parts of the page that hold numbers: headline, stages beside published ones, classes."""

from typing import Any

from tag2mask.report import published
from tag2mask.report.markup import Markup, el, join, note, table
from tag2mask.report.runs import STAGES, Evaluation, Run, Score
from tag2mask.report.summary import STEPS, Chain, lines, percent, threshold_text

NO_EVALUATION = "not scored: run `tag2mask evaluate`"


def known_data(*evaluations: Evaluation | None) -> published.DataSet | None:
    """Return the data set with published numbers whose classes the first of these that has such were scored on."""
    for evaluation in evaluations:
        for data in published.DATA_SETS:
            if evaluation is not None and set(evaluation.score.iou) == set(data.classes):
                return data
    return None


def headline(shown: Chain) -> Markup:
    """Return the stages as a row of cards, each with its mIoU, mFDR and mFNR."""
    cams, labels, weak = (shown.evaluation(stage) for stage in ("cams", "labels", "weak"))
    cards = [
        _card("CAM", shown.cams, cams, cams.score if cams else None, "make them with `tag2mask predict`"),
        *_label_cards(shown, labels),
        _card("segmentation", shown.weak, weak, weak.score if weak else None, "train a segmentation network on labels"),
    ]
    row = el("ol", *cards, class_="stages")
    return join(row, _ratio(shown), *_mixed(shown))


def _label_cards(shown: Chain, labels: Evaluation | None) -> list[Markup]:
    steps = dict(labels.steps) if labels else {}
    last = next(reversed(steps), "labels")
    cards = []
    for step, title in (("walk", "+ random walk"), ("crf", "+ CRF")):
        score = steps.get(step)
        title = f"{title}: pseudo-labels" if step == last else title
        why = "make them with `tag2mask labels`"
        if labels is not None:
            why = "not in the recipe" if steps else "not scored apart: the labels were made without steps"
        cards.append(_card(title, shown.labels if score else None, labels, score, why))
    if labels is not None and last not in ("walk", "crf"):
        cards.append(_card("pseudo-labels", shown.labels, labels, labels.score, ""))
    return cards


def _card(title: str, run: Run | None, evaluation: Evaluation | None, score: Score | None, missing: str) -> Markup:
    name = el("h3", title)
    if score is None or evaluation is None or run is None:
        return el(
            "li",
            name,
            el("p", "missing", class_="big none"),
            el(
                "p",
                f"Not run or not scored; {missing}." if evaluation is None else f"{missing[0].upper()}{missing[1:]}.",
            ),
            class_="card missing",
        )
    means = el(
        "p", el("span", "mFDR ", el("b", percent(score.mfdr))), " ", el("span", "mFNR ", el("b", percent(score.mfnr)))
    )
    how = "" if score.threshold is None else f" Threshold {score.threshold:.2f}, chosen {score.chosen}."
    fine = el("p", f"{run.name}, {evaluation.images:,} images.{how}", class_="fine")
    big = el("p", percent(score.miou), el("small", " % mIoU"), class_="big")
    return el("li", name, big, means, fine, class_="card")


def _ratio(shown: Chain) -> Markup:
    ratio, why = shown.ratio
    if ratio is None:
        return note(f"No comparison with full supervision: {why}.")
    weak, full = shown.evaluation("weak"), shown.evaluation("full")
    assert shown.weak is not None
    assert shown.full is not None
    assert weak is not None
    assert full is not None
    text = (
        f" of the fully supervised network's mIoU: {percent(weak.score.miou)} ({shown.weak.name}) to "
        f"{percent(full.score.miou)} ({shown.full.name}, trained on true masks: {shown.full.true_masks}), on the same "
        f"{full.images:,} images."
    )
    bar = el("span", el("span", style=f"width:{min(100, 100 * ratio):.1f}%"), class_="meter", aria_hidden="true")
    return el("p", el("b", f"{percent(ratio)} %"), text, bar, class_="ratio")


def _mixed(shown: Chain) -> list[Markup]:
    """Say where the stages of the headline are not of one run, or not of the same images."""
    found = []
    if shown.labels is not None and shown.cams is not shown.labels:
        found.append(note(f"The CAMs that the labels of {shown.labels.name} were made from are not scored."))
    scored = [e for stage in ("cams", "labels", "weak") if (e := shown.evaluation(stage))]
    if not all(e.same_images(scored[0]) for e in scored):
        found.append(note("The stages were not all scored on the same images: see the counts and the table below."))
    return found


FINE_PRINT = """Percent; means over all classes with the background. A threshold chosen on the scored images makes its
line an upper bound."""
NOT_COMPARABLE = """Published numbers are not shown: they are of PASCAL VOC 2012 and MS COCO 2014, these runs were
scored on other classes, and the two are not comparable."""
HEAD = ["stage", "run or method", "mIoU", "mFDR", "mFNR", "images", "threshold or source", "backbone"]


def stages(runs: list[Run], result: dict[str, dict[str, Any]]) -> Markup:
    """Return the table of all stages of all runs, among them the published numbers of the same data set."""
    backbones = {run.name: run.backbone for run in runs}
    data = known_data(*(evaluation for run in runs for evaluation in run.evaluations.values()))
    groups: dict[str, list[list[str]]] = {"CAM": [], "labels": [], "segmentation": []}
    for row in lines(result):
        stage = row.stage.partition(",")[0]
        groups.get(stage, groups["labels"]).append(
            [
                STEPS.get(row.stage, row.stage),
                row.run,
                *map(percent, row.scores),
                f"{row.images:,}",
                threshold_text(row) or "-",
                backbones.get(row.run) or "-",
            ]
        )
    theirs = {"CAM": data.cams, "segmentation": data.ours} if data else {}
    rows, kinds = [], list[str | None]()
    for stage, own in groups.items():
        others = [_published_row(stage, number, data) for number in theirs.get(stage, ()) if data]
        rows += own + others
        kinds += [None] * len(own) + ["theirs"] * len(others)
    missing = [note(f"{run.name}: {NO_EVALUATION} for {stage}.") for run in runs for stage in _unscored(run)]
    fine = el("p", FINE_PRINT, class_="fine")
    compared = [*_cautions(runs, data), _segmentation_of_others(data)] if data else [note(NOT_COMPARABLE)]
    said = [note(f"{text[0].upper()}{text[1:]}.") for text in result.get("notes", {}).values()]
    return join(table(HEAD, rows, kinds), fine, *said, *compared, *missing, *_others(runs))


def _published_row(stage: str, number: published.Published, data: published.DataSet) -> list[str]:
    images = f"{data.images[number.split]:,}"
    source = f"published: {number.source}, {number.split}"
    return [stage, number.method, f"{number.miou:g}", "-", "-", images, source, number.backbone]


def _unscored(run: Run) -> list[str]:
    """Outputs that are there and have no scores."""
    there = {record.partition("/")[0] for record in run.records}
    return [stage for stage in STAGES if stage in there and stage not in run.evaluations]


def _others(runs: list[Run]) -> list[Markup]:
    rows = [
        [name, run.name, *(percent(getattr(e.score, key)) for key in ("miou", "mfdr", "mfnr")), f"{e.images:,}"]
        for run in runs
        for name, e in run.evaluations.items()
        if name not in STAGES
    ]
    head = ["folder", "run", "mIoU", "mFDR", "mFNR", "images"]
    return [el("h3", "Other folders that were scored"), table(head, rows)] if rows else []


def _cautions(runs: list[Run], data: published.DataSet) -> list[Markup]:
    """Say which images the published numbers are of, and which these runs were scored on."""
    found = []
    for what, stage, split in (("CAMs", "cams", "train"), ("segmentation networks", "masks", "val")):
        scored = [e for run in runs if (e := run.evaluations.get(stage))]
        if getattr(data, "cams" if stage == "cams" else "segmentation"):
            found.append(_caution(what, scored, split, data))
    found.append(
        el("p", "The paper prints no mIoU of pseudo-labels, and no mFDR or mFNR beside these numbers.", class_="fine")
    )
    return found


def _segmentation_of_others(data: published.DataSet) -> Markup:
    head = ["method", "backbone", "mIoU", "images", "split", "supervision"]
    rows = [
        [
            p.method,
            p.backbone,
            f"{p.miou:g}",
            f"{data.images[p.split]:,}",
            p.split,
            published.SUPERVISION[p.supervision],
        ]
        for p in data.segmentation
    ]
    splits = " and ".join(dict.fromkeys(p.split for p in data.segmentation))
    title = el("summary", f"{published.PAPER}, {data.table}: segmentation networks of others, {splits}")
    return el("details", title, table(head, rows))


def _caution(what: str, evaluations: list[Evaluation], split: str, data: published.DataSet) -> Markup:
    expected = data.images[split]
    counts = sorted({e.images for e in evaluations if known_data(e) == data})
    if not counts:
        return note(f"No {what} of these runs were scored on the classes of {data.name}.")
    if counts == [expected]:
        return el(
            "p",
            f"{what[0].upper()}{what[1:]} were scored on {expected:,} images, as many as {split} has.",
            class_="fine",
        )
    return note(
        f"The published {what} were scored on the {expected:,} images of {split}, those of these runs on "
        f"{' and '.join(f'{count:,}' for count in counts)}: other images, so no fair comparison."
    )


def by_class(runs: list[Run], shown: Chain) -> Markup:
    """Return the IoU of each class at each stage, as numbers and bars."""
    weak = shown.evaluation("weak")
    parts = [_classes(_columns(shown), weak)]
    cams = {run.name: run.evaluations["cams"].score for run in runs if "cams" in run.evaluations}
    if len(cams) > 1:
        parts.append(el("details", el("summary", f"CAMs of all {len(cams)} runs by class"), _classes(cams)))
    return join(*parts)


def _columns(shown: Chain) -> dict[str, Score]:
    cams, labels, weak, full = (shown.evaluation(stage) for stage in ("cams", "labels", "weak", "full"))
    found = {"CAM": cams.score} if cams else {}
    if labels:
        found |= {STEPS.get(step, step): score for step, score in labels.steps.items()} or {"labels": labels.score}
    found |= {"segmentation": weak.score} if weak else {}
    return found | ({"true masks": full.score} if full else {})


def _classes(columns: dict[str, Score], weak: Evaluation | None = None) -> Markup:
    """Return one table; besides the scores of a network those that were published of the same data set."""
    names = list(dict.fromkeys(name for score in columns.values() for name in score.iou))
    without = [title for title, score in columns.items() if not score.iou]
    missing = [note(f"No scores by class were kept for: {', '.join(without)}.")] if without else []
    if not names:
        return join(*missing) or note("No stage has scores by class.")
    known = {title: score.iou for title, score in columns.items() if score.iou}
    rows = [[name, *(_bar(iou.get(name)) for iou in known.values())] for name in names]
    rows.append(["mean", *(_bar(columns[title].miou) for title in known)])
    head = ["class", *known]
    data = known_data(weak)
    if weak and data and data.per_class:
        head += [f"{method}*" for method in data.per_class]
        rows = [[*row, *(_bar(_published_iou(by, row[0])) for by in data.per_class.values())] for row in rows]
        source = f"{published.PAPER}, {data.per_class_table}"
        text = f"* published: {source}, segmentation networks on the {data.images['val']:,} images of val"
        missing.append(el("p", f"{text}; the network here was scored on {weak.images:,}.", class_="fine"))
    return join(table(head, rows, [None] * len(names) + ["mean"]), *missing)


def _published_iou(values: dict[str, float], name: str) -> float | None:
    found = sum(values.values()) / len(values) if name == "mean" else values.get(name)
    return None if found is None else found / 100


def _bar(value: float | None) -> Markup:
    if value is None:
        return el("td", "-", title="neither occurs nor is predicted")
    return el("td", percent(value), class_="bar", style=f"--v:{value:.3f}")
