"""Reading by recordings: a step of generation is done as usual a few times, and then launched as one.

Letters: B rows, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.generate.reader import ModelReader, require_numbers
from mypt.core.model.cache import KeyValueCache, PlacedRows
from mypt.core.model.gpt import GPT
from mypt.core.recording import USUAL_TIMES, Recording, record, recording_stream

_HINT = "Leave --compile on out: tokens are then read more slowly."


class RecordedReader:
    """Extends the rows of a cache by recordings, one for each power of two of them; prompts are read as usual."""

    def __init__(self, model: GPT, cache: KeyValueCache, device: torch.device) -> None:
        self._model, self._cache, self._device = model, cache, device
        self._usual = ModelReader(model, cache, device)
        self._steps: dict[int, Step] = {}
        self._fits = True

    def read(self, row: int, ids: Sequence[int]) -> None:
        """Read the tokens that follow those of a row."""
        self._usual.read(row, ids)

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read one token in each of the first rows; logits of the next ones, shape (B, V).

        Where a recording does not fit the memory, steps are done as usual from then on.

        Raises:
            DivergedError: when they are no numbers.
            UsageError: when the device refuses to record.
        """
        count, lengths = len(ids), self._cache.lengths
        size = min(len(lengths), 1 << (count - 1).bit_length())
        # Rows without a text take part, at the next free place: what they write there is nobody's. Where a row is full
        # that is its last one, which no text begins with.
        last = self._cache.positions - 1
        places = [*lengths[:count], *(min(length, last) for length in lengths[count:size])]
        logits_BV = self._recorded([*ids, *[0] * (size - count)], places) if self._fits else None
        if logits_BV is None:
            self._fits = False
            self._steps.clear()
            return self._usual.step(ids)
        lengths[:count] = [length + 1 for length in lengths[:count]]
        return require_numbers(logits_BV[:count])

    def _recorded(self, ids: Sequence[int], places: Sequence[int]) -> NDArray[np.float32] | None:
        size = len(ids)
        if size not in self._steps:
            earlier = next((step.recording for step in self._steps.values()), None)
            self._steps[size] = Step(self._model, self._cache, size, self._device, earlier)
        return self._steps[size].read(ids, places)


class Step:
    """One token in each of so many rows: always the same work on the same memory."""

    def __init__(
        self, model: GPT, cache: KeyValueCache, size: int, device: torch.device, beside: Recording | None
    ) -> None:
        self._model, self._device, self._beside = model, device, beside
        self._inputs_2B = torch.zeros((2, size), dtype=torch.long, device=device)
        self._rows = PlacedRows(cache, self._inputs_2B[1])
        self.recording: Recording | None = None

    def read(self, ids: Sequence[int], places: Sequence[int]) -> NDArray[np.float32] | None:
        """Read each row's token at its place; logits of the next ones, shape (B, V). None: they cannot be recorded.

        Raises:
            UsageError: when the device refuses to record.
        """
        self._inputs_2B.copy_(torch.tensor([ids, places], device="cpu"))
        if self._device.type != "cuda":
            return self._work().numpy()
        with torch.cuda.device(self._device):
            self.recording = self.recording or self._record()
            if self.recording is None:
                return None
            self.recording.graph.replay()
            return self.recording.result.cpu().numpy()

    def _work(self) -> torch.Tensor:
        hidden_B1C = self._model.hidden(self._inputs_2B[0, :, None], self._rows)
        return self._model.logits(hidden_B1C)[:, 0].float()

    def _record(self) -> Recording | None:
        """Record the work. To do it before, and again, writes the same keys and values in the same places."""
        with recording_stream():
            for _ in range(USUAL_TIMES):
                self._work()
        return record(self._work, hint=_HINT, beside=self._beside)
