"""The loss of the two-step method, Eq. 7-16."""


def ramp(step: int, steps: int, share: float) -> float:
    """Return how much of a loss weight counts at ``step``: it grows from 0 to 1 over the first ``share`` of ``steps``.

    Puzzle-CAM ramps the weight of Eq. 15 so, with share 0.5; 0 is a constant weight.
    """
    over = share * steps
    return 1.0 if over <= 0 else min(1.0, step / over)
