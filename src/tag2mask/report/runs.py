"""What runs left behind: scores, logs, pictures and records of how they were made."""

from pathlib import Path, PurePath
from typing import Any, NamedTuple

from tag2mask.errors import MissingError
from tag2mask.io import provenance
from tag2mask.io.files import decoding, read_json
from tag2mask.io.names import checked
from tag2mask.io.records import RUN_FILE, record_of
from tag2mask.report.logs import read_log

MEANS = ("miou", "mfdr", "mfnr")
STAGES = ("cams", "labels", "masks")  # folders of a run whose evaluations are stages of the pipeline
EVALUATION = "_evaluation.json"  # after the name of the scored folder


class Score(NamedTuple):
    """Means over all classes, as fractions; None where undefined.

    ``iou`` is the IoU by class name, in the order of the mask values, and empty where it was not kept. CAMs have a
    background ``threshold``; ``chosen`` says in words on which images.
    """

    miou: float | None
    mfdr: float | None
    mfnr: float | None
    iou: dict[str, float | None]
    threshold: float | None = None
    chosen: str | None = None


class Evaluation:
    """One ``*_evaluation.json``, with None for what older versions did not keep.

    ``score`` is at the given threshold where there is one, else at the best; ``steps`` has the scores after each step
    on the way to pseudo-labels, ``worst`` photographs with the lowest mIoU, and ``config`` the options of `tag2mask
    evaluate`. ``names`` is a digest of the names of the ``images``, ``state`` that of the scored folder
    (`io.provenance.state`).
    """

    def __init__(self, path: Path) -> None:
        """Read a file; ``DamagedError`` where it holds no scores."""
        result = read_json(path)
        with decoding(path, "an evaluation", "delete it and run `tag2mask evaluate`"):
            best, images = ("fixed", "other") if "fixed" in result else ("best", "the scored")
            self.path, self.images = path, int(result["images"])
            self.score = _score(result[best], f"on {images} images")
            self.steps = {str(name): _score(step) for name, step in result.get("steps", {}).items()}
            worst = result.get("images_worst")
            named = [(checked(image["name"], path), float(image["miou"])) for image in worst or ()]
            named = [(checked(image["name"], path), float(image["miou"])) for image in worst or ()]
            self.worst = None if worst is None else named
            self.config = {key: str(value) for key, value in result.get("config", {}).items()}
            keys = ("commit", "images_digest", "predictions_state")
            self.commit, self.names, self.state = (result.get(key) for key in keys)

    def same_images(self, other: "Evaluation") -> bool:
        """Say whether ``other`` was scored on the same images and masks, as far as is known."""
        # of folders only the last name is compared: one folder may have been named by two paths
        options = ["masks"] if self.names and other.names else ["masks", "list"]
        names = [[PurePath(each.config.get(option, "")).name for option in options] for each in (self, other)]
        same_names = self.names == other.names or None in (self.names, other.names)
        return self.images == other.images and names[0] == names[1] and same_names


class Run:
    """A run folder.

    Attributes:
        records: the ``run.json`` of the training ("") and of its outputs, by folder, such as ``cams`` or ``masks/val``.
        evaluations: by the scored folder: ``cams``, ``labels``, ``masks`` (or else ``masks/val``), or any other.
        pictures: iteration -> name of a photograph -> picture of its CAMs.
        task, backbone, labels: class of the trained task, such as ``CAMTask``, name of the backbone and folder of the
            labels that the run was trained on; each empty where it is not known.
        true_masks: why the record shows that these are true masks, in words; None where they are pseudo-labels.
        outdated: a sentence for each output whose sources have changed since; ``evaluations`` leaves out its scores.
    """

    def __init__(self, folder: Path) -> None:
        """Read a run folder; ``DamagedError`` where one of its files is damaged."""
        self.name = folder.name
        outputs = [f"{name}/{split}" for name in ("cams", "seeds", "labels", "masks") for split in ("", "*/")]
        places = [path.parent for each in ("", *outputs) for path in sorted(folder.glob(f"{each}{RUN_FILE}"))]
        self.records = {path.relative_to(folder).as_posix().removeprefix("."): record_of(path) for path in places}
        paths = [*sorted(folder.glob(f"*{EVALUATION}")), *sorted(folder.glob(f"masks/*{EVALUATION}"))]
        self.evaluations = {p.relative_to(folder).as_posix().removesuffix(EVALUATION): Evaluation(p) for p in paths}
        if "masks" not in self.evaluations and "masks/val" in self.evaluations:
            self.evaluations["masks"] = self.evaluations.pop("masks/val")
        steps = {step.name.removeprefix("step_"): step for step in (folder / "pictures").glob("step_*")}
        pictures = {int(n): {p.stem: p for p in sorted(s.glob("*.png"))} for n, s in steps.items() if n.isdecimal()}
        self.pictures = {step: pictures[step] for step in sorted(pictures) if pictures[step]}
        self.log = read_log(folder)
        backbone = self.setting("model", "init_args", "backbone")
        backbone = backbone.get("name") if isinstance(backbone, dict) else backbone
        self.backbone = str(backbone or self.setting("model", "init_args", "encoder") or "")
        self.task = str(self.setting("model", "class_path") or "").rpartition(".")[2]
        self.labels = str(self.setting("data", "init_args", "labels") or "")
        name, last_two = PurePath(self.labels).name, "/".join(PurePath(self.labels).parts[-2:])
        drawn = name in ("SegmentationClassAug", "SegmentationClass", "masks")
        # `tag2mask prepare coco` paints true masks, so their folder has a record like one of pseudo-labels
        painted = last_two in ("masks/train2014", "masks/val2014")
        reason = last_two if painted else name if drawn and self.setting("labels_made_with") is None else None
        self.true_masks = None if reason is None else f"its labels are {reason}"
        self.outdated: list[str] = []
        self._leave_out_outdated(folder)

    def setting(self, *keys: str) -> Any:
        """Return one setting of the training's configuration, or None."""
        value: Any = self.records.get("", {}).get("config")
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _leave_out_outdated(self, folder: Path) -> None:
        for name, evaluation in list(self.evaluations.items()):
            masks_of_val = name == "masks" and "masks" not in self.records
            now = provenance.state(folder / ("masks/val" if masks_of_val else name))
            if None not in (now, evaluation.state) and now != evaluation.state:
                del self.evaluations[name]
                scores = f"the scores of {self.name}/{name} are of files that have been made anew since"
                self.outdated.append(f"{scores}: run `tag2mask evaluate` again")
        for path in (folder / name for name in self.records if name):
            if reason := provenance.outdated(path):
                self.outdated.append(f"the folder {path} is out of date: {reason}")
        before = self.records.get("", {}).get("labels_state")
        if before is not None and provenance.state(Path(self.labels)) not in (None, before):
            self.outdated.append(f"the run {self.name} was trained on labels that have been made anew since")


def read_runs(folder: Path) -> list[Run]:
    """Read the runs in a folder, or the folder itself where it is one run; ``MissingError`` where there is none."""
    folder = folder.resolve()
    files = (RUN_FILE, "config.yaml", *(f"{stage}{EVALUATION}" for stage in (*STAGES, "masks/val")))
    folders = [path for path in (folder, *sorted(folder.glob("*"))) if any((path / name).is_file() for name in files)]
    if not folders:
        raise MissingError(f"no run with run.json or cams_evaluation.json in {folder}; train and evaluate one first")
    return [Run(path) for path in (folders[:1] if folders[0] == folder else folders)]


def _score(values: dict[str, Any], chosen: str = "") -> Score:
    miou, mfdr, mfnr = (_number(values[key]) for key in MEANS)
    iou = {str(name): _number(value) for name, value in values.get("iou", {}).items()}
    threshold = _number(values.get("threshold"))
    return Score(miou, mfdr, mfnr, iou, threshold, None if threshold is None else chosen)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
