"""What reads tokens by read.c.

Letters: B rows, V vocabulary.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from ctypes import CDLL, byref, c_int32, c_int64, c_void_p

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.device import computes_bf16
from mypt.core.generate.native.layout import Layout, whole_row
from mypt.core.generate.native.threads import threads_for
from mypt.core.generate.reader import ModelReader, no_numbers
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import is_int8

MOST_TOKENS = 32
"""In one call; the C code is told."""


class NativeReader:
    """Extends the rows of a cache by one call for all layers.

    A long prompt is read by the model: its products of large matrices are faster.
    """

    def __init__(self, library: CDLL, model: GPT, cache: KeyValueCache, model_reader: ModelReader) -> None:
        self._read = library.mypt_read
        self._read.restype = c_int32
        self._cache, self._model_reader = cache, model_reader
        self._vocab_size = model.config.vocab_size
        self._model, self._most_threads = model, torch.get_num_threads()
        self.longest_read = _longest_read(model)
        """Tokens of a prompt that are read here, and not by the model."""
        self._layout = Layout(model, cache, MOST_TOKENS, self._most_threads)

    def read(self, row: int, ids: Sequence[int]) -> None:
        """Read the tokens that follow those of a row."""
        if len(ids) > self.longest_read:
            self._model_reader.read(row, ids)
            return
        for start in range(0, len(ids), MOST_TOKENS):
            part, first = ids[start : start + MOST_TOKENS], self._cache.lengths[row]
            self._pass(part, [row] * len(part), range(first, first + len(part)))
            self._cache.lengths[row] += len(part)

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read one token in each of the first rows; logits of the next ones, shape (B, V).

        Raises:
            DivergedError: when they are no numbers.
        """
        logits_BV = np.empty((len(ids), whole_row(self._vocab_size)), np.float32)
        for first in range(0, len(ids), MOST_TOKENS):
            rows = range(first, min(first + MOST_TOKENS, len(ids)))
            places = [self._cache.lengths[row] for row in rows]
            if not self._pass([ids[row] for row in rows], rows, places, logits_BV[first:].ctypes.data):
                raise no_numbers()
            self._cache.lengths[rows.start : rows.stop] = [place + 1 for place in places]
        return logits_BV[:, : self._vocab_size]

    def _pass(self, ids: Sequence[int], rows: Sequence[int], places: Sequence[int], logits: int | None = None) -> bool:
        """One call; whether the logits are numbers.

        Raises:
            IndexError: instead of reading what is not the model's.
        """
        if min(ids) < 0 or max(ids) >= self._vocab_size or max(places) >= self._cache.positions:
            raise IndexError("a token or a position that the model does not have")
        numbers = c_int64 * len(ids)
        layout = self._layout
        chosen = threads_for(self._model, len(ids), self._most_threads)
        # A prompt takes less than a step of as many texts: no logits.
        with nullcontext(chosen.number) if logits is None else chosen.step() as threads:
            is_finite = self._read(
                *(byref(struct) for struct in (layout.model, layout.cache, layout.work)),
                *(c_int64(len(ids)), numbers(*ids), numbers(*rows), numbers(*places)),
                *(c_void_p(logits), c_int32(threads)),
            )
        return bool(is_finite)


def _longest_read(model: GPT) -> int:
    """What is read as fast as by torch, or faster, as was measured."""
    if is_int8(model):
        return 256
    if model.dtype == torch.bfloat16:
        return 32 if computes_bf16(torch.device("cpu")) else 1000
    return 64
