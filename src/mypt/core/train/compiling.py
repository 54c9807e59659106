"""Whether the steps of a run are compiled: found out before the first one, by trying, and true for the whole run.

Compiled code rounds otherwise, so a run that goes on does as it did before.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from mypt.core.data.corpus import Corpus
from mypt.core.device import Device
from mypt.core.train.memory import in_memory, is_shortage
from mypt.core.train.pace import seconds_per_step
from mypt.core.train.session import Session
from mypt.core.train.start import Origin, begin
from mypt.errors import MyptError, UsageError
from mypt.events import Event, Noted, Warned
from mypt.records.budget import training_flops_per_token
from mypt.records.run import RunConfig
from mypt.units import human_duration

T = TypeVar("T")

_WORTH_S, _WORTH_STEPS = 90, 300
"""Shorter runs end before they have won back the time of compiling and trying."""
_SLOWEST_FLOPS, _LONGEST_START_S = 2e10, 0.02
"""No machine is slower than this, nor takes longer to begin a step: what is short even so need not be tried."""
_FASTER = 0.95


class _CannotCompileError(Exception):
    """What torch said when it was asked to."""


def choose_compiled(
    config: RunConfig, device: Device, corpus: Corpus, origin: Origin, duration_s: float | None
) -> Generator[Event, None, Device]:
    """Decide whether steps on the device are compiled.

    Args:
        config: the run, its vocabulary known.
        device: where it runs.
        corpus: its text.
        origin: whether it has begun before; then it does as before.
        duration_s: how long it is to be, where that is not said in steps.

    Raises:
        UsageError: when it is told to compile and cannot.
    """
    told = config.training.compile
    if told == "auto" and origin.own is not None:
        told = "on" if origin.own.training.versions.get("compiled") == "yes" else "off"
    if told == "off" or (told == "auto" and device.kind == "mps"):  # torch compiles for it, as yet, by way of trial
        return device
    compiled = replace(device, compiled=True)
    try:
        if told == "auto":
            return (yield from _faster(config, device, compiled, corpus, duration_s))
        yield Noted("compiling …")
        yield from _on_a_copy(config, compiled, corpus, Session.train_step)
    except _CannotCompileError as problem:
        if config.training.compile == "on":
            raise UsageError(
                f"--compile on: this machine cannot compile: {problem}",
                hint="Install a C++ compiler (g++ or clang), or leave --compile out.",
            ) from None
        yield Warned(f"steps are not compiled: {problem}")
        return device
    return compiled


def _faster(
    config: RunConfig, device: Device, compiled: Device, corpus: Corpus, duration_s: float | None
) -> Generator[Event, None, Device]:
    """Try both, where the run is long enough for that."""
    steps = config.training.max_iters
    if duration_s is None and steps < _WORTH_STEPS:
        return device
    if (duration_s or steps * _longest_step_s(config)) < _WORTH_S:
        return device
    written_s = yield from _on_a_copy(config, device, corpus, seconds_per_step)
    if (duration_s or steps * written_s) < _WORTH_S:
        return device
    yield Noted("trying whether compiled steps are faster …")
    compiled_s = yield from _on_a_copy(config, compiled, corpus, seconds_per_step)
    both = f"a step takes {compiled_s * 1000:.0f} ms compiled and {written_s * 1000:.0f} ms as written"
    if compiled_s > _FASTER * written_s:
        yield Noted(f"{both}: not compiled")
        return device
    sooner = f", which ends the run {human_duration(steps * (written_s - compiled_s))} sooner" if not duration_s else ""
    yield Noted(f"{both}: compiled{sooner}")
    return compiled


def _longest_step_s(config: RunConfig) -> float:
    tokens = config.training.batch_size * config.model.block_size
    return tokens * training_flops_per_token(config.model) / _SLOWEST_FLOPS + _LONGEST_START_S


def _on_a_copy(
    config: RunConfig, device: Device, corpus: Corpus, work: Callable[[Session], T]
) -> Generator[Event, None, T]:
    """Do some steps of a throw-away copy of the run.

    Raises:
        _CannotCompileError: when that is what fails.
    """
    try:
        with closing(begin(config, corpus, Origin(), device)) as session:
            return (yield from in_memory(session, lambda: work(session)))
    except MyptError:
        raise
    except (RuntimeError, OSError, ImportError) as problem:
        if not device.compiled or is_shortage(problem):
            raise
        raise _CannotCompileError(str(problem).strip().split("\n")[0]) from None
