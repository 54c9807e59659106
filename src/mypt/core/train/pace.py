"""How fast this machine does a run, measured on a throw-away copy of it."""

import time
from statistics import median

from mypt.core.train.session import Session

_MEASURED_SHARE, _LONGEST_S = 0.01, 30
_FEWEST_STEPS = 5
_WARMING_UP = 5
"""One step in so many is not counted: the first ones prepare what the later ones use."""


def seconds_per_step(session: Session, duration_s: float = 0) -> float:
    """Time steps for one percent of a run's duration, half a minute at most; the median shrugs off a busy moment.

    Args:
        session: is trained by it.
        duration_s: how long the run is to be; if not said, a few steps are timed.
    """
    times_s: list[float] = []
    end_s = time.monotonic() + min(_MEASURED_SHARE * duration_s, _LONGEST_S)
    while len(times_s) < _FEWEST_STEPS or time.monotonic() < end_s:
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
