"""How fast this machine does a run, measured on a throw-away copy of it."""

import gc
import time
from collections.abc import Callable, Generator
from contextlib import closing
from statistics import median
from typing import TypeVar

import torch

from mypt.core.data.corpus import Corpus
from mypt.core.device import Device
from mypt.core.train.memory import in_memory
from mypt.core.train.session import Session
from mypt.core.train.start import Origin, begin
from mypt.events import Event
from mypt.records.run import RunConfig

T = TypeVar("T")

_MEASURED_SHARE, _LONGEST_S = 0.01, 30
_FEWEST_STEPS = 5
_LONGEST_TRIAL_S = 10
_WARMING_UP = 5
"""One step in so many is not counted: the first ones prepare what the later ones use."""


def on_a_copy(
    config: RunConfig, device: Device, corpus: Corpus, work: Callable[[Session], T]
) -> Generator[Event, None, T]:
    """Do some steps of a copy of a new run, and throw it away.

    Raises:
        MemoryShortageError: when there is no room for it.
    """
    result = yield from _worked(config, device, corpus, work)
    gc.collect()  # compiled blocks refer to themselves, and the run itself needs the room
    if device.kind == "cuda":
        torch.cuda.empty_cache()
    return result


def _worked(
    config: RunConfig, device: Device, corpus: Corpus, work: Callable[[Session], T]
) -> Generator[Event, None, T]:
    with closing(begin(config, corpus, Origin(), device)) as session:
        return (yield from in_memory(session, lambda: work(session)))


def seconds_per_step(session: Session, duration_s: float) -> float:
    """Time steps for one percent of a run's duration, half a minute at most; the median shrugs off a busy moment.

    Args:
        session: is trained by it.
        duration_s: how long the run is to be.
    """
    _prepare(session)
    times_s: list[float] = []
    end_s = time.monotonic() + min(_MEASURED_SHARE * duration_s, _LONGEST_S)
    while len(times_s) < _FEWEST_STEPS or time.monotonic() < end_s:
        times_s.append(_seconds_of_a_step(session, session.device.steps_ahead))
    return median(times_s[len(times_s) // _WARMING_UP :])


def seconds_of_best_step(session: Session) -> float:
    """Time a few steps, and only one that takes long; other programs only add.

    Args:
        session: is trained by it.
    """
    first_s, times_s = _prepare(session), list[float]()
    while (len(times_s) < _FEWEST_STEPS and first_s + sum(times_s) < _LONGEST_TRIAL_S) or not times_s:
        times_s.append(_seconds_of_a_step(session))
    return min(times_s)


def _prepare(session: Session) -> float:
    """Do the steps that prepare the others; give their seconds."""
    return sum(_seconds_of_a_step(session) for _ in range(session.steps_to_prepare))


def _seconds_of_a_step(session: Session, behind: int = 0) -> float:
    # The monotonic clock of some systems ticks sixty times a second.
    started_s = time.perf_counter()
    session.train_step()
    session.read(behind)
    return time.perf_counter() - started_s


def seconds_per_evaluation(session: Session) -> float:
    """Time one evaluation; 0 where there is no validation split."""
    if not session.val_windows:
        return 0.0
    started_s = time.monotonic()
    session.evaluate()
    return time.monotonic() - started_s
