"""What runs left behind: scores, logs, pictures and records of how they were made."""

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from tag2mask.errors import DamagedError, MissingError
from tag2mask.io import provenance
from tag2mask.io.files import read_json
from tag2mask.io.records import RUN_FILE, record_of
from tag2mask.report.logs import read_log

MEANS = ("miou", "mfdr", "mfnr")
STAGES = ("cams", "labels", "masks")
"""Folders of a run whose evaluations are stages of the pipeline."""
EVALUATION = "_evaluation.json"
"""End of the name of a file of scores; the scored folder stands before it."""
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


class Evaluation:
    """One ``*_evaluation.json``. What older versions did not keep is None.

    Attributes:
        path: of the file.
        images: number of scored images.
        score: at the given threshold where there is one, else at the best.
        steps: scores after each step on the way to pseudo-labels, by name.
        worst: photographs with the lowest mIoU, and that mIoU.
        config: options of `tag2mask evaluate`.
        commit: of the code that scored.
        names: digest of the names of the scored images.
        state: of the scored folder, `io.provenance.state`.
    """

    def __init__(self, path: Path) -> None:
        """Read a file; ``DamagedError`` where it holds no scores."""
        result = read_json(path)
        try:
            best, images = ("fixed", "other") if "fixed" in result else ("best", "the scored")
            self.path, self.images = path, int(result["images"])
            self.score = _score(result[best], f"on {images} images")
            self.steps = {str(name): _score(step) for name, step in result.get("steps", {}).items()}
            worst = result.get("images_worst")
            self.worst = None if worst is None else [(str(image["name"]), float(image["miou"])) for image in worst]
            self.config = {key: str(value) for key, value in result.get("config", {}).items()}
            keys = ("commit", "images_digest", "predictions_state")
            self.commit, self.names, self.state = (result.get(key) for key in keys)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise DamagedError(
                f"{path} is no evaluation ({reason}); delete it and run `tag2mask evaluate` again"
            ) from None

    def same_images(self, other: "Evaluation") -> bool:
        """Say whether ``other`` was scored on the same images and masks, as far as is known.

        Of folders only the last name is compared: one folder may have been named by two paths.
        """
        options = ["masks"] if self.names and other.names else ["masks", "list"]
        names = [[PurePath(each.config.get(option, "")).name for option in options] for each in (self, other)]
        same_names = self.names == other.names or None in (self.names, other.names)
        return self.images == other.images and names[0] == names[1] and same_names


class Run:
    """A run folder.

    Attributes:
        name: of the folder.
        records: the ``run.json`` of the training ("") and of its outputs, by folder, such as ``cams`` or ``masks/val``.
        evaluations: by the scored folder: ``cams``, ``labels``, ``masks`` (or else ``masks/val``), or any other.
        log: values that the training logged.
        pictures: iteration -> name of a photograph -> picture of its CAMs.
        task: class of the trained task, such as ``CAMTask``; empty where it is not known, as are the next two.
        backbone: name of the backbone.
        labels: folder of the labels that the run was trained on.
        outdated: a sentence for each output that was made from files which have changed since. ``evaluations`` leaves
            out the scores of such outputs.
    """

    def __init__(self, folder: Path) -> None:
        """Read a run folder; ``DamagedError`` where one of its files is damaged."""
        self.name = folder.name
        patterns = [RUN_FILE, *(f"{name}/{inner}{RUN_FILE}" for name in OUTPUTS for inner in ("", "*/"))]
        places = [path.parent for pattern in patterns for path in sorted(folder.glob(pattern))]
        names = ["" if path == folder else path.relative_to(folder).as_posix() for path in places]
        self.records = {name: record_of(path) for name, path in zip(names, places, strict=True)}
        self.evaluations = _evaluations(folder)
        self.log, self.pictures = read_log(folder), _pictures(folder / "pictures")
        backbone = self.setting("model", "init_args", "backbone")
        backbone = backbone.get("name") if isinstance(backbone, dict) else backbone
        self.backbone = str(backbone or self.setting("model", "init_args", "encoder") or "")
        self.task = str(self.setting("model", "class_path") or "").rpartition(".")[2]
        self.labels = str(self.setting("data", "init_args", "labels") or "")
        self.outdated = list(self._outdated(folder))

    def setting(self, *keys: str) -> Any:
        """Return one setting of the training's configuration, or None."""
        value: Any = self.records.get("", {}).get("config")
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

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

    def _outdated(self, folder: Path) -> Iterator[str]:
        for name, evaluation in list(self.evaluations.items()):
            masks_of_val = name == "masks" and not (folder / "masks" / RUN_FILE).is_file()
            now = provenance.state(folder / ("masks/val" if masks_of_val else name))
            if None not in (now, evaluation.state) and now != evaluation.state:
                del self.evaluations[name]
                scores = f"the scores of {self.name}/{name} are of files that have been made anew since"
                yield f"{scores}: run `tag2mask evaluate` again"
        for path in (folder / name for name in self.records if name):
            if reason := provenance.outdated(path):
                yield f"the folder {path} is out of date: {reason}"
        before = self.records.get("", {}).get("labels_state")
        if before is not None and provenance.state(Path(self.labels)) not in (None, before):
            yield f"the run {self.name} was trained on labels that have been made anew since"


def read_runs(folder: Path) -> list[Run]:
    """Read the runs in a folder, or the folder itself where it is one run.

    Raises:
        MissingError: there is no run.
        DamagedError: a file of a run is damaged.
    """
    folder = folder.resolve()
    files = (RUN_FILE, "config.yaml", *(f"{stage}{EVALUATION}" for stage in (*STAGES, "masks/val")))
    folders = [path for path in (folder, *sorted(folder.glob("*"))) if any((path / name).is_file() for name in files)]
    if not folders:
        raise MissingError(
            f"no run with run.json or cams_evaluation.json in {folder}; train one, and run `tag2mask evaluate` first"
        )
    return [Run(path) for path in (folders[:1] if folders[0] == folder else folders)]


def _pictures(folder: Path) -> dict[int, dict[str, Path]]:
    steps = {step.name.removeprefix("step_"): step for step in folder.glob("step_*")}
    pictures = {int(n): {p.stem: p for p in sorted(step.glob("*.png"))} for n, step in steps.items() if n.isdecimal()}
    return {step: pictures[step] for step in sorted(pictures) if pictures[step]}


def _evaluations(folder: Path) -> dict[str, Evaluation]:
    paths = [path for pattern in ("", "masks/") for path in sorted(folder.glob(f"{pattern}*{EVALUATION}"))]
    results = {path.relative_to(folder).as_posix().removesuffix(EVALUATION): Evaluation(path) for path in paths}
    if "masks" not in results and "masks/val" in results:
        results["masks"] = results.pop("masks/val")
    return results


def _score(values: dict[str, Any], chosen: str = "") -> Score:
    miou, mfdr, mfnr = (_number(values[key]) for key in MEANS)
    iou = {str(name): _number(value) for name, value in values.get("iou", {}).items()}
    threshold = _number(values.get("threshold"))
    return Score(miou, mfdr, mfnr, iou, threshold, None if threshold is None else chosen)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
