"""What is in a model: JSON files, safetensors headers, and whether its states are whole. No torch, no numpy."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from mypt.core.checkpoint.retention import best_of, measured_loss
from mypt.core.checkpoint.state import DamagedStateError, State
from mypt.core.checkpoint.store import ModelDirectory
from mypt.durable import size_on_disk
from mypt.errors import CheckpointError, MyptError
from mypt.records.reports import AsideEntry, FileEntry, ModelReport, StateEntry
from mypt.records.run import RunConfig

_TAIL_BYTES = 2**16
_SHOWN_LOSSES = 60
# What is hashed in a few seconds; of more, sizes are compared.
_HASHED_BYTES = 4 * 2**30


def report_model(directory: ModelDirectory, step: int | None = None) -> ModelReport:
    """Describe the newest sound state of a model, or the state of one step, and tell how all its states are.

    Raises:
        CheckpointError: when no state can be read.
    """
    entries = _entries(directory.states())
    # A broken state can often be described still; it comes last.
    candidates = sorted(entries, key=lambda state: bool(entries[state].problem))
    problems: list[str] = []
    for state in candidates:
        if step is not None and state.step != step:
            continue
        try:
            return _report(directory, state, entries.values())
        except MyptError as problem:
            problems.append(problem.message)
        except OSError as problem:  # a running training may retire a state while it is read
            problems.append(f"{state.path}: {problem.strerror or problem}")
    raise CheckpointError(f"{directory.path}: no readable state" + "".join(f"\n  {problem}" for problem in problems))


def _report(directory: ModelDirectory, state: State, entries: Iterable[StateEntry]) -> ModelReport:
    training, spec = state.training(), state.tokenizer()
    metrics = list(_last_metrics(directory.metrics_path, training.step))
    return ModelReport(
        name=directory.name,
        path=str(state.path),
        parameters=state.parameters(),
        weights="int8" if state.is_int8() else "fp32",
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
        states=tuple(entries),
        set_aside=tuple(_set_aside(directory)),
        size_bytes=size_on_disk(directory.path),
        losses=tuple(line["loss"] for line in metrics if "loss" in line)[-_SHOWN_LOSSES:],
        val_losses=tuple(line["val_loss"] for line in metrics if "val_loss" in line)[-_SHOWN_LOSSES:],
    )


def _entries(states: Sequence[State]) -> dict[State, StateEntry]:
    """What there is to say of each state, but for those that a running training retires meanwhile."""
    sizes = [size_on_disk(state.path) for state in states]
    best, hashed = best_of(states), sum(sizes) <= _HASHED_BYTES
    entries: dict[State, StateEntry] = {}
    for state, size_bytes in zip(states, sizes, strict=True):
        whole, problem = _soundness(state, hashed=hashed)
        entry = StateEntry(
            step=state.step,
            path=str(state.path),
            size_bytes=size_bytes,
            val_loss=measured_loss(state),
            best=state == best,
            whole=whole,
            problem=problem,
        )
        if state.path.is_dir():
            entries[state] = entry
    return entries


def _soundness(state: State, *, hashed: bool) -> tuple[bool | None, str]:
    """Whether a state is whole, None for not known, and what is wrong with it."""
    try:
        for path, problem in state.check(sizes_only=not hashed):
            if problem:
                return False, f"{path.name}: {problem}"
    except DamagedStateError as damage:
        return False, damage.message.removeprefix(f"{state.path}{os.sep}")
    except CheckpointError as unreadable:
        return None, unreadable.message.removeprefix(f"{state.path}{os.sep}")
    return True if hashed else None, ""


def _set_aside(directory: ModelDirectory) -> Iterator[AsideEntry]:
    whys: tuple[Literal["broken"], Literal["replaced"]] = ("broken", "replaced")
    for why in whys:
        for path in sorted(directory.path.glob(f"step-*.{why}-*")):
            yield AsideEntry(path=str(path), why=why, size_bytes=size_on_disk(path))


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
