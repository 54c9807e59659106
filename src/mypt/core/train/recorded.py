"""Steps as a CUDA graph: recorded once, and then launched as one.

A step of a small model is a thousand kernels of a few microseconds each, and Python needs several times as long to
launch them as a GPU to run them. A graph holds the same kernels on the same memory, so its bits are the same.

It knows that memory alone: weights, moments, learning rates and the loss scale are changed in place from then on.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch

from mypt.core.evaluate.loss import Tensors
from mypt.errors import UsageError

USUAL_STEPS = 3
"""Before a recording: what libraries prepare at first use, and the compiler, is no part of a step."""

Work = Callable[[Tensors], torch.Tensor]
"""What is done with a batch. It waits for nothing, and batches of one run all have one shape."""


class _Recording(NamedTuple):
    """The graph, where it reads its batch, and where it leaves its result."""

    graph: torch.cuda.CUDAGraph
    batch: Tensors
    result: torch.Tensor


class Recorded:
    """Work on the device whose inputs are a batch, what is in memory, and torch's random numbers."""

    def __init__(self, device: torch.device) -> None:
        """Get ready, on a CUDA device."""
        self._device = device
        self._stream = _stream(device)
        self.forget()

    def forget(self) -> None:
        """Give the memory of a recording back, and record anew after some usual steps."""
        self._recording: _Recording | None = None
        self._usual_steps = 0
        self._is_refused = False

    def do(self, work: Work, batch: Tensors, seed: int) -> torch.Tensor:
        """Do the work: in the usual way at first, then by the recording.

        Args:
            work: the same every time.
            batch: what to learn from.
            seed: of torch's random numbers.

        Returns:
            What the work gives; a recording overwrites it the next time.

        Raises:
            UsageError: when the device refuses to record.
        """
        with torch.cuda.device(self._device):
            if self._recording is None and not self._is_refused and self._usual_steps >= USUAL_STEPS:
                self._record(work, batch)
            torch.manual_seed(seed)
            if self._recording is None:
                self._usual_steps += 1
                return self._usual(work, batch)
            for place, part in zip(self._recording.batch, batch, strict=True):
                if place is not None and part is not None:
                    place.copy_(part)
            self._recording.graph.replay()
            return self._recording.result

    def _usual(self, work: Work, batch: Tensors) -> torch.Tensor:
        """On the stream that records: gradients are formed where their tensors were first used."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = work(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _record(self, work: Work, batch: Tensors) -> None:
        """Record the work, without doing it. Where its memory does not fit beside what there is, go on as usual."""
        documents_BT = None if batch.documents_BT is None else batch.documents_BT.clone()
        places = Tensors(batch.inputs_BT.clone(), batch.targets_BT.clone(), documents_BT)
        graph = torch.cuda.CUDAGraph()
        try:
            # Only this thread must not wait for the device meanwhile: others prepare batches and write states.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                result = work(places)
        except torch.OutOfMemoryError:
            self._is_refused = True
        except RuntimeError as problem:
            # torch does not get over it: streams and memory of this process are no longer as they were.
            raise UsageError(
                f"this GPU, or its driver, cannot record steps: {str(problem).strip().splitlines()[0]}",
                hint="Say --set training.record_steps=false: steps are slower, and their bits the same.",
            ) from None
        else:
            self._recording = _Recording(graph, places, result)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all runs of a process: libraries keep memory for every stream."""
    return torch.cuda.Stream(device)
