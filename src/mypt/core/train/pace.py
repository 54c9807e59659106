"""How fast this machine does a run, measured on a throw-away copy of it."""

import time
from statistics import median

from mypt.core.train.session import Session

_MEASURED_SHARE, _LONGEST_S = 0.01, 30
_FEWEST_STEPS = 5
_LONGEST_TRIAL_S = 10
_WARMING_UP = 5
"""One step in so many is not counted: the first ones prepare what the later ones use."""


def seconds_per_step(session: Session, duration_s: float) -> float:
    """Time steps for one percent of a run's duration, half a minute at most; the median shrugs off a busy moment.

    Args:
        session: is trained by it.
        duration_s: how long the run is to be.
    """
    times_s: list[float] = []
    end_s = time.monotonic() + min(_MEASURED_SHARE * duration_s, _LONGEST_S)
    while len(times_s) < _FEWEST_STEPS or time.monotonic() < end_s:
        times_s.append(_seconds_of_a_step(session))
    return median(times_s[len(times_s) // _WARMING_UP :])


def seconds_of_best_step(session: Session) -> float:
    """Time a few steps, and only two that take long. The first one prepares the others; other programs only add.

    Args:
        session: is trained by it.
    """
    first_s, times_s = _seconds_of_a_step(session), list[float]()
    while (len(times_s) < _FEWEST_STEPS and first_s + sum(times_s) < _LONGEST_TRIAL_S) or not times_s:
        times_s.append(_seconds_of_a_step(session))
    return min(times_s)


def _seconds_of_a_step(session: Session) -> float:
    started_s = time.monotonic()
    session.train_step()
    session.read()
    return time.monotonic() - started_s


def seconds_per_evaluation(session: Session) -> float:
    """Time one evaluation; 0 where there is no validation split."""
    if not session.val_windows:
        return 0.0
    started_s = time.monotonic()
    session.evaluate()
    return time.monotonic() - started_s
