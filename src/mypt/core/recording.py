"""Work on a GPU, recorded once as a CUDA graph and then launched as one.

A pass through a small model is a hundred kernels of a few microseconds each, and a training step a thousand; Python
needs several times as long to launch them as a GPU to run them. A graph holds the same kernels on the same memory, so
its bits are the same. It knows that memory alone: what changes between two launches is changed in place.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import NamedTuple

import torch

from mypt.errors import UsageError

USUAL_TIMES = 3
"""Before a recording: what libraries, and the compiler, prepare at first use is no part of the work."""

_ALONE = RLock()
"""torch records for one thread at a time, and records whatever is done on that stream meanwhile."""


class Recording(NamedTuple):
    """The graph, and where it leaves its result: the next launch overwrites it."""

    graph: torch.cuda.CUDAGraph
    result: torch.Tensor


@contextmanager
def recording_stream() -> Generator[None]:
    """Work on the current device's stream that records: after what was launched before it, and before what is after."""
    with _ALONE:
        stream = _stream(torch.cuda.current_device())
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            torch.cuda.current_stream().wait_stream(stream)


def record(work: Callable[[], torch.Tensor], *, hint: str, beside: Recording | None = None) -> Recording | None:
    """Record work on the current device, without doing it.

    Args:
        work: which was done some times before; it waits for nothing.
        hint: what to do where nothing can be recorded.
        beside: a recording whose memory is shared; the two are never launched at the same time.

    Returns:
        None where its memory does not fit beside what there is.

    Raises:
        UsageError: when the device refuses. torch does not get over it: streams and memory of this process are no
            longer as they were.
    """
    stream = _stream(torch.cuda.current_device())
    graph, pool = torch.cuda.CUDAGraph(), None if beside is None else beside.graph.pool()
    try:
        # Only this thread must not wait for the device meanwhile: others prepare batches and write states.
        with _ALONE, torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            result = work()
    except torch.OutOfMemoryError:
        return None
    except RuntimeError as problem:
        reason = str(problem).strip().splitlines()[0]
        raise UsageError(f"this GPU, or its driver, cannot record steps: {reason}", hint=hint) from None
    return Recording(graph, result)


@cache
def _stream(device: int) -> torch.cuda.Stream:
    """One for all recordings of a process on a device: libraries keep memory for every stream."""
    return torch.cuda.Stream(device)
