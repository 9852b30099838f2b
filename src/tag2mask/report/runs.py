"""What runs left behind: scores, logs, pictures and records of how they were made."""

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from tag2mask.errors import DamagedError, MissingError
from tag2mask.io import provenance
from tag2mask.io.files import read_json
from tag2mask.io.records import RUN_FILE
from tag2mask.report.logs import Log, read_log

MEANS = ("miou", "mfdr", "mfnr")
STAGES = ("cams", "labels", "masks")
"""Folders of a run whose evaluations are stages of the pipeline."""
TRUE_MASKS = ("SegmentationClassAug", "SegmentationClass", "masks")
"""Names of folders that hold drawn masks and no pseudo-labels."""
PAINTED = ("masks/train2014", "masks/val2014")
"""True masks of COCO. `tag2mask prepare coco` paints them, so their folder has a record like one of pseudo-labels."""
OUTPUTS = ("cams", "seeds", "labels", "masks")
"""Folders within a run that may hold a ``run.json``, or folders with one for each split."""


class Score(NamedTuple):
    """Scores of a folder of predictions, as fractions; None where undefined.

    Attributes:
        miou: mean IoU over all classes.
        mfdr: mean false discovery rate.
        mfnr: mean false negative rate.
        iou: by class name, in the order of the mask values, the background first; empty where it was not kept.
        threshold: background threshold of CAMs.
        chosen: the images that the threshold was chosen on, in words.
    """

    miou: float | None
    mfdr: float | None
    mfnr: float | None
    iou: dict[str, float | None]
    threshold: float | None = None
    chosen: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """One ``*_evaluation.json``.

    Attributes:
        path: of the file.
        images: number of scored images.
        score: at the given threshold where there is one, else at the best.
        steps: scores after each step on the way to pseudo-labels.
        worst: photographs with the lowest mIoU, and that mIoU; None where it was not kept.
        config: options of `tag2mask evaluate`.
        commit: of the code that scored.
        names: digest of the names of the scored images; None where it was not kept.
        state: of the scored folder, `io.provenance.state`; None where it was not kept.
    """

    path: Path
    images: int
    score: Score
    steps: dict[str, Score]
    worst: list[tuple[str, float]] | None
    config: dict[str, str]
    commit: str | None
    names: str | None
    state: str | None

    @property
    def options(self) -> dict[str, str]:
        """Options of `tag2mask evaluate` besides the scored folder."""
        return {key: value for key, value in self.config.items() if key != "predictions"}

    def same_images(self, other: "Evaluation") -> bool:
        """Say whether ``other`` was scored on the same images and masks, as far as is known.

        Of folders only the last name is compared: one folder may have been named by two paths.
        """
        options = ["masks"] if self.names and other.names else ["masks", "list"]
        names = [[PurePath(each.config.get(option, "")).name for option in options] for each in (self, other)]
        same_names = self.names == other.names or None in (self.names, other.names)
        return self.images == other.images and names[0] == names[1] and same_names


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        name: of the folder.
        evaluations: by the scored folder: ``cams``, ``labels``, ``masks``, or any other.
        records: the ``run.json`` of the training ("") and of its outputs, by folder, such as ``cams`` or ``masks/val``.
        log: values that the training logged.
        pictures: iteration -> name of a photograph -> picture of its CAMs.
        outdated: one sentence for each output that was made from files which have changed since. ``evaluations`` leaves
            out the scores of such outputs.
    """

    name: str
    evaluations: dict[str, Evaluation]
    records: dict[str, dict[str, Any]]
    log: Log = field(default_factory=Log)
    pictures: dict[int, dict[str, Path]] = field(default_factory=dict)
    outdated: tuple[str, ...] = ()

    def setting(self, *keys: str) -> Any:
        """Return one setting of the training's configuration, or None."""
        value: Any = self.records.get("", {}).get("config")
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def task(self) -> str:
        """Class of the trained task, such as ``CAMTask``; empty where it is not known."""
        return str(self.setting("model", "class_path") or "").rpartition(".")[2]

    @property
    def backbone(self) -> str:
        """Name of the backbone; empty where it is not known."""
        backbone = self.setting("model", "init_args", "backbone")
        name = backbone.get("name") if isinstance(backbone, dict) else backbone
        return str(name or self.setting("model", "init_args", "encoder") or "")

    @property
    def labels(self) -> str:
        """Folder of the labels that the run was trained on; empty where it is not known."""
        return str(self.setting("data", "init_args", "labels") or "")

    @property
    def true_masks(self) -> str | None:
        """The reason to take the run as trained on true masks, in words; None where it was trained on pseudo-labels.

        Only the record of the run counts: it has the folder, and whether tag2mask made the labels in that folder.
        """
        folder = PurePath(self.labels)
        painted = "/".join(folder.parts[-2:])
        if painted in PAINTED:
            return f"its labels are {painted}"
        made_by_us = "labels_made_with" in (self.setting() or {})
        return f"its labels are {folder.name}" if folder.name in TRUE_MASKS and not made_by_us else None


def read_runs(folder: Path) -> list[Run]:
    """Read the runs in a folder, or the folder itself where it is one run.

    Raises:
        MissingError: there is no run.
        DamagedError: a file of a run is damaged.
    """
    folder = folder.resolve()
    folders = [path for path in (folder, *sorted(folder.glob("*"))) if _is_run(path)]
    if not folders:
        raise MissingError(
            f"no run with run.json or cams_evaluation.json in {folder}; train one, and run `tag2mask evaluate` first"
        )
    return [read_run(path) for path in (folders[:1] if folders[0] == folder else folders)]


def _is_run(folder: Path) -> bool:
    stages = (f"{stage}_evaluation.json" for stage in (*STAGES, "masks/val"))
    return any((folder / name).is_file() for name in (RUN_FILE, "config.yaml", *stages))


def read_run(folder: Path) -> Run:
    """Read one run folder."""
    records, evaluations = _records(folder), _evaluations(folder)
    changed = [name for name, evaluation in evaluations.items() if _is_changed(folder, name, evaluation)]
    outdated = [
        f"the scores of {folder.name}/{name} are of files that have been made anew since: run `tag2mask evaluate` again"
        for name in changed
    ]
    for path in (folder / name for name in records if name):
        reason = provenance.outdated(path)
        outdated += [f"the folder {path} is out of date: {reason}"] if reason else []
    labels_state = records.get("", {}).get("labels_state")
    if labels_state is not None:
        now = provenance.state(Path(records[""]["config"]["data"]["init_args"]["labels"]))
        if now not in (None, labels_state):
            outdated.append(f"the run {folder.name} was trained on labels that have been made anew since")
    current = {name: evaluation for name, evaluation in evaluations.items() if name not in changed}
    return Run(folder.name, current, records, read_log(folder), _pictures(folder / "pictures"), tuple(outdated))


def _is_changed(folder: Path, name: str, evaluation: Evaluation) -> bool:
    """Say whether the files of the scored folder are known to have changed since they were scored."""
    masks_of_val = name == "masks" and not (folder / "masks" / RUN_FILE).is_file()
    now = provenance.state(folder / ("masks/val" if masks_of_val else name))
    return None not in (now, evaluation.state) and now != evaluation.state


def _evaluations(folder: Path) -> dict[str, Evaluation]:
    """Read all evaluations; that of ``masks/val`` counts as that of ``masks`` where there is no other."""
    paths = [path for pattern in ("", "masks/") for path in sorted(folder.glob(f"{pattern}*_evaluation.json"))]
    names = [path.relative_to(folder).as_posix().removesuffix("_evaluation.json") for path in paths]
    evaluations = {name: read_evaluation(path) for name, path in zip(names, paths, strict=True)}
    if "masks" not in evaluations and "masks/val" in evaluations:
        evaluations["masks"] = evaluations.pop("masks/val")
    return evaluations


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    patterns = ["", *(f"{name}/{inner}" for name in OUTPUTS for inner in ("", "*/"))]
    records = {}
    for path in (path for pattern in patterns for path in sorted(folder.glob(f"{pattern}{RUN_FILE}"))):
        record = read_json(path)
        if not isinstance(record, dict):
            raise DamagedError(f"{path} is not the record of a run; delete it, and what is beside it")
        records[path.parent.relative_to(folder).as_posix() if path.parent != folder else ""] = record
    return records


def _pictures(folder: Path) -> dict[int, dict[str, Path]]:
    steps = {step.name.removeprefix("step_"): step for step in folder.glob("step_*")}
    pictures = {int(n): {p.stem: p for p in sorted(step.glob("*.png"))} for n, step in steps.items() if n.isdecimal()}
    return {step: pictures[step] for step in sorted(pictures) if pictures[step]}


def read_evaluation(path: Path) -> Evaluation:
    """Read a file of `tag2mask evaluate`; ``DamagedError`` where it is damaged."""
    result = read_json(path)
    try:
        fixed = "fixed" in result
        worst = result.get("images_worst")
        return Evaluation(
            path,
            int(result["images"]),
            _score(result["fixed" if fixed else "best"], "on other images" if fixed else "on the scored images"),
            {str(name): _score(score) for name, score in result.get("steps", {}).items()},
            None if worst is None else [(str(image["name"]), float(image["miou"])) for image in worst],
            {key: str(value) for key, value in result.get("config", {}).items()},
            result.get("commit"),
            result.get("images_digest"),
            result.get("predictions_state"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DamagedError(f"{path} is no evaluation ({reason}); delete it and run `tag2mask evaluate` again") from None


def _score(values: dict[str, Any], chosen: str | None = None) -> Score:
    miou, mfdr, mfnr = (None if values[key] is None else float(values[key]) for key in MEANS)
    iou = {str(name): None if value is None else float(value) for name, value in values.get("iou", {}).items()}
    threshold = values.get("threshold")
    if threshold is None:
        return Score(miou, mfdr, mfnr, iou)
    return Score(miou, mfdr, mfnr, iou, float(threshold), chosen)
