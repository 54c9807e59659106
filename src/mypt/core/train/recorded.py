"""Steps as a CUDA graph: recorded once, and then launched as one.

A step of a small model is a thousand kernels of a few microseconds each, and Python needs several times as long to
launch them as a GPU to run them. A graph holds the same kernels on the same memory, so its bits are the same.
"""

import sys
from collections.abc import Callable
from functools import cache

import torch

from mypt.core.evaluate.loss import Tensors

_USUAL_STEPS = 3
"""Before a recording: what libraries prepare at first use, and the compiler, is no part of a step."""


class Recorded:
    """Work on the device whose inputs are a batch, what is in memory, and torch's random numbers."""

    def __init__(self, work: Callable[[Tensors], torch.Tensor], device: torch.device) -> None:
        """Get ready.

        Args:
            work: waits for nothing, and gives a new tensor; batches of one run all have one shape.
            device: a CUDA device.
        """
        self._work = work
        self._stream = _stream(device)
        self._device = device
        self.forget()

    def forget(self) -> None:
        """Record anew when there was time to prepare: what a step does has changed."""
        self._usual_steps_left = _USUAL_STEPS
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Tensors | None = None
        self._result: torch.Tensor | None = None

    def __call__(self, batch: Tensors, seed: int) -> torch.Tensor:
        """Do the work: in the usual way at first, then by the recording.

        Args:
            batch: what to learn from.
            seed: of torch's random numbers.
        """
        with torch.cuda.device(self._device):
            if self._graph is None and not self._usual_steps_left:
                self._record(batch)
            if self._graph is not None:
                return self._replay(self._graph, batch, seed)
            self._usual_steps_left -= 1
            return self._usual(batch, seed)

    def _usual(self, batch: Tensors, seed: int) -> torch.Tensor:
        """On the stream that records: gradients are formed where their tensors were first used."""
        torch.manual_seed(seed)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self._work(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _record(self, batch: Tensors) -> None:
        """Record the work, without doing it. What a device or its driver refuses to record is done as usual."""
        documents_BT = None if batch.documents_BT is None else batch.documents_BT.clone()
        self._batch = Tensors(batch.inputs_BT.clone(), batch.targets_BT.clone(), documents_BT)
        graph = torch.cuda.CUDAGraph()
        try:
            # Only this thread must not wait for the device meanwhile: others prepare batches and write states.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._result = self._work(self._batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            self._usual_steps_left = sys.maxsize
            # torch's generator may believe that it is still being recorded; a copy of it does not.
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            return
        self._graph = graph

    def _replay(self, graph: torch.cuda.CUDAGraph, batch: Tensors, seed: int) -> torch.Tensor:
        assert self._batch is not None, "recorded before"
        assert self._result is not None, "recorded before"
        for place, part in zip(self._batch, batch, strict=True):
            if place is not None and part is not None:
                place.copy_(part)
        torch.manual_seed(seed)
        graph.replay()
        return self._result.clone()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all runs of a process: libraries keep memory for every stream."""
    return torch.cuda.Stream(device)
