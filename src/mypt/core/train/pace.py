"""How fast this machine does a run, measured on a throw-away copy of it."""

import math
import time
from statistics import median

from mypt.core.train.session import Session

_STEPS = 25
_FEWEST_STEPS = 5
_WARMING_UP = 5
"""One step in so many is not counted: the first ones prepare what the later ones use."""


def seconds_per_step(session: Session, most_s: float = math.inf) -> float:
    """Time some steps; the median shrugs off a busy moment.

    Args:
        session: is trained by it.
        most_s: when so much time is over, five steps are enough.
    """
    times_s: list[float] = []
    end_s = time.monotonic() + most_s
    while len(times_s) < _STEPS and (len(times_s) < _FEWEST_STEPS or time.monotonic() < end_s):
        started_s = time.monotonic()
        session.train_step()
        session.read()
        times_s.append(time.monotonic() - started_s)
    return median(times_s[len(times_s) // _WARMING_UP :])


def seconds_per_evaluation(session: Session) -> float:
    """Time one evaluation; 0 where there is no validation split."""
    if not session.val_windows:
        return 0.0
    started_s = time.monotonic()
    session.evaluate()
    return time.monotonic() - started_s
