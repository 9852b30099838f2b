"""Progress of long work: a bar on a terminal, a line now and then in a file."""

import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LONGEST = 2000  # characters of a message


class Lines:
    """Print a line on standard error every ``seconds``: how many of ``total`` are done, how fast, how long it takes.

    ``unit`` is a plural. The rate leaves out those that an earlier run has done, ``before``.
    """

    def __init__(self, total: int, unit: str, seconds: float = 30, before: int = 0) -> None:
        self.total, self.unit, self.seconds, self.before = total, unit, seconds, before
        self.start = self.last = time.monotonic()

    def tell(self, done: int, note: Callable[[], str] = str) -> None:
        """Print that ``done`` are done, and the ``note``, where it is time for a line or all is done."""
        now = time.monotonic()
        if now - self.last < self.seconds and done != self.total:
            return
        self.last, rate = now, (done - self.before) / max(now - self.start, 1e-9)
        left = tqdm.format_interval((self.total - done) / rate) if rate else "?"
        line = f"{done} of {self.total} {self.unit}, {rate:.2f} a second, {left} left"
        print("; ".join(filter(None, (line, note()))), file=sys.stderr, flush=True)


def progress(items: Iterable[Item], total: int, unit: str, seconds: float = 30) -> Iterator[Item]:
    """Pass on ``items``, ``total`` in all, and show progress on standard error: a bar, or `Lines` in a file."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=f" {unit}")
        return
    lines = Lines(total, unit, seconds)
    for done, item in enumerate(items, 1):
        yield item
        lines.tell(done)


def warn(message: str) -> None:
    """Print a line on standard error, above the bar if there is one."""
    tqdm.write(f"tag2mask: {shown(message)}", file=sys.stderr)


def shown(message: str) -> str:
    """Return a message as a terminal may have it: not longer than `LONGEST`, control characters as their codes."""
    short = message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"
    controls = "Cc", "Zl", "Zp"
    return "".join(ascii(sign)[1:-1] if unicodedata.category(sign) in controls else sign for sign in short)
