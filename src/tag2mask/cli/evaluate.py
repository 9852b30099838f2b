"""Score folders of CAM files or label PNGs against masks, at full size: mIoU, mFDR and mFNR.

Prints a table by class for one folder, a line each for several. CAM files are scored at a sweep of
background thresholds.

reads   FOLDER/*.npz or *.png of each folder, and the masks
writes  FOLDER_evaluation.json beside each folder, for `tag2mask report`

Examples:
  tag2mask evaluate runs/demo/full/cams --masks data/sample/masks --list data/sample/val.txt
  tag2mask evaluate runs/voc/cam_resnet50/cams --masks data/VOCdevkit/VOC2012/SegmentationClass
"""

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any

from tag2mask import classes
from tag2mask.cli.options import Parser
from tag2mask.errors import MismatchError, MissingError, SettingError
from tag2mask.io import provenance
from tag2mask.io.files import read_json, write_json
from tag2mask.io.folders import read_classes
from tag2mask.io.records import commit, record_of, versions
from tag2mask.metrics import evaluation as scoring
from tag2mask.metrics.functional import THRESHOLDS
from tag2mask.utils.processes import one_thread
from tag2mask.utils.progress import warn


def evaluate(words: list[str]) -> None:
    """Run the verb."""
    parser = Parser("tag2mask evaluate", __doc__)
    parser.add_argument("predictions", type=Path, nargs="+", metavar="FOLDER", help="of CAM files or label PNGs")
    parser.add_argument("--masks", type=Path, required=True, help="folder of label PNGs with the truth")
    parser.add_argument("--list", type=Path, help="names to score, one a line; without it, all that have a mask")
    parser.add_argument("--classes", help="voc, coco or a classes.txt; without it, those that run.json names, else voc")
    parser.add_argument("--thresholds", type=float, nargs="+", help="background thresholds (0.05 0.10 ... 0.75)")
    parser.add_argument("--threshold", help="a threshold chosen on other images, or the JSON of their evaluation")
    parser.add_argument("--mean-over", help="classes of an extra mean, separated by commas")
    parser.add_argument("--out", type=Path, help="JSON file (FOLDER_evaluation.json beside each FOLDER)")
    args = parser.parse_args(words)
    if args.out and len(args.predictions) > 1:
        raise SettingError("--out names one file; with several folders leave it out: each gets a JSON beside it")
    for folder in args.predictions:
        if why := provenance.outdated(folder):
            warn(f"{folder} is out of date: {why}; it is scored as it is")
    with one_thread():
        results = {folder: _scored(folder, args) for folder in args.predictions}
    config = {key: str(value) for key, value in vars(args).items() if value is not None}
    files = [args.out or folder.parent / f"{folder.name}_evaluation.json" for folder in results]
    for file, (folder, result) in zip(files, results.items(), strict=True):
        made = {"commit": commit(), "versions": versions(), "predictions_state": provenance.state(folder)}
        write_json(file, {"config": config | {"predictions": str(folder)}, **made, **result})
    print(scoring.table(*results.values()) if len(results) == 1 else scoring.steps_table(results))
    print("\n".join(f"written to {file}" for file in files))


def _scored(predictions: Path, args: argparse.Namespace) -> dict[str, Any]:
    names = scoring.read_names(predictions, args.masks, args.list)
    count = len(scoring.predicted(predictions))
    if args.list is None and len(names) < count:
        warn(f"{count - len(names)} of {count} files in {predictions} have no mask in {args.masks} and are not scored")
    task = scoring.Task(predictions, args.masks, names, _class_names(args.classes, predictions))
    result = scoring.evaluate(task, args.thresholds or THRESHOLDS, _threshold(args.threshold))
    if args.mean_over:
        over = [name.strip() for name in args.mean_over.split(",")]
        for score in (*(result[key] for key in ("best", "fixed") if key in result), *result.get("steps", {}).values()):
            score |= scoring.mean_over(score, over)
    return result


def _class_names(option: str | None, predictions: Path) -> tuple[str, ...]:
    """Names by mask value, the background first: of ``--classes``, the folder's record, or VOC."""
    foreground = record_of(predictions).get("config", {}).get("classes")
    recorded = (classes.VOC[0], *foreground) if foreground else None
    if option is None:
        return recorded or classes.VOC
    known = {"voc": classes.VOC, "coco": classes.COCO}
    if option not in known and not Path(option).is_file():
        raise MissingError(f"--classes {option}: no such file; expected voc, coco or a file of names")
    names = known.get(option) or (classes.VOC[0], *read_classes(Path(option)))
    if recorded not in (None, names):
        before, now = (f"{', '.join(some[1:4])}, ... ({len(some) - 1})" for some in (recorded, names))
        remedy = "a mask value would stand for another class: leave --classes out"
        raise MismatchError(f"{predictions} was made for the classes {before}, --classes names {now}; {remedy}")
    return names


def _threshold(option: str | None) -> float | None:
    """A number, or the best threshold of an evaluation's JSON."""
    with suppress(ValueError):
        return None if option is None else float(option)
    best = read_json(Path(str(option)))
    for key in ("best", "threshold"):
        best = best.get(key) if isinstance(best, dict) else None
    if not isinstance(best, int | float):
        raise SettingError(f"--threshold {option}: expected a number or the JSON of an evaluation of CAM files")
    return float(best)
