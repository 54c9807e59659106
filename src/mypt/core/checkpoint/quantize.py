"""The quantize verb: a model in, a model with its weights in 8 bits out, beside it."""

from collections.abc import Iterator

import torch

from mypt.core.checkpoint.snapshot import Contents, read_newest, weights_of
from mypt.core.checkpoint.state import MODEL_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.model.int8 import quantize
from mypt.errors import CheckpointError, UsageError
from mypt.events import Event, Noted, Quantized, Warned


def quantize_model(source: ModelDirectory, target: ModelDirectory) -> Iterator[Event]:
    """Store the newest state of a model with its weights in 8 bits, under another name; the model is only read.

    Raises:
        UsageError: when both names are the same.
        CheckpointError: when there is no such model, when it is in 8 bits already, or when the other name is that of a
            model that was trained.
        LockedError: when the other name is in use.
    """
    if source.path == target.path:
        raise UsageError(f"{source.name}: would be written over itself", hint="Give --out another name.")
    warnings: list[str] = []
    snapshot, model = read_newest(source, lambda newest: (newest, newest.load(torch.device("cpu"))), warnings.append)
    yield from map(Warned, warnings)
    if snapshot.state.is_int8():
        raise CheckpointError(f"{source.path}: its weights are in int8 already")
    with target.lock():
        states = target.states()
        if any(not state.is_int8() for state in states):
            raise CheckpointError(
                f"{target.path}: a model that was not made by mypt quantize; nothing was written",
                hint="Give --out another name.",
            )
        if any(state.step == snapshot.training.step for state in states):
            yield Noted(f"{target.name}: step {snapshot.training.step:,} is there already; nothing was written")
            return
        quantize(model)
        contents = Contents(snapshot.config, snapshot.tokenizer, snapshot.training, weights_of(model))
        state, _ = target.publish(contents)
        target.retire()
    source_bytes, size_bytes = ((each.path / MODEL_FILE).stat().st_size for each in (snapshot.state, state))
    yield Quantized(str(snapshot.state.path), str(state.path), snapshot.training.step, source_bytes, size_bytes)
