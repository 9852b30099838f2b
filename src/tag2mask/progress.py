"""Progress of long work: a bar on a terminal, a line now and then in a file."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], total: int, unit: str, seconds: float = 30) -> Iterator[Item]:
    """Pass ``items`` on and show on standard error how many are done, how fast, and how long the rest will take.

    Args:
        items: in the order in which they are done.
        total: how many there are.
        unit: what they are, in the plural.
        seconds: between two lines, where standard error is no terminal.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=f" {unit}")
        return
    begun = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= seconds or done == total:
            rate = done / max(now - begun, 1e-9)
            left = tqdm.format_interval((total - done) / rate)
            print(f"{done} of {total} {unit}, {rate:.2f} a second, {left} left", file=sys.stderr, flush=True)
            said = now
