"""Tables from the scores that runs left behind."""

from pathlib import Path
from typing import Any

from tag2mask import files
from tag2mask.errors import InputError

COLUMNS = ("cam_miou", "cam_mfdr", "cam_mfnr")


def gather(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the scores of each run in ``folder``: run name -> ``cam_miou``, ``cam_mfdr``, ``cam_mfnr``, ``threshold``.

    A run is a subfolder with ``cams_evaluation.json``. At the given threshold where there is one, else at the best.
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
    return found


def table(result: dict[str, dict[str, Any]]) -> str:
    """Return the scores as text, in percent."""
    lines = [f"{'run':<12}{'mIoU':>8}{'mFDR':>8}{'mFNR':>8}{'threshold':>11}"]
    for name, row in sorted(result.items(), key=lambda item: list(result).index(item[0])):
        lines.append(
            f"{name:<12}" + "".join(f"{100 * row[column]:>8.1f}" for column in COLUMNS) + f"{row['threshold']:>11.2f}"
        )
    return "\n".join(lines)
