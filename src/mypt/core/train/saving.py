"""Saving beside the training: when, and how it hardly stands still.

    live tensors -> a copy in memory (training waits) -> a thread writes it (training goes on)

One state is written at a time. A write that fails is told at the next step, never later.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from mypt.core.checkpoint.snapshot import Contents
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.device import Device
from mypt.core.train.memory import is_shortage
from mypt.core.train.metrics import MetricsLog
from mypt.errors import CheckpointError
from mypt.events import Event, Saved, Warned
from mypt.records.run import TrainingConfig

_STALLS_APART = 100
"""Saves by time are so many times apart as the last one made training wait: under 1 % of the run."""


class Cadence:
    """When the next state is due: a pure function of steps, seconds and what the last save cost."""

    def __init__(self, training: TrainingConfig, now_s: float) -> None:
        self._training = training
        self._last_s = now_s
        self._stall_s = 0.0

    def due(self, step: int, now_s: float, *, is_best: bool) -> bool:
        """Whether to save after this step.

        Args:
            step: updates done.
            now_s: the clock.
            is_best: it was just evaluated, and better than all before.
        """
        training = self._training
        if is_best or (training.keep_every and step % training.keep_every == 0):
            return True
        if training.save_interval:
            return step % training.save_interval == 0
        return now_s - self._last_s >= max(training.save_interval_s, _STALLS_APART * self._stall_s)

    def saved(self, now_s: float, stall_s: float) -> None:
        """Count from now on; training stood still for `stall_s`."""
        self._last_s, self._stall_s = now_s, stall_s


class Saver:
    """Publishes states of one run, in a thread while training goes on."""

    def __init__(
        self, directory: ModelDirectory, training: TrainingConfig, device: Device, log: MetricsLog, *, beside: bool
    ) -> None:
        """Save into `directory`.

        Args:
            directory: where the model lives; its lock is held.
            training: what to keep, and what a failed save means.
            device: where the tensors are.
            log: synced with every state.
            beside: write while training goes on, which takes memory for one copy more.
        """
        self._directory = directory
        self._training = training
        self._device = device
        self._log = log
        self._copies = _Copies(device) if beside else None
        self._writing: _Write | None = None
        self.saved_step: int | None = None
        self.stalled_s = 0.0
        """How long training has stood still for saves."""

    def begin(self, contents: Contents) -> Iterator[Event]:
        """Copy a state and begin to write it. A write still under way is waited for.

        Raises:
            CheckpointError: when the save before failed and a failure is to stop the run.
        """
        started_s = time.monotonic()
        yield from self.finish()
        contents = self._copied(contents)
        self._writing = _Write(lambda: self._publish(contents))
        if self._copies is None:
            self._writing.join()  # the tensors are the live ones
        self._writing.stall_s = time.monotonic() - started_s
        self.stalled_s += self._writing.stall_s
        yield from self.poll()

    def poll(self) -> Iterator[Event]:
        """Tell of a write that has ended.

        Raises:
            CheckpointError: when it failed and a failure is to stop the run.
        """
        if self._writing is not None and not self._writing.is_alive():
            yield from self.finish()

    def finish(self) -> Iterator[Event]:
        """Wait for the write under way, if there is one, and tell of it.

        Raises:
            CheckpointError: when it failed and a failure is to stop the run.
        """
        write = self._writing
        if write is None:
            return
        write.join()  # only then forgotten: who interrupts the waiting must not leave it alone with the disk
        self._writing = None
        try:
            yield self._told(write.result(), write.stall_s)
        except CheckpointError as problem:
            if self._training.on_save_error == "stop":
                raise
            yield Warned(f"{problem.message}. {problem.hint} Training goes on; the next save tries again.")

    def save_now(self, contents: Contents) -> Iterator[Event]:
        """Write a state and wait for it: the last one of a run.

        Raises:
            CheckpointError: when the disk refuses.
        """
        yield from self.finish()
        if self.saved_step != contents.training.step:
            yield self._told(self._publish(contents), 0.0)

    def close(self) -> None:
        """Let the write under way end, however the run ends."""
        if self._writing is not None:
            self._writing.join()

    def _told(self, saved: Saved, stall_s: float) -> Saved:
        self.saved_step = saved.step
        return replace(saved, stall_s=stall_s)

    def _publish(self, contents: Contents) -> Saved:
        started_s = time.monotonic()
        with suppress(OSError):  # the log is for people; what keeps it from being written is told when it grows
            self._log.sync()
        state, size_bytes = self._directory.publish(contents)
        self._directory.retire(self._training.keep_every)
        return Saved(state.step, str(state.path), size_bytes, time.monotonic() - started_s, 0.0)

    def _copied(self, contents: Contents) -> Contents:
        if self._copies is None:
            return contents
        try:
            return self._copies.of(contents)
        except (MemoryError, RuntimeError) as problem:
            if not is_shortage(problem):
                raise
        self._copies = None  # no room for a copy: from now on training waits for each write
        return contents


class _Copies:
    """Room in the machine's memory for one state, taken once and filled at every save."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._rooms: dict[str, Tensor] = {}

    def of(self, contents: Contents) -> Contents:
        """Copy all tensors: those of a GPU through pinned memory."""
        weights = {name: self._fill(name, tensor) for name, tensor in contents.weights.items()}
        moments = {name: self._fill(f"moments of {name}", tensor) for name, tensor in contents.moments.items()}
        self._device.synchronize()
        return replace(contents, weights=weights, moments=moments)

    def _fill(self, name: str, tensor: Tensor) -> Tensor:
        room = self._rooms.get(name)
        if room is None:
            room = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._rooms[name] = room
        return room.copy_(tensor.detach(), non_blocking=True)


class _Write(threading.Thread):
    """One write. A daemon: who leaves at once does not wait for it, and half a state never counts."""

    def __init__(self, work: Callable[[], Saved]) -> None:
        super().__init__(name="mypt-save", daemon=True)
        self._work = work
        self._saved: Saved | None = None
        self._problem: BaseException | None = None
        self.stall_s = 0.0
        self.start()

    def run(self) -> None:
        """Do the work; what goes wrong is kept for the one who asks."""
        try:
            self._saved = self._work()
        except BaseException as problem:  # noqa: BLE001 - raised again by result()
            self._problem = problem

    def result(self) -> Saved:
        """Wait, and give what was saved or raise what went wrong."""
        self.join()
        if self._problem is not None:
            raise self._problem
        assert self._saved is not None, "one of the two is set"
        return self._saved
