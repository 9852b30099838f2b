"""The scores of runs as JSON, and the runs that stand at the head of a report."""

from pathlib import PurePath
from typing import Any, NamedTuple

from tag2mask.errors import SettingError
from tag2mask.io import provenance
from tag2mask.report.runs import MEANS, STAGES, Evaluation, Run, Score


class StageScore(NamedTuple):
    """The score of a stage of a run, or of one step to its labels, whose name is ``stage`` then."""

    run: Run
    stage: str
    evaluation: Evaluation
    score: Score

    @property
    def threshold(self) -> str:
        """The threshold and the images that it was chosen on; empty where there is none."""
        return "" if self.score.threshold is None else f"{self.score.threshold:.2f}, chosen {self.score.chosen}"


class Summary:
    """What a report says of runs, the same in JSON, Markdown, text and HTML.

    Attributes:
        chain: the runs whose stages follow each other: the best network, the labels it learnt from, and their CAMs, as
            ``cams``, ``labels``, ``weak`` (a segmentation network trained on pseudo-labels) and ``full`` (one trained
            on true masks). A stage without a scored run is left out.
        cams, labels, networks: scored runs; the labels of the chain and ``weak`` come first, ``full`` last.
        rows: the table of CAMs, of ``steps`` to the labels, and of networks.
        ratio: the weakly over the fully supervised mIoU; None where it is not known, for ``ratio_missing``.
        notes: which outputs are out of date, and which tags have no pixel in their label.
    """

    def __init__(self, runs: list[Run]) -> None:
        """Choose the chain and collect the scores."""
        self.runs = runs
        self.cams, labels, networks = ([row for run in runs for row in _rows(run, stage)] for stage in STAGES)
        weak = _best([row for row in networks if row.run.true_masks is None])
        supervised = [row for row in networks if row.run.true_masks is not None]
        twin = [row for row in supervised if weak and row.run.name == f"{weak.run.name}_full"]
        full = _best(twin or supervised)
        source = PurePath(weak.run.labels).parts[-2:] if weak else ()
        learnt = _best([row for row in labels if source == (row.run.name, "labels")] or labels)
        cams = _best([row for row in self.cams if learnt and row.run is learnt.run] or self.cams)
        chain = {"cams": cams, "labels": learnt, "weak": weak, "full": full}
        self.chain = {stage: row for stage, row in chain.items() if row}
        self.labels = sorted(labels, key=lambda row: row is not learnt)
        self.networks = sorted(networks, key=lambda row: (row is full, row is not weak))
        steps = [(row, row.evaluation.steps or {"labels": row.score}) for row in self.labels]
        self.steps = [row._replace(stage=step, score=score) for row, scores in steps for step, score in scores.items()]
        self.rows = [*self.cams, *self.steps, *self.networks]
        self.ratio: float | None = None
        self.ratio_missing = ""
        if weak is None or full is None:
            kind = "pseudo-labels" if full else "true masks"
            self.ratio_missing = f"no scored segmentation network trained on {kind}"
        elif not weak.evaluation.same_images(full.evaluation):
            self.ratio_missing = f"scored on different images ({weak.evaluation.images} and {full.evaluation.images})"
        elif weak.score.miou is None or not full.score.miou:
            self.ratio_missing = "a score is undefined or 0"
        else:
            self.ratio = weak.score.miou / full.score.miou
        self.notes = [note for run in runs for note in run.outdated]
        for run in runs:
            if (record := run.records.get("labels", {})).get("vanished"):
                self.notes.append(f"labels of {run.name}: {provenance.vanished(record)}")

    def json(self) -> dict[str, dict[str, Any]]:
        """Return what report.json holds.

        Each run with scored CAMs has an entry: run name -> ``cam_miou``, ``cam_mfdr``, ``cam_mfnr``, ``threshold``, at
        the given threshold where there is one, else at the best. ``labels`` holds the scores of the pseudo-labels:
        ``labels_miou`` and so on, the name of the ``run``, and the scores after each of its ``steps``. ``segmentation``
        holds those of the segmentation network; the network trained on true masks is under ``full``, and the ``ratio``
        of both beside it. Further runs with labels or masks are under ``others`` of each. ``notes`` are numbered. A run
        that is called like one of these keys is a ``SettingError``.
        """
        result = {}
        for row in self.cams:
            name, score = row.run.name, row.score
            if name in ("labels", "segmentation", "notes"):
                raise SettingError(f"a run with CAM scores is called {name!r}, which report.json keeps free; rename it")
            result[name] = _entry(row, "cam_", threshold=score.threshold, threshold_chosen=score.chosen)
        labels, networks = {}, {}
        for row in self.labels:
            steps = {step: _means(score) for step, score in row.evaluation.steps.items()}
            labels[row.run.name] = _entry(row, "labels_", run=row.run.name, steps=steps)
        for row in self.networks:
            trained_on = f"true masks: {row.run.true_masks}" if row.run.true_masks else "pseudo-labels"
            networks[row.run.name] = _entry(row, "segmentation_", run=row.run.name, trained_on=trained_on)
        if labels:
            result["labels"] = labels.pop(self.chain["labels"].run.name) | ({"others": labels} if labels else {})
        if networks:
            main = {s: networks.pop(self.chain[s].run.name) for s in ("weak", "full") if s in self.chain}
            ratio = {"ratio": self.ratio} | ({"ratio_missing": self.ratio_missing} if self.ratio_missing else {})
            result["segmentation"] = main.pop("weak", {}) | main | ratio | ({"others": networks} if networks else {})
        notes = {str(number): note for number, note in enumerate(self.notes, 1)}
        return result | ({"notes": notes} if notes else {})


def _rows(run: Run, stage: str) -> list[StageScore]:
    """Return the row of a stage of a run; none where it was not scored."""
    result = run.evaluations.get(stage)
    network = "segmentation" if run.true_masks is None else "segmentation, true masks"
    name = {"cams": "CAM", "masks": network}.get(stage, stage)
    return [StageScore(run, name, result, result.score)] if result else []


def _best(rows: list[StageScore]) -> StageScore | None:
    return max(rows, key=lambda row: row.score.miou or 0.0, default=None)


def _means(score: Score, prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in zip(MEANS, score[:3], strict=True)}


def _entry(row: StageScore, prefix: str, **facts: Any) -> dict[str, Any]:
    return {**_means(row.score, prefix), **facts, "images": row.evaluation.images}
