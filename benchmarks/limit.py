"""The time that a command may take, where a machine is lent for minutes: what is not done is left to the next call."""

import math
import time
from dataclasses import dataclass, field


class OutOfTime(Exception):
    """The time of this call is over. What was done is saved: the message says so, and the same command goes on."""


@dataclass(frozen=True)
class TimeLimit:
    """So many ``minutes`` from ``begun`` on, in seconds of `time.monotonic`; without a number none."""

    minutes: float = math.inf
    begun: float = field(default_factory=time.monotonic)

    def reached(self, share: float = 1.0) -> bool:
        """Say whether this share of the time is over."""
        return time.monotonic() - self.begun >= 60 * self.minutes * share
