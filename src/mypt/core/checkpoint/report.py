"""What is in a model, from JSON files and safetensors headers alone. No torch, no numpy."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mypt.core.checkpoint.state import State
from mypt.core.checkpoint.store import ModelDirectory
from mypt.errors import CheckpointError, MyptError
from mypt.records.reports import FileEntry, ModelReport, StateEntry
from mypt.records.run import RunConfig

_TAIL_BYTES = 2**16
_SHOWN_LOSSES = 60


def report_model(directory: ModelDirectory, step: int | None = None) -> ModelReport:
    """Describe the newest readable state of a model, or that of one step. Hashes are not checked.

    Raises:
        CheckpointError: when no state can be read.
    """
    problems: list[str] = []
    for state in directory.states():
        if step is not None and state.step != step:
            continue
        try:
            return _report(directory, state)
        except MyptError as problem:
            problems.append(problem.message)
        except OSError as problem:  # a running training may retire a state while it is read
            problems.append(f"{state.path}: {problem.strerror or problem}")
    raise CheckpointError(f"{directory.path}: no readable state" + "".join(f"\n  {problem}" for problem in problems))


def _report(directory: ModelDirectory, state: State) -> ModelReport:
    training, spec = state.training(), state.tokenizer()
    metrics = list(_last_metrics(directory.metrics_path, training.step))
    return ModelReport(
        name=directory.name,
        path=str(state.path),
        parameters=state.parameters(),
        step=training.step,
        tokens_seen=training.samples_seen * state.config().block_size,
        tokenizer=spec.kind,
        vocab_size=spec.vocab_size,
        config=state.config(),
        loss=training.loss,
        val_loss=training.val_loss,
        bits_per_byte=training.bits_per_byte,
        initialized_from=training.initialized_from,
        run=RunConfig(model=state.config(), training=training.training, data=training.data),
        versions=training.versions,
        files=tuple(FileEntry(name=path.name, size_bytes=path.stat().st_size) for path in sorted(state.path.iterdir())),
        states=tuple(_entry(each) for each in directory.states()),
        losses=tuple(line["loss"] for line in metrics if "loss" in line)[-_SHOWN_LOSSES:],
        val_losses=tuple(line["val_loss"] for line in metrics if "val_loss" in line)[-_SHOWN_LOSSES:],
    )


def _entry(state: State) -> StateEntry:
    try:
        val_loss = state.training().val_loss
    except MyptError:
        val_loss = None
    size_bytes = sum(path.stat().st_size for path in state.path.iterdir())
    return StateEntry(step=state.step, path=str(state.path), size_bytes=size_bytes, val_loss=val_loss)


def _last_metrics(path: Path, step: int) -> Iterator[dict[str, Any]]:
    """The last lines of metrics.jsonl up to `step`; a half-written or foreign line is passed over."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES), os.SEEK_SET)
        lines = file.read().splitlines()
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int) and entry["step"] <= step:
            yield entry
