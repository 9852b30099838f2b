"""The scores of a report as JSON, Markdown and text, and the runs that stand at its head."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from tag2mask.errors import SettingError
from tag2mask.io import provenance
from tag2mask.report.runs import MEANS, Evaluation, Run, Score

RESERVED = ("labels", "segmentation", "notes")
"""Keys of report.json that are no names of runs."""


def chain(runs: list[Run]) -> dict[str, Run]:
    """Choose the runs whose stages follow each other: the best network, the labels it learnt from, and their CAMs.

    Returns:
        ``cams``, ``labels``, ``weak`` (a segmentation network trained on pseudo-labels) and ``full`` (one trained on
        true masks); a stage without a scored run is left out.
    """
    segmented = [run for run in runs if "masks" in run.evaluations]
    weak = _best([run for run in segmented if run.true_masks is None], "masks")
    on_true_masks = [run for run in segmented if run.true_masks is not None]
    twin = [run for run in on_true_masks if weak is not None and run.name == f"{weak.name}_full"]
    labelled = [run for run in runs if "labels" in run.evaluations]
    source = PurePath(weak.labels).parts[-2:] if weak is not None else ()
    labels = _best([run for run in labelled if source == (run.name, "labels")] or labelled, "labels")
    has_cams = labels is not None and "cams" in labels.evaluations
    cams = labels if has_cams else _best([run for run in runs if "cams" in run.evaluations], "cams")
    chosen = {"cams": cams, "labels": labels, "weak": weak, "full": _best(twin or on_true_masks, "masks")}
    return {stage: run for stage, run in chosen.items() if run is not None}


def _best(runs: list[Run], stage: str) -> Run | None:
    return max(runs, key=lambda run: run.evaluations[stage].score.miou or 0.0, default=None)


def chain_scores(chosen: Mapping[str, Run]) -> dict[str, Evaluation]:
    """Return the scores of each stage of a `chain`."""
    folders = {"cams": "cams", "labels": "labels", "weak": "masks", "full": "masks"}
    return {stage: run.evaluations[folders[stage]] for stage, run in chosen.items()}


def supervision_ratio(chosen: Mapping[str, Run]) -> tuple[float | None, str]:
    """Return the weakly over the fully supervised mIoU, or None and the reason."""
    scores = chain_scores(chosen)
    for stage, labels in (("full", "true masks"), ("weak", "pseudo-labels")):
        if stage not in scores:
            return None, f"no scored segmentation network trained on {labels}"
    weak, full = scores["weak"], scores["full"]
    if not weak.same_images(full):
        return None, f"scored on different images ({weak.images} and {full.images})"
    if weak.score.miou is None or not full.score.miou:
        return None, "a score is undefined or 0"
    return weak.score.miou / full.score.miou, ""


class Row(NamedTuple):
    """A row of the table of all stages."""

    run: Run
    stage: str
    score: Score
    images: int

    @property
    def threshold(self) -> str:
        """The threshold and the images that it was chosen on; empty where there is none."""
        return "" if self.score.threshold is None else f"{self.score.threshold:.2f}, chosen {self.score.chosen}"


def rows(runs: list[Run]) -> list[Row]:
    """Return the table of all stages: CAMs of each run, pseudo-labels step by step, segmentation networks."""
    table = []
    for run in (run for run in runs if "cams" in run.evaluations):
        table.append(Row(run, "CAM", run.evaluations["cams"].score, run.evaluations["cams"].images))
    for run in _ordered(runs, "labels"):
        result = run.evaluations["labels"]
        table += [Row(run, step, s, result.images) for step, s in (result.steps or {"labels": result.score}).items()]
    for run in _ordered(runs, "masks"):
        stage = "segmentation, true masks" if run.true_masks else "segmentation"
        table.append(Row(run, stage, run.evaluations["masks"].score, run.evaluations["masks"].images))
    return table


def _ordered(runs: list[Run], stage: str) -> list[Run]:
    """The scored runs of a stage: the one of the chain first, the upper bound last."""
    chosen = chain(runs)
    first, last = chosen.get("weak" if stage == "masks" else stage), chosen.get("full")
    scored = [run for run in runs if stage in run.evaluations]
    return sorted(scored, key=lambda run: 0 if run is first else 2 if run is last and stage == "masks" else 1)


def summary(runs: list[Run]) -> dict[str, dict[str, Any]]:
    """Return what report.json holds.

    Each run with scored CAMs has an entry: run name -> ``cam_miou``, ``cam_mfdr``, ``cam_mfnr``, ``threshold``, at the
    given threshold where there is one, else at the best. ``labels`` holds the scores of the pseudo-labels:
    ``labels_miou`` and so on, the name of the ``run``, and the scores after each of its ``steps``. ``segmentation``
    holds those of the segmentation network; the network trained on true masks is under ``full``, and the ``ratio`` of
    both beside it. Further runs with labels or masks are under ``others`` of each. ``notes`` says which outputs are out
    of date, and which tags have no pixel in their label.

    Raises:
        SettingError: a run is called like a key of report.json.
    """
    chosen = chain(runs)
    result = {run.name: _cams(run.evaluations["cams"]) for run in runs if "cams" in run.evaluations}
    taken = [name for name in RESERVED if name in result]
    if taken:
        raise SettingError(
            f"a run with CAM scores is called {taken[0]!r}, which report.json keeps free; rename its folder"
        )
    labelled = [_labels(run) for run in _ordered(runs, "labels")]
    if labelled:
        result["labels"] = labelled[0] | _others(labelled[1:])
    networks = {run.name: _network(run) for run in _ordered(runs, "masks")}
    if networks:
        main = {stage: networks.pop(chosen[stage].name) for stage in ("weak", "full") if stage in chosen}
        ratio, reason = supervision_ratio(chosen)
        result["segmentation"] = main.pop("weak", {}) | main | {"ratio": ratio}
        result["segmentation"] |= ({"ratio_missing": reason} if reason else {}) | _others([*networks.values()])
    notes = notes_of(runs)
    return result | ({"notes": {str(number): text for number, text in enumerate(notes, 1)}} if notes else {})


def notes_of(runs: list[Run]) -> list[str]:
    """Say which outputs are out of date, and which tags have no pixel in their label."""
    records = {run.name: run.records.get("labels", {}) for run in runs}
    vanished = [f"labels of {name}: {provenance.vanished(r)}" for name, r in records.items() if r.get("vanished")]
    return [*(reason for run in runs for reason in run.outdated), *vanished]


def _means(score: Score, prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}{key}": getattr(score, key) for key in MEANS}


def _cams(result: Evaluation) -> dict[str, Any]:
    threshold = {"threshold": result.score.threshold, "threshold_chosen": result.score.chosen}
    return {**_means(result.score, "cam_"), **threshold, "images": result.images}


def _labels(run: Run) -> dict[str, Any]:
    result = run.evaluations["labels"]
    steps = {name: _means(score) for name, score in result.steps.items()}
    return {**_means(result.score, "labels_"), "run": run.name, "steps": steps, "images": result.images}


def _network(run: Run) -> dict[str, Any]:
    result = run.evaluations["masks"]
    trained_on = f"true masks: {run.true_masks}" if run.true_masks else "pseudo-labels"
    facts = {"run": run.name, "trained_on": trained_on, "images": result.images}
    return {**_means(result.score, "segmentation_"), **facts}


def _others(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"others": {entry["run"]: entry for entry in entries}} if entries else {}


def percent(value: float | None) -> str:
    """Write a fraction in percent with one decimal."""
    return "-" if value is None else f"{100 * value:.1f}"


def text_table(runs: list[Run]) -> str:
    """Return the scores as text, in percent."""
    names = [f"{row.run.name}: {row.stage}" for row in rows(runs)]
    width = max(16, *map(len, names), 0)
    lines = [f"{'run':<{width}}{'mIoU':>8}{'mFDR':>8}{'mFNR':>8}{'threshold':>11}"]
    for name, row in zip(names, rows(runs), strict=True):
        threshold = "" if row.score.threshold is None else f"{row.score.threshold:>11.2f}"
        lines.append(f"{name:<{width}}{''.join(f'{percent(value):>8}' for value in row.score[:3])}{threshold}")
    ratio, _ = supervision_ratio(chain(runs))
    lines += [] if ratio is None else [f"weak / full supervision: {percent(ratio)} %"]
    return "\n".join([*lines, *(f"note: {text}" for text in notes_of(runs))])


def markdown(runs: list[Run]) -> str:
    """Return the scores as Markdown, in percent."""
    head = ["run", "stage", "mIoU", "mFDR", "mFNR", "threshold", "images"]
    cells = [
        [row.run.name, row.stage, *map(percent, row.score[:3]), row.threshold, str(row.images)] for row in rows(runs)
    ]
    table = [
        f"| {' | '.join(map(_escape, row))} |" for row in (head, ["---", "---", *["---:"] * 3, "---", "---:"], *cells)
    ]
    paragraphs = ["# Report", "Percent.", "\n".join(table)]
    chosen = chain(runs)
    ratio, reason = supervision_ratio(chosen)
    if "weak" in chosen or "full" in chosen:
        value = f"{percent(ratio)} %" if ratio is not None else f"not known, {reason}"
        paragraphs.append(f"Weak / full supervision: {value}.")
    paragraphs += [f"Note: {_escape(text)}." for text in notes_of(runs)]
    missing = {"labels": "labels" not in chosen, "segmentation": not {"weak", "full"} & chosen.keys()}
    paragraphs += [f"No scores of the stage {name}: not run, or not evaluated." for name in missing if missing[name]]
    return "\n\n".join(paragraphs) + "\n"


def _escape(text: str) -> str:
    """Keep a name from being read as Markdown or HTML."""
    for character in "\\|<>&*_`[]":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
