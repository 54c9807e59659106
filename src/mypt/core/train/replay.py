"""The proof on a user's own run: do the newest steps again, and compare every bit with what was saved.

    the state before the newest -> its steps again -> equal to the newest state?

Nothing is written: the run stays as it is.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing

import torch
from torch import Tensor

from mypt.core.checkpoint.snapshot import Contents, Snapshot
from mypt.core.checkpoint.state import MODEL_FILE, OPTIMIZER_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import load_tensors
from mypt.core.device import deterministic
from mypt.core.train.compiling import choose_compiled
from mypt.core.train.memory import clear_shortage
from mypt.core.train.session import Session
from mypt.core.train.start import Origin, begin, other_surroundings, read_text, run_device
from mypt.errors import CheckpointError
from mypt.events import Event, Replayed, Replaying
from mypt.records.run import RunConfig

_TOLD_EVERY_S = 0.2
_CPU = torch.device("cpu")


def replay(directory: ModelDirectory) -> Generator[Event]:
    """Train from the second newest state to the newest one again. Nothing is written.

    Raises:
        CheckpointError: when there are no two states.
        LockedError: when a training holds the model.
        MyptError: whatever else keeps a training from going on.
    """
    started_s = time.monotonic()
    with deterministic(), directory.lock():
        before, after = _two_newest(directory)
        config = RunConfig(model=after.config, training=after.training.training, data=after.training.data)
        device = yield from run_device(config, after)
        origin = Origin(own=before)
        with clear_shortage(config, device):
            corpus = yield from read_text(config, origin)
            device = yield from choose_compiled(config, device, corpus, Origin(own=after), None)
            session = begin(config, corpus, origin, device)
        yield from other_surroundings(after.training.versions, session.versions())
        with closing(session):
            yield from _steps(session, before.training.step, after.training.step)
            contents = session.contents(after.training.model_name)
            compared, differing = _compare(contents, after)
            if after.training.val_step == after.training.step and session.val_windows:
                compared += 1
                score = session.evaluate()
                differing += ["val_loss"] * (score is None or score.loss != after.training.val_loss)
    yield Replayed(
        path=str(after.state.path),
        first_step=before.training.step,
        last_step=after.training.step,
        compared=compared,
        differing=tuple(differing),
        elapsed_s=time.monotonic() - started_s,
    )


def _two_newest(directory: ModelDirectory) -> tuple[Snapshot, Snapshot]:
    found = [Snapshot.of(state) for state in directory.states()[:2]]
    if len(found) != 2 or not (found[1].state.path / OPTIMIZER_FILE).is_file():  # noqa: PLR2004 - two
        raise CheckpointError(
            f"{directory.path}: there are no two states of one training to compare",
            hint="Train on until the next save: --save-interval N saves every N steps.",
        )
    after, before = found
    at_once = [snapshot.training.training.micro_batch_size for snapshot in found]
    if at_once[0] != at_once[1] or "torch" not in after.training.versions:
        raise CheckpointError(
            f"{after.state.path}: cannot be done again as it was: it was converted, or memory ran out on the way",
            hint="Train on until two more states are saved.",
        )
    return before, after


def _steps(session: Session, first: int, last: int) -> Iterator[Event]:
    started_s = told_s = time.monotonic()
    while session.progress.step < last:
        session.train_step()
        now_s = time.monotonic()
        if now_s - told_s >= _TOLD_EVERY_S or session.progress.step == last:
            told_s = now_s
            session.read()
            yield Replaying(session.progress.step - first, last - first, now_s - started_s)


def _compare(replayed: Contents, saved: Snapshot) -> tuple[int, list[str]]:
    """How many things were compared, and the names of those that differ."""
    path = saved.state.path
    tensors = [
        (replayed.weights, load_tensors(path / MODEL_FILE, _CPU)),
        (replayed.moments, load_tensors(path / OPTIMIZER_FILE, _CPU)),
    ]
    differing = [name for mine, theirs in tensors for name in _differing(mine, theirs)]
    facts = ("step", "samples_seen", "loss", "skipped_steps", "loss_scale")
    differing += [name for name in facts if getattr(replayed.training, name) != getattr(saved.training, name)]
    return sum(len(theirs) for _, theirs in tensors) + len(facts), differing


def _differing(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    return [
        name
        for name in sorted(mine.keys() | theirs.keys())
        if name not in mine or name not in theirs or not _same_bits(mine[name].cpu(), theirs[name])
    ]


def _same_bits(one: Tensor, other: Tensor) -> bool:
    # As bytes: 0.0 and -0.0 are equal numbers but not the same bits.
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(
        one.contiguous().reshape(-1).view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8)
    )
