"""The next batch, made while the device works on this one, where that saves time.

One thread computes the order, reads the windows and, for CUDA, puts them into pinned memory, from where they are copied
beside the device's work. On a CPU it would take turns with those that compute, so it only works where a batch takes
long, as from a slow disk. Batches are functions of their position, so the thread changes nothing but the time.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from mypt.core.data.batches import Batch
from mypt.core.device import Device
from mypt.core.evaluate.loss import Tensors, host_tensors, to_device

_LONG_S, _ASKED_AGAIN = 0.001, 16
"""A batch takes long from so many seconds on. Beside threads that compute any may, so each so many-th is made alone."""


class Feed:
    """Batches on the device. The thread begins with the first batch that is asked for, or that took long."""

    def __init__(self, batch_at: Callable[[int, int], Batch], device: Device) -> None:
        """Take batches from `batch_at(position, count)`, which two threads may call at once, and no one else."""
        self._batch_at = batch_at
        self._device = device
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mypt-feed")
        self._ahead: tuple[int, int, Future[Tensors]] | None = None
        self._made = 0
        self._took_s = 0.0
        """How long the last batch took to make."""
        self.waited_s = 0.0
        """How long `take` took, all its calls together. A GPU may still have been at work on steps before."""

    def take(self, position: int, count: int) -> Tensors:
        """Give windows position .. position + count - 1.

        Raises:
            DataError: when they cannot be read, now or a step ago.
        """
        started_s = time.monotonic()
        try:
            return self._take(position, count)
        finally:
            self.waited_s += time.monotonic() - started_s

    def close(self) -> None:
        """End the thread; the batch it is at is dropped."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _take(self, position: int, count: int) -> Tensors:
        ahead, self._ahead = self._ahead, None  # what failed is made anew when it is asked for again
        if ahead is not None and ahead[:2] == (position, count):
            made = ahead[2].result()
        else:
            made = self._make(position, count)
        self._made += 1
        is_asked = self._made % _ASKED_AGAIN == 0
        if self._device.kind == "cuda" or (self._took_s > _LONG_S and not is_asked):
            next_batch = position + count, count
            self._ahead = *next_batch, self._thread.submit(self._make, *next_batch)
        return to_device(made, self._device)

    def _make(self, position: int, count: int) -> Tensors:
        started_s = time.monotonic()
        try:
            return self._host_tensors(position, count)
        finally:
            self._took_s = time.monotonic() - started_s

    def _host_tensors(self, position: int, count: int) -> Tensors:
        if self._device.kind != "cuda":
            return host_tensors(self._batch_at(position, count), self._device)
        # A thread begins on the first device of the machine, and pinning would wake that one too.
        with torch.cuda.device(self._device.torch):
            return host_tensors(self._batch_at(position, count), self._device)
