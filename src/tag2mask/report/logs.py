"""The CSV logs of a training, joined where it was resumed."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tag2mask.errors import InputError

Series = list[tuple[int, float]]
"""Values of one quantity by iteration, in rising order."""


@dataclass
class Log:
    """What a training has logged.

    Attributes:
        series: name of the quantity, such as ``val/cam_miou`` -> its values.
        parts: how many logs were joined; more than one where the run was resumed.
        dropped: how many values were no numbers (nan, inf).
    """

    series: dict[str, Series] = field(default_factory=dict)
    parts: int = 0
    dropped: int = 0


def read_log(run: Path) -> Log:
    """Read ``logs/version_*/metrics.csv`` of a run, joined by iteration.

    A resumed run goes on from its last checkpoint, so a later log takes the place of all that an earlier one holds from
    its first iteration on.

    Raises:
        InputError: a log is damaged. A last line that was cut off when the process was killed is left out.
    """
    log, joined = Log(), dict[str, dict[int, float]]()
    for path in sorted((run / "logs").rglob("metrics.csv"), key=_version):
        rows = list(_rows(path))
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


def _rows(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the iteration and the values of each line."""
    try:
        text = path.read_text(encoding="utf-8")
        lines = list(csv.reader(text.splitlines(), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV log ({error}); move it away, or restore it") from None
    if not lines:
        return
    head = lines[0]
    if "step" not in head:
        raise InputError(f"{path} is no log of a training: its first line has no column step; move it away")
    for number, line in enumerate(lines[1:], 2):
        if number == len(lines) and not text.endswith("\n"):
            return
        try:
            given = {key: float(value) for key, value in zip(head, line, strict=True) if value}
            step = int(given.pop("step"))
        except (ValueError, KeyError, OverflowError) as error:
            raise InputError(
                f"{path}, line {number} is damaged ({error}); expected {len(head)} numbers, some of them empty, and a "
                "step: delete the line"
            ) from None
        yield step, given
