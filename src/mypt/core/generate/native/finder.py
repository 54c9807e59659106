"""What finds the likeliest ids by likeliest.c.

Letters: B rows, V vocabulary.
"""

from ctypes import CDLL, c_int32, c_int64, c_void_p

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.generate.native.layout import whole_row
from mypt.core.generate.native.threads import threads_for


class NativeFinder:
    """The ids of the highest scores in each of several rows, as `sampler.likeliest` gives them, by one call."""

    def __init__(self, library: CDLL, beside: object) -> None:
        """Get ready.

        Args:
            library: the compiled code.
            beside: the model whose steps it follows, by as many threads.
        """
        self._find = library.mypt_likeliest
        self._find.restype = None
        self._beside, self._most_threads = beside, torch.get_num_threads()
        self._make_room(0, 0)

    def __call__(self, logits_BV: NDArray[np.float32], count: int) -> list[NDArray[np.int64]]:
        """So many ids of each row, in order, and those as high as the last of them; until the next call."""
        rows, vocab_size = logits_BV.shape
        size = logits_BV.itemsize
        assert logits_BV.dtype == np.float32
        assert logits_BV.strides[1] == size
        if self._ids_BV.shape != logits_BV.shape:
            self._make_room(rows, vocab_size)
        numbers = map(c_int64, (logits_BV.strides[0] // size, rows, vocab_size, count))
        threads = threads_for(self._beside, rows, self._most_threads).number
        self._find(c_void_p(logits_BV.ctypes.data), *numbers, *self._rooms, c_int32(threads))
        return [ids_V[:found] for ids_V, found in zip(self._ids_BV, self._counts_B.tolist(), strict=True)]

    def _make_room(self, rows: int, vocab_size: int) -> None:
        self._ids_BV = np.empty((rows, vocab_size), np.int64)
        self._counts_B = np.empty(rows, np.int64)
        self._kept = np.empty((rows, whole_row(vocab_size)), np.float32)
        self._rooms = [c_void_p(room.ctypes.data) for room in (self._ids_BV, self._kept, self._counts_B)]
