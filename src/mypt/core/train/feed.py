"""The next batch, made while the device works on this one.

One thread computes the order, reads the windows and, for CUDA, puts them into pinned memory, from
where they are copied beside the device's work. Batches are functions of their position, so the
thread changes nothing but the time.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from mypt.core.data.batches import Batch
from mypt.core.device import Device
from mypt.core.evaluate.loss import Tensors, host_tensors, to_device


class Feed:
    """Batches on the device, one ahead. The thread begins with the first batch that is asked for."""

    def __init__(self, batch_at: Callable[[int, int], Batch], device: Device) -> None:
        """Take batches from `batch_at(position, count)`, which only this feed may call."""
        self._batch_at = batch_at
        self._device = device
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mypt-feed")
        self._ahead: tuple[int, int, Future[Tensors]] | None = None
        self.waited_s = 0.0
        """How long `take` took, all its calls together. A GPU may still have been at work on steps before."""

    def take(self, position: int, count: int) -> Tensors:
        """Give windows position .. position + count - 1, and begin with the ones after them.

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
        if self._ahead is None or self._ahead[:2] != (position, count):
            self._begin(position, count)
        assert self._ahead is not None, "just begun"
        made, self._ahead = self._ahead[2], None  # what failed is made anew when it is asked for again
        ready = made.result()
        self._begin(position + count, count)
        return to_device(ready, self._device)

    def _begin(self, position: int, count: int) -> None:
        self._ahead = (position, count, self._thread.submit(self._make, position, count))

    def _make(self, position: int, count: int) -> Tensors:
        if self._device.kind != "cuda":
            return host_tensors(self._batch_at(position, count), self._device)
        # A thread begins on the first device of the machine, and pinning would wake that one too.
        with torch.cuda.device(self._device.torch):
            return host_tensors(self._batch_at(position, count), self._device)
