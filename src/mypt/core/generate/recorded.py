"""Reading by CUDA graphs: a step of generation is recorded once, and then launched as one.

A token passes a model as some hundred small kernels, and Python needs several times as long to launch them as a GPU to
run them.

Letters: B rows, V vocabulary.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.generate.reader import ModelReader, require_numbers
from mypt.core.model.cache import KeyValueCache, PlacedRows
from mypt.core.model.gpt import GPT
from mypt.errors import UsageError

_USUAL_STEPS = 3
"""Before a recording: what libraries prepare at first use is no part of a step."""


class RecordedReader:
    """Extends the rows of a cache by recordings, one for each power of two of them; prompts are read as usual."""

    def __init__(self, model: GPT, cache: KeyValueCache, device: torch.device) -> None:
        self._model, self._cache, self._device = model, cache, device
        self._usual = ModelReader(model, cache, device)
        self._steps: dict[int, Step] = {}

    def read(self, row: int, ids: Sequence[int]) -> None:
        """Read the tokens that follow those of a row."""
        self._usual.read(row, ids)

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read one token in each of the first rows; logits of the next ones, shape (B, V).

        Raises:
            DivergedError: when they are no numbers.
            UsageError: when the device refuses to record.
        """
        count, lengths = len(ids), self._cache.lengths
        size = min(len(lengths), 1 << (count - 1).bit_length())
        if size not in self._steps:
            self._steps[size] = Step(self._model, self._cache, size, self._device)
        # Rows without a text take part: what is written after their end is nobody's.
        last = self._cache.memory.shape[4] - 1
        places = [*lengths[:count], *(min(length, last) for length in lengths[count:size])]
        logits_BV = self._steps[size].read([*ids, *[0] * (size - count)], places)
        lengths[:count] = [length + 1 for length in lengths[:count]]
        return require_numbers(logits_BV[:count])


class Step:
    """One token in each of so many rows: always the same work on the same memory."""

    def __init__(self, model: GPT, cache: KeyValueCache, size: int, device: torch.device) -> None:
        self._model = model
        self._inputs_2B = torch.zeros((2, size), dtype=torch.long, device=device)
        self._rows = PlacedRows(cache, self._inputs_2B[1])
        self._recording: tuple[torch.cuda.CUDAGraph, torch.Tensor] | None = None

    def read(self, ids: Sequence[int], places: Sequence[int]) -> NDArray[np.float32]:
        """Read each row's token at its place; logits of the next ones, shape (B, V).

        Raises:
            UsageError: when the device refuses to record.
        """
        self._inputs_2B.copy_(torch.tensor([ids, places], device="cpu"))
        if self._inputs_2B.device.type != "cuda":
            return self._work().numpy()
        with torch.cuda.device(self._inputs_2B.device):
            graph, logits_BV = self._recording or self._record()
            graph.replay()
            return logits_BV.cpu().numpy()

    def _work(self) -> torch.Tensor:
        hidden_B1C = self._model.hidden(self._inputs_2B[0, :, None], self._rows)
        return self._model.logits(hidden_B1C)[:, 0].float()

    def _record(self) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Record the work. To do it before, and again, writes the same keys and values in the same places."""
        stream, graph = _stream(torch.cuda.current_device()), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_USUAL_STEPS):
                self._work()
        torch.cuda.current_stream().wait_stream(stream)
        try:
            # Only this thread must not wait for the device meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                logits_BV = self._work()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as problem:
            reason = str(problem).strip().splitlines()[0]
            hint = "Leave --compile on out: tokens are then read more slowly."
            raise UsageError(f"this GPU, or its driver, cannot record steps: {reason}", hint=hint) from None
        self._recording = graph, logits_BV
        return self._recording


@cache
def _stream(_device: int) -> torch.cuda.Stream:
    """One for all recordings of a process: libraries keep memory for every stream."""
    return torch.cuda.Stream()
