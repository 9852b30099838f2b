"""The numbers of a report, as JSON, Markdown and text; the chain of stages that stands at its head."""

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from tag2mask.errors import InputError
from tag2mask.report.runs import MEANS, Evaluation, Run, Score, read_runs

COLUMNS = tuple(f"cam_{key}" for key in MEANS)
NOT_RUNS = ("labels", "segmentation", "notes")
"""Keys of report.json that hold no CAM scores."""
STEPS = {"seed": "seeds", "walk": "+ random walk", "crf": "+ CRF", "labels": "pseudo-labels"}
"""What the steps to pseudo-labels are called."""


@dataclass(frozen=True)
class Chain:
    """The runs whose stages follow each other: one for each stage, None where there is none.

    Attributes:
        cams: scored CAMs.
        labels: scored pseudo-labels.
        weak: segmentation network trained on pseudo-labels.
        full: the same trained on true masks.
    """

    cams: Run | None
    labels: Run | None
    weak: Run | None
    full: Run | None

    def evaluation(self, stage: str) -> Evaluation | None:
        """Return the scores of ``cams``, ``labels``, ``weak`` or ``full``."""
        run: Run | None = getattr(self, stage)
        return run.evaluations["masks" if stage in ("weak", "full") else stage] if run else None

    @property
    def ratio(self) -> tuple[float | None, str]:
        """The weakly over the fully supervised mIoU, and otherwise why there is none."""
        weak, full = self.evaluation("weak"), self.evaluation("full")
        if weak is None or full is None:
            what = "trained on true masks" if full is None else "trained on pseudo-labels"
            return None, f"no scored segmentation network {what}"
        if not weak.same_images(full):
            return None, f"scored on different images ({weak.images} and {full.images})"
        if weak.score.miou is None or not full.score.miou:
            return None, "a score is undefined or 0"
        return weak.score.miou / full.score.miou, ""


def chain(runs: list[Run]) -> Chain:
    """Choose the runs of the headline: the best segmentation network, the labels that it learnt from, their CAMs."""
    segmented = [run for run in runs if "masks" in run.evaluations]
    weak = _best([run for run in segmented if run.true_masks is None], "masks")
    taught_by_hand = [run for run in segmented if run.true_masks is not None]
    twin = [run for run in taught_by_hand if weak is not None and run.name == f"{weak.name}_full"]
    full = _best(twin or taught_by_hand, "masks")
    labelled = [run for run in runs if "labels" in run.evaluations]
    taught = [run for run in labelled if weak is not None and is_labels_of(run, weak.labels)]
    labels = _best(taught or labelled, "labels")
    if labels is not None and "cams" in labels.evaluations:
        return Chain(labels, labels, weak, full)
    return Chain(_best([run for run in runs if "cams" in run.evaluations], "cams"), labels, weak, full)


def is_labels_of(run: Run, folder: str | None) -> bool:
    """Say whether ``folder`` is the one with the labels of ``run``."""
    return folder is not None and PurePath(folder).parts[-2:] == (run.name, "labels")


def _best(runs: list[Run], stage: str) -> Run | None:
    return max(runs, key=lambda run: run.evaluations[stage].score.miou or 0.0, default=None)


def gather(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the scores of each run in ``folder``: run name -> ``cam_miou``, ``cam_mfdr``, ``cam_mfnr``, ``threshold``.

    A run is a subfolder, or ``folder`` itself. At the given threshold where there is one, else at the best.
    ``labels`` holds the scores of the pseudo-labels: ``labels_miou``, ``labels_mfdr``, ``labels_mfnr``, the name of the
    ``run``, and mIoU, mFDR and mFNR after each of its ``steps``. ``segmentation`` holds those of the segmentation
    network, ``segmentation_miou`` and so on, and, where there is one trained on true masks, that one's under ``full``
    and the ``ratio`` of both. Further runs with labels or masks are under ``others`` of each. ``notes`` says what is
    out of date, and which tags have no pixel in their label.
    """
    return summary(read_runs(folder))


def summary(runs: list[Run]) -> dict[str, dict[str, Any]]:
    """Return what `gather` returns."""
    shown = chain(runs)
    found = {run.name: _cams(run.evaluations["cams"]) for run in runs if "cams" in run.evaluations}
    taken = [name for name in NOT_RUNS if name in found]
    if taken:
        raise InputError(
            f"a run with CAM scores is called {taken[0]!r}, which report.json keeps free; rename its folder"
        )
    if shown.labels is not None:
        others = [run for run in runs if "labels" in run.evaluations and run is not shown.labels]
        found["labels"] = _labels(shown.labels) | _others({run.name: _labels(run) for run in others})
    if shown.weak is not None or shown.full is not None:
        found["segmentation"] = _segmentation(runs, shown)
    said = [
        *(why for run in runs for why in run.outdated),
        *(f"labels of {r.name}: {text}" for r in runs for text in r.vanished),
    ]
    return found | ({"notes": {str(number): text for number, text in enumerate(said, 1)}} if said else {})


def _cams(evaluation: Evaluation) -> dict[str, Any]:
    score = evaluation.score
    return {
        **_means(score, "cam_"),
        "threshold": score.threshold,
        "threshold_chosen": score.chosen,
        "images": evaluation.images,
    }


def _labels(run: Run) -> dict[str, Any]:
    result = run.evaluations["labels"]
    steps = {name: _means(score) for name, score in result.steps.items()}
    return {**_means(result.score, "labels_"), "run": run.name, "steps": steps, "images": result.images}


def _segmentation(runs: list[Run], shown: Chain) -> dict[str, Any]:
    def row(run: Run) -> dict[str, Any]:
        evaluation = run.evaluations["masks"]
        how = f"true masks: {run.true_masks}" if run.true_masks else "pseudo-labels"
        found = {"run": run.name, "trained_on": how, "images": evaluation.images}
        return {**_means(evaluation.score, "segmentation_"), **found}

    others = [r for r in runs if "masks" in r.evaluations and r not in (shown.weak, shown.full)]
    found = row(shown.weak) if shown.weak else {}
    if shown.full:
        found["full"] = row(shown.full)
    ratio, why = shown.ratio
    found["ratio"] = ratio
    if ratio is None:
        found["ratio_missing"] = why
    return found | _others({run.name: row(run) for run in others})


def _means(score: Score, prefix: str = "") -> dict[str, float | None]:
    return {f"{prefix}{key}": getattr(score, key) for key in MEANS}


def _others(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"others": rows} if rows else {}


class Line(NamedTuple):
    """A line of the table of all stages: a run, a stage, its mIoU, mFDR and mFNR as fractions, and how they came."""

    run: str
    stage: str
    scores: tuple[float | None, ...]
    images: int
    threshold: float | None = None
    chosen: str | None = None


def lines(result: dict[str, dict[str, Any]]) -> list[Line]:
    """Return the table of what `gather` returned: CAMs of each run, then labels, then segmentation."""
    found = [
        Line(name, "CAM", _values(row, "cam_"), row["images"], row["threshold"], row["threshold_chosen"])
        for name, row in result.items()
        if name not in NOT_RUNS
    ]
    labels, segmentation = result.get("labels", {}), result.get("segmentation", {})
    for row in [labels, *labels.get("others", {}).values()] if labels else []:
        steps = row["steps"] or {"labels": {key: row[f"labels_{key}"] for key in MEANS}}
        found += [Line(row["run"], step, _values(score), row["images"]) for step, score in steps.items()]
    networks = [segmentation, *segmentation.get("others", {}).values(), segmentation.get("full", {})]
    return found + [_network(row) for row in networks if "run" in row]


def _network(row: dict[str, Any]) -> Line:
    stage = "segmentation, true masks" if row["trained_on"].startswith("true") else "segmentation"
    return Line(row["run"], stage, _values(row, "segmentation_"), row["images"])


def _values(row: dict[str, Any], prefix: str = "") -> tuple[float | None, ...]:
    return tuple(row[f"{prefix}{key}"] for key in MEANS)


def percent(value: float | None) -> str:
    """Write a fraction in percent with one decimal."""
    return "-" if value is None else f"{100 * value:.1f}"


def table(result: dict[str, dict[str, Any]]) -> str:
    """Return the scores as text, in percent: CAMs of each run, pseudo-labels step by step, segmentation."""
    rows = lines(result)
    width = max(16, *(len(f"{row.run}: {row.stage}") for row in rows)) if rows else 16
    found = [f"{'run':<{width}}{'mIoU':>8}{'mFDR':>8}{'mFNR':>8}{'threshold':>11}"]
    for row in rows:
        threshold = "" if row.threshold is None else f"{row.threshold:>11.2f}"
        scores = "".join(f"{percent(value):>8}" for value in row.scores)
        found.append(f"{f'{row.run}: {row.stage}':<{width}}{scores}{threshold}")
    ratio = result.get("segmentation", {}).get("ratio")
    found += [] if ratio is None else [f"weak / full supervision: {percent(ratio)} %"]
    return "\n".join([*found, *(f"note: {text}" for text in result.get("notes", {}).values())])


def markdown(result: dict[str, dict[str, Any]]) -> str:
    """Return the same as Markdown."""
    head = ["run", "stage", "mIoU", "mFDR", "mFNR", "threshold", "images"]
    rows = [
        [row.run, row.stage, *map(percent, row.scores), threshold_text(row), str(row.images)] for row in lines(result)
    ]
    cells = [head, ["---", "---", *["---:"] * 3, "---", "---:"], *rows]
    text = ["# Report", "", "Percent.", "", *(f"| {' | '.join(map(_escape, row))} |" for row in cells)]
    segmentation = result.get("segmentation", {})
    if segmentation.get("ratio") is not None:
        text += ["", f"Weak / full supervision: {percent(segmentation['ratio'])} %."]
    elif segmentation:
        text += ["", f"Weak / full supervision: not known, {segmentation['ratio_missing']}."]
    text += [line for note in result.get("notes", {}).values() for line in ("", f"Note: {_escape(note)}.")]
    for stage in ("labels", "segmentation"):
        if stage not in result:
            text += ["", f"No scores of the stage {stage}: not run, or not evaluated."]
    return "\n".join(text) + "\n"


def threshold_text(row: Line) -> str:
    """Say which threshold a line is at and how it was chosen."""
    return "" if row.threshold is None else f"{row.threshold:.2f}, chosen {row.chosen}"


def _escape(text: str) -> str:
    """Keep a name from being read as Markdown or HTML."""
    for character in "\\|<>&*_`[]":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
