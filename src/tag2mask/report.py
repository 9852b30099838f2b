"""Tables from the scores that runs left behind."""

from pathlib import Path
from typing import Any

from tag2mask import files
from tag2mask.errors import InputError

SCORES = ("miou", "mfdr", "mfnr")
COLUMNS = tuple(f"cam_{key}" for key in SCORES)


def gather(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the scores of each run in ``folder``: run name -> ``cam_miou``, ``cam_mfdr``, ``cam_mfnr``, ``threshold``.

    A run is a subfolder with ``cams_evaluation.json``. At the given threshold where there is one, else at the best.
    Where a run has ``labels_evaluation.json`` too, ``labels`` holds its ``labels_miou``, ``labels_mfdr``,
    ``labels_mfnr``, the name of the ``run``, and mIoU, mFDR and mFNR after each of its ``steps``.
    """
    found = {}
    for path in sorted(folder.glob("*/cams_evaluation.json")):
        result = files.read_json(path)
        score = result.get("fixed", result["best"])
        found[path.parent.name] = {
            **{column: score[column.removeprefix("cam_")] for column in COLUMNS},
            "threshold": score["threshold"],
            "threshold_chosen": "on other images" if "fixed" in result else "on the scored images",
            "images": result["images"],
        }
    if not found:
        raise InputError(f"no run with cams_evaluation.json in {folder}; run `tag2mask evaluate` first")
    for path in sorted(folder.glob("*/labels_evaluation.json")):
        found["labels"] = _labels(path)
    return found


def _labels(path: Path) -> dict[str, Any]:
    result = files.read_json(path)
    steps = {name: {key: score[key] for key in SCORES} for name, score in result.get("steps", {}).items()}
    scores = {f"labels_{key}": result["best"][key] for key in SCORES}
    return {**scores, "run": path.parent.name, "steps": steps, "images": result["images"]}


def table(result: dict[str, dict[str, Any]]) -> str:
    """Return the scores as text, in percent: the CAMs of each run, then the labels made from one of them."""
    lines = [f"{'run':<16}{'mIoU':>8}{'mFDR':>8}{'mFNR':>8}{'threshold':>11}"]
    for name, row in result.items():
        if name != "labels":
            lines.append(_line(f"{name}: CAM", [row[column] for column in COLUMNS]) + f"{row['threshold']:>11.2f}")
    labels = result.get("labels", {"steps": {}})
    for step, score in labels["steps"].items():
        lines.append(_line(f"{labels['run']}: {step}", [score[key] for key in SCORES]))
    if "run" in labels and not labels["steps"]:
        lines.append(_line(f"{labels['run']}: labels", [labels[f"labels_{key}"] for key in SCORES]))
    return "\n".join(lines)


def _line(name: str, scores: list[float]) -> str:
    return f"{name:<16}" + "".join(f"{100 * score:>8.1f}" for score in scores)
