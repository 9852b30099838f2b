"""The verb ``evaluate``: scores of folders of CAM files or label PNGs."""

import argparse
import sys
from pathlib import Path
from typing import Any

from tag2mask import classes
from tag2mask.cli.options import Parser
from tag2mask.errors import InputError
from tag2mask.io import provenance
from tag2mask.io.files import read_json, write_json
from tag2mask.io.folders import read_classes
from tag2mask.io.records import commit, versions
from tag2mask.metrics import evaluation as scoring
from tag2mask.metrics.functional import THRESHOLDS
from tag2mask.utils.threads import one_thread

DESCRIPTION = """Score folders of CAM files or label PNGs against masks, at full size, and print mIoU, mFDR and mFNR:
a table by class for one folder, a line each for several. CAM files are scored at a sweep of
background thresholds.

reads   FOLDER/*.npz or *.png of each folder, and the masks
writes  FOLDER_evaluation.json beside each folder, for `tag2mask report`"""
EXAMPLE = """examples
  tag2mask evaluate runs/demo/full/cams --masks data/sample/masks --list data/sample/val.txt
  tag2mask evaluate runs/voc/cam_resnet50/cams --masks data/VOCdevkit/VOC2012/SegmentationClass"""


def evaluate(words: list[str]) -> int:
    """Run the verb."""
    parser = Parser("tag2mask evaluate", description=DESCRIPTION, epilog=EXAMPLE)
    parser.add_argument(
        "predictions", type=Path, nargs="+", metavar="FOLDER", help="folder of CAM files (.npz) or of label PNGs"
    )
    parser.add_argument("--masks", type=Path, required=True, help="folder of label PNGs with the truth")
    parser.add_argument("--list", type=Path, help="names to score, one a line; without it, all that have a mask")
    parser.add_argument("--classes", help="voc, coco or a classes.txt; without it, those that run.json names, else voc")
    parser.add_argument("--thresholds", type=float, nargs="+", help="background thresholds (0.05 0.10 ... 0.75)")
    parser.add_argument("--threshold", help="a threshold chosen on other images, or the JSON of their evaluation")
    parser.add_argument("--mean-over", help="classes of an extra mean, separated by commas")
    parser.add_argument("--out", type=Path, help="JSON file (FOLDER_evaluation.json beside each FOLDER)")
    given = parser.parse_args(words)
    if given.out and len(given.predictions) > 1:
        raise InputError("--out names one file; with several folders leave it out: each gets a JSON beside it")
    for folder in given.predictions:
        if why := provenance.outdated(folder):
            print(f"tag2mask: {folder} is out of date: {why}; it is scored as it is", file=sys.stderr)
    with one_thread():
        results = {folder: _scored(folder, given) for folder in given.predictions}
    written = [_write_evaluation(folder, result, given) for folder, result in results.items()]
    print(scoring.table(*results.values()) if len(results) == 1 else scoring.steps_table(results))
    print("\n".join(f"written to {path}" for path in written))
    return 0


def _scored(predictions: Path, given: argparse.Namespace) -> dict[str, Any]:
    names = scoring.read_names(predictions, given.masks, given.list)
    there = len(scoring.predicted(predictions))
    if given.list is None and len(names) < there:
        passed = f"{there - len(names)} of {there} files in {predictions} have no mask in {given.masks}"
        print(f"tag2mask: {passed} and are not scored", file=sys.stderr)
    task = scoring.Task(predictions, given.masks, names, _class_names(given.classes, predictions))
    result = scoring.evaluate(task, given.thresholds or THRESHOLDS, _threshold(given.threshold))
    if given.mean_over:
        over = [name.strip() for name in given.mean_over.split(",")]
        for score in (*(result[key] for key in ("best", "fixed") if key in result), *result.get("steps", {}).values()):
            score |= scoring.mean_over(score, over)
    return result


def _write_evaluation(predictions: Path, result: dict[str, Any], given: argparse.Namespace) -> Path:
    out: Path = given.out or predictions.parent / f"{predictions.name}_evaluation.json"
    config = {key: str(value) for key, value in vars(given).items() if value is not None}
    config["predictions"] = str(predictions)
    made = {"commit": commit(), "versions": versions(), "predictions_state": provenance.state(predictions)}
    write_json(out, {"config": config, **made, **result})
    return out


def _class_names(given: str | None, predictions: Path) -> tuple[str, ...]:
    """Names by mask value, the background first: those that are given, else those that the record of a folder names."""
    found = provenance.record_of(predictions).get("config", {}).get("classes")
    recorded = (classes.VOC[0], *found) if found else None
    names = _given_names(given) if given is not None else recorded or classes.VOC
    if recorded is not None and names != recorded:
        ours, theirs = (f"{', '.join(some[1:4])}, ... ({len(some) - 1})" for some in (recorded, names))
        raise InputError(
            f"{predictions} was made for the classes {ours}, --classes names {theirs}: a mask value would stand for "
            "another class; leave --classes out"
        )
    return names


def _given_names(given: str) -> tuple[str, ...]:
    known = {"voc": classes.VOC, "coco": classes.COCO}
    if given in known:
        return known[given]
    if not Path(given).is_file():
        raise InputError(f"--classes {given}: no such file; expected voc, coco or a file of names")
    return (classes.VOC[0], *read_classes(Path(given)))


def _threshold(given: str | None) -> float | None:
    """A number, or the best threshold of an evaluation's JSON."""
    if given is None:
        return None
    try:
        return float(given)
    except ValueError:
        best = read_json(Path(given)).get("best", {}).get("threshold")
    if best is None:
        raise InputError(f"--threshold {given}: expected a number or the JSON of an evaluation of CAM files")
    return float(best)
