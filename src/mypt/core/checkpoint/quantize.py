"""The quantize verb: a model in, a model with its weights in 8 bits out, beside it."""

from collections.abc import Iterator

import torch

from mypt.core.checkpoint.snapshot import Contents, Snapshot, read_newest, weights_of
from mypt.core.checkpoint.state import State
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import is_int8, quantize
from mypt.errors import CheckpointError, UsageError
from mypt.events import Event, Noted, Quantized, Warned


def quantize_model(source: ModelDirectory, target: ModelDirectory) -> Iterator[Event]:
    """Store the newest state of a model with its weights in 8 bits, under another name; the model is only read.

    States that were made of another training are set aside first.

    Raises:
        UsageError: when both names are the same.
        CheckpointError: when there is no such model, when it is in 8 bits already, or when the other name is that of a
            model that was trained.
        LockedError: when the other name is in use.
    """
    if source.path == target.path:
        raise UsageError(f"{source.name}: would be written over itself", hint="Give --out another name.")
    warnings: list[str] = []
    snapshot, model, source_bytes = read_newest(source, _read, warnings.append)
    yield from map(Warned, warnings)
    if is_int8(model):
        raise CheckpointError(f"{source.path}: its weights are in int8 already")
    with target.lock():
        states = target.states()
        _require_ours(target, states)
        if any(state.training() == snapshot.training and _is_whole(state) for state in states):
            yield Noted(f"{target.name}: step {snapshot.training.step:,} is there already; nothing was written")
            return
        if not all(_is_earlier(state, snapshot) for state in states):
            aside = target.set_aside()
            yield Noted(f"{target.name}: was made of another training; it is kept as {aside}")
        quantize(model)
        contents = Contents(snapshot.config, snapshot.tokenizer, snapshot.training, weights_of(model))
        state, _ = target.publish(contents)
        target.retire()
        size_bytes = state.weight_bytes()
    yield Quantized(str(snapshot.state.path), str(state.path), snapshot.training.step, source_bytes, size_bytes)


def _read(newest: Snapshot) -> tuple[Snapshot, GPT, int]:
    """A state, its model and the size of its weights, at once: a running training may retire it any time."""
    return newest, newest.load(torch.device("cpu")), newest.state.weight_bytes()


def _is_whole(state: State) -> bool:
    return not any(problem for _, problem in state.check())


def _is_earlier(state: State, snapshot: Snapshot) -> bool:
    """Whether a state is of the same run, at most as far: then it may stand beside the newer one."""
    mine, other = state.training(), snapshot.training
    pairs = (
        (mine.model_name, other.model_name),
        (mine.training.seed, other.training.seed),
        (mine.data, other.data),
        (state.config(), snapshot.config),
    )
    return all(one == another for one, another in pairs) and (mine.step < other.step or mine == other)


def _require_ours(target: ModelDirectory, states: list[State]) -> None:
    """Refuse to write beside what was not made here.

    Raises:
        CheckpointError: when there is a trained model, what is left of one, or one of the original program.
    """
    if any(not state.is_int8() for state in states) or (not states and target.why_nothing()):
        raise CheckpointError(
            f"{target.path}: holds a model that was not made by mypt quantize; nothing was written",
            hint="Give --out another name.",
        )
