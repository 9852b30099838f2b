"""What runs left behind: scores, logs, pictures and records of how they were made."""

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from tag2mask.errors import InputError
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
"""The same of COCO, which `tag2mask prepare coco` paints: the one maker of labels whose labels are true masks."""
OUTPUTS = ("cams", "seeds", "labels", "masks")
"""Folders within a run that may hold a ``run.json``, or folders with one for each split."""


@dataclass(frozen=True)
class Score:
    """Scores of a folder of predictions, as fractions; None where undefined.

    Attributes:
        miou: mean IoU over all classes.
        mfdr: mean false discovery rate.
        mfnr: mean false negative rate.
        iou: by class name, in the order of the mask values, the background first; empty where it was not kept.
        threshold: background threshold of CAMs.
        chosen: how that was chosen.
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
        images: how many were scored.
        score: at the given threshold where there is one, else at the best.
        steps: scores after each step on the way to pseudo-labels.
        worst: photographs with the lowest mean IoU, and that; None where it was not kept.
        config: options of `tag2mask evaluate`.
        commit: of the code that scored.
        names: digest of the names that were scored; None where it was not kept.
        state: of the folder that was scored, `io.provenance.state`; None where it was not kept.
    """

    path: Path
    images: int
    score: Score
    steps: dict[str, Score]
    worst: list[tuple[str, float]] | None
    config: dict[str, str]
    commit: str | None
    names: str | None
    state: str | None = None

    def same_images(self, other: "Evaluation") -> bool:
        """Say whether ``other`` was scored on the same images and masks, as far as is known.

        Of folders only the last name is compared: the same one may have been given by another path.
        """
        if (self.images, self._last("masks")) != (other.images, other._last("masks")):
            return False
        if self.names is not None and other.names is not None:
            return self.names == other.names
        return self._last("list") == other._last("list")

    def _last(self, option: str) -> str:
        return PurePath(self.config.get(option, "")).name


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        name: of the folder.
        folder: where it is.
        evaluations: by the folder that was scored: ``cams``, ``labels``, ``masks``, or any other.
        records: the ``run.json`` of the training ("") and of its outputs, by folder, such as ``cams`` or ``masks/val``.
        log: what the training logged.
        pictures: iteration -> name of a photograph -> picture of its CAMs.
        outdated: what is not of what the run holds now, in words; such evaluations are not among ``evaluations``.
    """

    name: str
    folder: Path
    evaluations: dict[str, Evaluation]
    records: dict[str, dict[str, Any]]
    log: Log = field(default_factory=Log)
    pictures: dict[int, dict[str, Path]] = field(default_factory=dict)
    outdated: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the training; empty where there was none."""
        found = self.records.get("", {}).get("config")
        return found if isinstance(found, dict) else {}

    def setting(self, *keys: str) -> Any:
        """Return one setting of the configuration, or None."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def task(self) -> str:
        """Class of what was trained, such as ``CAMTask``; empty where that is not known."""
        return str(self.setting("model", "class_path") or "").rpartition(".")[2]

    @property
    def backbone(self) -> str:
        """Name of the backbone; empty where that is not known."""
        found = self.setting("model", "init_args", "backbone")
        name = found.get("name") if isinstance(found, dict) else found
        return str(name or self.setting("model", "init_args", "encoder") or "")

    @property
    def labels(self) -> str | None:
        """Folder of the labels that it was trained on."""
        found = self.setting("data", "init_args", "labels")
        return None if found is None else str(found)

    @property
    def vanished(self) -> list[str]:
        """One line on tags that have no pixel in their label; none where every tag has some."""
        record = self.records.get("labels", {})
        return [provenance.vanished(record)] if record.get("vanished") else []

    @property
    def true_masks(self) -> str | None:
        """How it is known that it was trained on true masks; None where it was trained on pseudo-labels.

        What a run was trained on, its record alone says: the folder, and whether tag2mask made what lay in it.
        """
        folder = PurePath(self.labels or "")
        painted = "/".join(folder.parts[-2:])
        if painted in PAINTED:
            return f"its labels are {painted}"
        if folder.name in TRUE_MASKS and "labels_made_with" not in self.config:
            return f"its labels are {folder.name}"
        return None


def read_runs(folder: Path) -> list[Run]:
    """Read the runs in a folder, or the folder itself where it is one run.

    Raises:
        InputError: there is none, or one of their files is damaged.
    """
    folder = folder.resolve()
    if _is_run(folder):
        return [read_run(folder)]
    found = [path for path in sorted(folder.glob("*")) if _is_run(path)]
    if not found:
        raise InputError(
            f"no run with run.json or cams_evaluation.json in {folder}; train one, and run `tag2mask evaluate` first"
        )
    return [read_run(path) for path in found]


def _is_run(folder: Path) -> bool:
    names = (
        RUN_FILE,
        "config.yaml",
        *(f"{stage}_evaluation.json" for stage in STAGES),
        "masks/val_evaluation.json",
    )
    return any((folder / name).is_file() for name in names)


def read_run(folder: Path) -> Run:
    """Read one run folder."""
    records, evaluations = _records(folder), _evaluations(folder)
    changed = {name: why for name, one in evaluations.items() if (why := _changed(folder, name, one))}
    made = {folder / name: provenance.outdated(folder / name) for name in records if name}
    outdated = [*changed.values(), *(f"the folder {path} is out of date: {why}" for path, why in made.items() if why)]
    labels = records.get("", {}).get("labels_state")
    if labels is not None:
        now = provenance.state(Path(records[""]["config"]["data"]["init_args"]["labels"]))
        if now not in (None, labels):
            outdated.append(f"the run {folder.name} was trained on labels that have been made anew since")
    kept = {name: one for name, one in evaluations.items() if name not in changed}
    pictures = _pictures(folder / "pictures")
    return Run(folder.name, folder, kept, records, read_log(folder), pictures, tuple(outdated))


def _changed(folder: Path, name: str, evaluation: Evaluation) -> str | None:
    """Say why the scores are not those of the folder as it is now; None where they are, or nothing is known."""
    scored = folder / ("masks/val" if name == "masks" and not (folder / "masks" / RUN_FILE).is_file() else name)
    now = provenance.state(scored)
    if None in (now, evaluation.state) or now == evaluation.state:
        return None
    return (
        f"the scores of {folder.name}/{name} are of files that have been made anew since: run `tag2mask evaluate` again"
    )


def _evaluations(folder: Path) -> dict[str, Evaluation]:
    """Read all evaluations; that of ``masks/val`` counts as that of ``masks`` where there is no other."""
    paths = {path.name: path for path in sorted(folder.glob("*_evaluation.json"))}
    paths |= {f"masks/{path.name}": path for path in sorted(folder.glob("masks/*_evaluation.json"))}
    found = {name.removesuffix("_evaluation.json"): read_evaluation(path) for name, path in paths.items()}
    if "masks" not in found and "masks/val" in found:
        found["masks"] = found.pop("masks/val")
    return found


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    patterns = ["", *(f"{name}/{inner}" for name in OUTPUTS for inner in ("", "*/"))]
    found = {}
    for path in (path for pattern in patterns for path in sorted(folder.glob(f"{pattern}{RUN_FILE}"))):
        name = "" if path.parent == folder else path.parent.relative_to(folder).as_posix()
        found[name] = read_json(path)
        if not isinstance(found[name], dict):
            raise InputError(f"{path} is not the record of a run; delete it, and what is beside it")
    return found


def _pictures(folder: Path) -> dict[int, dict[str, Path]]:
    found = {}
    for step in folder.glob("step_*"):
        number = step.name.removeprefix("step_")
        pictures = {path.stem: path for path in sorted(step.glob("*.png"))}
        if number.isdecimal() and pictures:
            found[int(number)] = pictures
    return dict(sorted(found.items()))


def read_evaluation(path: Path) -> Evaluation:
    """Read what `tag2mask evaluate` wrote; ``InputError`` where it is damaged."""
    result = read_json(path)
    try:
        fixed = "fixed" in result
        chosen = "on other images" if fixed else "on the scored images"
        worst = result.get("images_worst")
        return Evaluation(
            path,
            int(result["images"]),
            _score(result["fixed" if fixed else "best"], chosen),
            {str(name): _score(score) for name, score in result.get("steps", {}).items()},
            None if worst is None else [(str(image["name"]), float(image["miou"])) for image in worst],
            {key: str(value) for key, value in result.get("config", {}).items()},
            result.get("commit"),
            result.get("images_digest"),
            result.get("predictions_state"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"{path} is no evaluation ({what}); delete it and run `tag2mask evaluate` again") from None


def _score(found: dict[str, Any], chosen: str | None = None) -> Score:
    miou, mfdr, mfnr = (None if found[key] is None else float(found[key]) for key in MEANS)
    iou = {str(name): None if value is None else float(value) for name, value in found.get("iou", {}).items()}
    threshold = found.get("threshold")
    if threshold is None:
        return Score(miou, mfdr, mfnr, iou)
    return Score(miou, mfdr, mfnr, iou, float(threshold), chosen)
