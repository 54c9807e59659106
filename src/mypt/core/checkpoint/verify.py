"""Is a model what its manifests say? Every byte of every saved state is read."""

import os
import time
from collections.abc import Iterator

from mypt.core.checkpoint.state import State
from mypt.core.checkpoint.store import ModelDirectory, no_such_model
from mypt.durable import size_on_disk
from mypt.errors import CheckpointError
from mypt.events import Event, FileVerified, Verified


def verify_model(directory: ModelDirectory) -> Iterator[Event]:
    """Check size and hash of every file of every state; a bad one does not end the work.

    Raises:
        CheckpointError: when there is no model of this name.
    """
    started_s = time.monotonic()
    states = directory.states()
    if not states:
        raise no_such_model(directory)
    files = total_bytes = 0
    damaged: list[str] = []
    for state in states:
        for event in _verify_state(state):
            if event.problem and not state.path.is_dir():
                break  # retired by a running training
            files += 1
            total_bytes += event.size_bytes
            if event.problem:
                damaged.append(event.path)
            yield event
    yield Verified(str(directory.path), files, total_bytes, tuple(damaged), time.monotonic() - started_s)


def _verify_state(state: State) -> Iterator[FileVerified]:
    try:
        for path, problem in state.check():
            yield FileVerified(str(path), size_on_disk(path), problem)
    except CheckpointError as problem:
        yield FileVerified(str(state.path), 0, problem.message.removeprefix(f"{state.path}{os.sep}"))
