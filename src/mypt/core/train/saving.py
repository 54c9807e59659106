"""Saving beside the training, so that it hardly stands still.

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
from mypt.core.device import Device, is_shortage
from mypt.core.train.metrics import MetricsLog
from mypt.errors import CheckpointError
from mypt.events import Event, Saved, Warned
from mypt.records.run import TrainingConfig


class Saver:
    """Publishes states of one run, in a thread while training goes on."""

    def __init__(
        self,
        directory: ModelDirectory,
        training: TrainingConfig,
        device: Device,
        log: MetricsLog,
        *,
        beside: bool,
        newest_step: int,
    ) -> None:
        """Save into `directory`.

        Args:
            directory: where the model lives; its lock is held.
            training: what to keep, and what a failed save means.
            device: where the tensors are.
            log: synced with every state.
            beside: write while training goes on, which takes memory for one copy more.
            newest_step: the step the run begins at; 0 where nothing is saved.
        """
        self._directory = directory
        self._training = training
        self._device = device
        self._log = log
        self._copies = _Copies(device) if beside else None
        self._writing: _Write | None = None
        self.newest_step: int | None = newest_step
        """Of the state that was saved last, or is being written; None after a failure."""
        self.stall_s = 0.0
        """How long training stood still for the save that was begun last."""
        self.stalled_s = 0.0
        """And for all of them."""

    def begin(self, contents: Contents) -> Iterator[Event]:
        """Copy a state and begin to write it. A write still under way is waited for.

        Raises:
            CheckpointError: when the save before failed and a failure is to stop the run.
        """
        started_s = time.monotonic()
        told = list(self.finish())
        contents = self._copied(contents)
        self.newest_step = contents.training.step
        self._writing = _Write(lambda: self._publish(contents), beside=self._copies is not None)
        self.stall_s = time.monotonic() - started_s
        self.stalled_s += self.stall_s
        yield from told
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
        try:
            saved = write.result()
        except CheckpointError as problem:
            self._writing, self.newest_step = None, None
            if self._training.on_save_error == "stop":
                raise
            yield Warned(f"{problem.message}. {problem.hint} Training goes on; the next save tries again.")
        else:
            # Forgotten only now: who interrupts the waiting must not leave the write alone with the disk.
            self._writing = None
            yield replace(saved, stall_s=self.stall_s)

    def save_now(self, contents: Contents) -> Iterator[Event]:
        """Write a state and wait for it: the last one of a run.

        Raises:
            CheckpointError: when the disk refuses.
        """
        yield from self.finish()
        if self.newest_step != contents.training.step:
            saved = self._publish(contents)
            self.newest_step = saved.step
            yield saved

    def close(self) -> None:
        """Let the write under way end, however the run ends."""
        if self._writing is not None and self._writing.ident is not None:
            self._writing.join()

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

    def __init__(self, work: Callable[[], Saved], *, beside: bool) -> None:
        """Begin to work; with `beside` in a thread of its own, if there is one to be had."""
        super().__init__(name="mypt-save", daemon=True)
        self._work = work
        self._saved: Saved | None = None
        self._problem: BaseException | None = None
        try:
            if beside:
                self.start()
                return
        except RuntimeError:
            pass  # the system gives no more threads
        self.run()

    def run(self) -> None:
        """Do the work; what goes wrong is kept for the one who asks."""
        try:
            self._saved = self._work()
        except BaseException as problem:  # noqa: BLE001 - raised again by result()
            self._problem = problem

    def result(self) -> Saved:
        """Wait, and give what was saved.

        Raises:
            CheckpointError: when it could not be saved; and whatever else went wrong.
        """
        if self.ident is not None:
            self.join()
        if self._problem is not None:
            if is_shortage(self._problem):
                raise CheckpointError("cannot save: out of memory", hint="What was saved before is intact.")
            raise self._problem
        assert self._saved is not None, "one of the two is set"
        return self._saved
