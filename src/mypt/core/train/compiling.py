"""Whether the steps of a run are compiled: found out before the first one, by trying, and true for the whole run.

Compiled code rounds otherwise, so a run that goes on does as it did before.
"""

from collections.abc import Callable, Generator
from typing import TypeVar

from mypt.core.data.corpus import Corpus
from mypt.core.device import Device, is_shortage
from mypt.core.train.pace import on_a_copy, seconds_of_best_step
from mypt.core.train.session import ARITHMETIC, Session
from mypt.core.train.start import Origin, is_to_compile
from mypt.core.trials import find_trial, keep_trial, machine_facts
from mypt.errors import MyptError, UsageError
from mypt.events import Event, Noted, Warned, result_of
from mypt.records.budget import training_flops_per_token
from mypt.records.run import RunConfig
from mypt.records.trial import Trial

T = TypeVar("T")

_WORTH_S, _WORTH_STEPS = 90, 300
"""Shorter runs end before they have won back the time of compiling and trying."""
_SLOWEST_FLOPS_PER_S = 2e10
_LONGEST_START_S = 0.02
"""No machine is slower than this, nor takes longer to begin a step: what is short even so need not be tried."""
_WORTH_GAIN = 1.05


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
    wanted = is_to_compile(config, origin.begun)
    if wanted is False or (wanted is None and device.kind == "mps"):  # torch compiles for it, as yet, by way of trial
        return device
    if device.kernels and wanted is None:
        return device  # no compiled step was found to be faster, and to try takes half a minute
    compiled = device.with_compiled_code()
    try:
        if wanted is None:
            return (yield from _faster(config, device, compiled, corpus, duration_s))
        yield Noted("compiling …")
        _tried(config, compiled, corpus, Session.train_step)
    except _CannotCompileError as problem:
        if config.training.compile == "on" and origin.begun is None:
            raise UsageError(
                f"--compile on: this machine cannot compile: {problem}",
                hint="Install a C++ compiler (g++ or clang), or say --compile off.",
            ) from None
        yield Warned(f"steps are not compiled: {problem}")
        return device
    return compiled


def _faster(
    config: RunConfig, device: Device, compiled: Device, corpus: Corpus, duration_s: float | None
) -> Generator[Event, None, Device]:
    """Try both, where the run is long enough for that."""
    if not _is_long(config, duration_s, _longest_step_s(config)):
        return device
    facts = _facts(config, device)
    trial = find_trial("compile", facts)
    usual_s = trial.usual_s if trial else _tried(config, device, corpus, seconds_of_best_step)
    if not _is_long(config, duration_s, usual_s):
        return device
    if trial is None:
        yield Noted(f"a step takes {usual_s * 1000:.0f} ms; trying whether compiled ones are faster …")
        tried_s = _tried(config, compiled, corpus, seconds_of_best_step)
        trial = Trial(question="compile", facts=facts, usual_s=usual_s, tried_s=tried_s)
        keep_trial(trial)
    is_faster = trial.gain >= _WORTH_GAIN
    yield Noted(
        f"a step takes {trial.tried_s * 1000:.0f} ms compiled and {trial.usual_s * 1000:.0f} ms not compiled here: "
        f"{'compiled' if is_faster else 'not compiled'}"
    )
    return compiled if is_faster else device


def _facts(config: RunConfig, device: Device) -> dict[str, str]:
    """What the outcome of a trial depends on."""
    names = ("batch_size", "sequences_at_once", "optimizer", "document_mask", "checkpoint_activations")
    facts = {name: str(getattr(config.training, name)) for name in names}
    facts |= {"device": device.label, "precision": device.precision, "model": config.model.as_json()}
    return machine_facts() | facts | {"arithmetic": ARITHMETIC}


def _is_long(config: RunConfig, duration_s: float | None, step_s: float) -> bool:
    """Whether a run is worth a trial and a compilation, by how long it or each of its steps takes."""
    if duration_s is not None:
        return duration_s >= _WORTH_S
    steps = config.training.max_iters
    return steps >= _WORTH_STEPS and steps * step_s >= _WORTH_S


def _longest_step_s(config: RunConfig) -> float:
    tokens = config.training.batch_size * config.model.block_size
    return tokens * training_flops_per_token(config.model) / _SLOWEST_FLOPS_PER_S + _LONGEST_START_S


def _tried(config: RunConfig, device: Device, corpus: Corpus, work: Callable[[Session], T]) -> T:
    """Do some steps of a throw-away copy of the run. What it has no room for, the run itself will tell.

    Raises:
        _CannotCompileError: when that is what fails.
    """
    try:
        return result_of(on_a_copy(config, device, corpus, work))
    except MyptError:
        raise
    except Exception as problem:
        # gcc's, Triton's and torch's own errors have no kind in common.
        if not device.compiled or is_shortage(problem):
            raise
        raise _CannotCompileError(str(problem).strip().split("\n")[0] or type(problem).__name__) from None
