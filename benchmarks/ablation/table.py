"""The table of an ablation and its curves, from the records of its rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.ablation.score import NAMES

Records = Mapping[str, Sequence[Mapping[str, Any]]]
"""Records of each row, one a seed."""


def summary(records: Records) -> dict[str, Any]:
    """Return for each row the mean, standard deviation and range over its seeds, of every score and diagnostic."""
    rows: dict[str, Any] = {}
    for name, runs in records.items():
        values = defaultdict(list)
        for run in runs:
            for part, kinds in run["scores"].items():
                for kind, scores in kinds.items():
                    for key, value in scores.items():
                        values[f"{part}/{kind}/{key}"].append(value)
            last = run["curve"][-1] if run["curve"] else {}
            of_cams = run.get("attention_entropy")  # else of training
            found = {**last, "attention_entropy": of_cams} if of_cams is not None else last
            for key in ("attention_entropy", "cfc_similarity"):
                if key in found:
                    values[key].append(found[key])
            values["seconds"].append(run["seconds"]["training"])
        rows[name] = {"seeds": len(runs), **{key: spread(found) for key, found in values.items()}}
    return rows


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return mean, standard deviation (0 of a single value), lowest and highest."""
    deviation = stdev(values) if len(values) > 1 else 0.0
    return {"mean": mean(values), "sd": deviation, "low": min(values), "high": max(values)}


def markdown(rows: Mapping[str, Any], part: str = "all") -> str:
    """Return the table in percent: ``fixed`` scores of a part with their spread, the best of the sweep, diagnostics.

    The lowest class is that of any seed: a mean can fall for one class that is lost.
    """
    head = ["row", "seeds", "threshold", *NAMES, "range of miou", "best miou", "lowest class"]
    head += ["entropy", "similarity", "s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in rows.items():
        fixed = {key: row[f"{part}/fixed/{key}"] for key in NAMES}
        cells = [name, str(row["seeds"]), f"{row[f'{part}/fixed/threshold']['mean']:.2f}"]
        cells += [f"{100 * v['mean']:.1f} ± {100 * v['sd']:.1f}" for v in fixed.values()]
        cells += [f"{100 * fixed['miou']['low']:.1f} to {100 * fixed['miou']['high']:.1f}"]
        cells += [f"{100 * row[f'{part}/best/miou']['mean']:.1f}", f"{100 * row[f'{part}/fixed/lowest']['low']:.1f}"]
        cells += [f"{row[key]['mean']:.2f}" if key in row else "" for key in ("attention_entropy", "cfc_similarity")]
        lines.append("| " + " | ".join([*cells, f"{row['seconds']['mean']:.0f}"]) + " |")
    return "\n".join(lines)


def draw_curves(records: Records, path: Path) -> None:
    """Draw mIoU, mFDR, mFNR and the classification loss over steps, a line a row: the mean over seeds (as Fig. 7)."""
    figure = Figure(figsize=(15, 3.6), dpi=90, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axis, key in zip(figure.subplots(1, 4), (*NAMES, "loss_cls"), strict=True):
        for name, runs in records.items():
            curves = [run["curve"] for run in runs if run["curve"]]
            steps = [point["step"] for point in curves[0]] if curves else []
            axis.plot(steps, [mean(c[i][key] for c in curves) for i in range(len(steps))], marker="o", label=name)
        axis.set_title(key)
        axis.set_xlabel("step")
    figure.axes[-1].legend(fontsize=8, loc="upper right")  # where losses fall
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(str(path))
