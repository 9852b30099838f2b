"""The CSV logs of a training, joined where it was resumed."""

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

from tag2mask.errors import DamagedError

Series = list[tuple[int, float]]
"""Values of one quantity by iteration, in rising order."""


@dataclass
class Log:
    """What a training has logged.

    Attributes:
        series: name of the quantity, such as ``val/cam_miou`` -> its values.
        parts: number of logs that were joined; more than one where the run was resumed.
        dropped: number of values that are nan or infinite.
    """

    series: dict[str, Series] = field(default_factory=dict)
    parts: int = 0
    dropped: int = 0


def read_log(run: Path) -> Log:
    """Read ``logs/version_*/metrics.csv`` of a run, joined by iteration.

    A resumed run goes on from its last checkpoint. So the values of a later log replace those of the earlier ones from
    the first iteration of the later log on.

    Raises:
        DamagedError: a log is damaged. An unfinished last line of a killed process is left out.
    """
    log, joined = Log(), dict[str, dict[int, float]]()
    for path in sorted((run / "logs").rglob("metrics.csv"), key=_version):
        rows = _rows(path)
        if not rows:
            continue
        log.parts += 1
        first = min(step for step, _ in rows)
        joined = {key: {step: v for step, v in values.items() if step < first} for key, values in joined.items()}
        for step, values in rows:
            for key, value in values.items():
                if math.isfinite(value):
                    joined.setdefault(key, {})[step] = value
                else:
                    log.dropped += 1
    log.series = {key: sorted(values.items()) for key, values in joined.items() if values}
    return log


def _version(path: Path) -> tuple[int, str]:
    """The number at the end of ``version_12``: as text, it would come before ``version_2``."""
    digits = path.parent.name.rpartition("_")[2]
    return (int(digits) if digits.isdigit() else -1, str(path))


def _rows(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Return the iteration and the values of each line."""
    try:
        text = path.read_text(encoding="utf-8")
        head, *lines = list(csv.reader(text.splitlines(), strict=True)) or [["step"]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DamagedError(f"{path} is no CSV log ({error}); move it away, or restore it") from None
    if "step" not in head:
        raise DamagedError(f"{path} is no log of a training: its first line has no column step; move it away")
    rows = []
    for number, line in enumerate(lines if text.endswith("\n") else lines[:-1], 2):
        try:
            values = {key: float(value) for key, value in zip(head, line, strict=True) if value}
            rows.append((int(values.pop("step")), values))
        except (ValueError, KeyError, OverflowError) as error:
            raise DamagedError(
                f"{path}, line {number} is damaged ({error}); expected {len(head)} numbers, some of them empty, and a "
                "step: delete the line"
            ) from None
    return rows
