"""Steps define a run. What is said in tokens or in time becomes a number of steps before the first one.

The number is saved with the run: who goes on with it goes on to the same step, by the same learning rates.
"""

import math
import time
from collections.abc import Generator

from mypt.core.data.corpus import Corpus
from mypt.core.device import Device
from mypt.core.train.pace import on_a_copy, seconds_per_evaluation, seconds_per_step
from mypt.core.train.session import Session
from mypt.core.train.start import Origin
from mypt.events import Event, Noted
from mypt.records.length import Length
from mypt.records.run import RunConfig, TrainingConfig
from mypt.units import human_duration


def with_tokens(config: RunConfig, length: Length | None, origin: Origin) -> RunConfig:
    """Fix the number of steps where it was said in tokens.

    Args:
        config: the run, its vocabulary known.
        length: what the user said.
        origin: whether it has begun before, and how far it is.

    Raises:
        UsageError: for more steps than a run may have.
    """
    if length is None or length.duration_s is not None:
        return config
    return _with(config, max_iters=_steps_for_tokens(config, length, origin))


def with_duration(
    config: RunConfig, duration_s: float | None, corpus: Corpus, origin: Origin, device: Device, started_s: float
) -> Generator[Event, None, RunConfig]:
    """Fix the number of steps where it was said in time.

    Args:
        config: the run, its vocabulary known.
        duration_s: what the user said; None keeps the number of steps.
        corpus: its text.
        origin: whether it has begun before.
        device: where it runs, and whether steps are compiled.
        started_s: when its time began, by the monotonic clock.

    Raises:
        UsageError: for more steps than a run may have.
    """
    if duration_s is None:
        return config
    if origin.own is not None:
        steps = origin.own.training.training.max_iters
        yield Noted(f"the model has begun already and goes on to its {steps:,} steps: --for is for new ones")
        return _with(config, max_iters=steps)
    return (yield from _timed(config, duration_s, corpus, device, started_s))


def _steps_for_tokens(config: RunConfig, length: Length, origin: Origin) -> int:
    """Steps until the model has seen so many tokens, the steps before this start included."""
    goal = length.tokens or (length.tokens_per_parameter or 0.0) * config.model.parameters
    done, seen = 0, 0
    if origin.own is not None:
        done, seen = origin.own.training.step, origin.own.training.samples_seen * config.model.block_size
    per_step = config.training.batch_size * config.model.block_size
    return max(1, done + math.ceil(max(0.0, goal - seen) / per_step))


def _timed(
    config: RunConfig, duration_s: float, corpus: Corpus, device: Device, started_s: float
) -> Generator[Event, None, RunConfig]:
    yield Noted("measuring how fast this machine is …")

    def measured(session: Session) -> tuple[float, float, int]:
        step_s, evaluation_s = seconds_per_step(session, duration_s), seconds_per_evaluation(session)
        return step_s, evaluation_s, session.sequences_at_once

    step_s, evaluation_s, at_once = yield from on_a_copy(config, device, corpus, measured)
    left_s = started_s + duration_s - time.monotonic() - evaluation_s
    steps = max(1, round(left_s / (step_s + evaluation_s / config.training.eval_interval)))
    yield Noted(f"a step takes {step_s * 1000:.0f} ms, so {steps:,} steps end after {human_duration(duration_s)}")
    if at_once < config.training.sequences_at_once:
        return _with(config, max_iters=steps, micro_batch_size=at_once)
    return _with(config, max_iters=steps)


def _with(config: RunConfig, **changes: int) -> RunConfig:
    training = TrainingConfig.parse(config.training.model_dump() | changes, where="the length of the run")
    return config.model_copy(update={"training": training})
