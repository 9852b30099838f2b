"""The CSV logs of a training, joined where it was resumed."""

import csv
import math
import re
from pathlib import Path
from typing import NamedTuple

from tag2mask.errors import DamagedError
from tag2mask.io.files import TEXT, decoding


class Log(NamedTuple):
    """What a training has logged: the ``series`` of each quantity, such as ``val/cam_miou``, by rising iteration.

    ``parts`` logs were joined, more than one where the run was resumed; ``dropped`` values are nan or infinite.
    """

    series: dict[str, list[tuple[int, float]]]
    parts: int
    dropped: int


def read_log(run: Path) -> Log:
    """Read ``logs/version_*/metrics.csv`` of a run, joined by iteration; ``DamagedError`` where one is damaged.

    A resumed run goes on from its last checkpoint. So the values of a later log replace those of the earlier ones from
    the first iteration of the later log on. An unfinished last line of a killed process is left out.
    """
    paths = sorted((run / "logs").rglob("metrics.csv"))
    paths.sort(key=lambda path: int(re.sub(r"\D", "", path.parent.name) or -1))  # version_12 comes after version_2
    logs = [rows for path in paths if (rows := _rows(path))]
    joined, dropped = dict[str, dict[int, float]](), 0
    for rows in logs:
        first = min(step for step, _ in rows)
        joined = {key: {step: v for step, v in values.items() if step < first} for key, values in joined.items()}
        for step, values in rows:
            finite = {key: value for key, value in values.items() if math.isfinite(value)}
            dropped += len(values) - len(finite)
            for key, value in finite.items():
                joined.setdefault(key, {})[step] = value
    return Log({key: sorted(values.items()) for key, values in joined.items() if values}, len(logs), dropped)


def _rows(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Return the iteration and the values of each line."""
    with decoding(path, "a CSV log", "move it away, or restore it", TEXT):
        text = path.read_text(encoding="utf-8")
        head, *lines = list(csv.reader(text.splitlines(), strict=True)) or [["step"]]
    if "step" not in head:
        raise DamagedError(f"{path} is no log of a training: its first line has no column step; move it away")
    rows = []
    for number, line in enumerate(lines if text.endswith("\n") else lines[:-1], 2):
        try:
            values = {key: float(value) for key, value in zip(head, line, strict=True) if value}
            rows.append((int(values.pop("step")), values))
        except (ValueError, KeyError, OverflowError) as error:
            raise DamagedError(
                f"{path}, line {number} is damaged ({error}); expected {len(head)} values, with a step: delete the line"
            ) from None
    return rows
