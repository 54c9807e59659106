"""What finds the likeliest ids by likeliest.c.

Letters: B rows, V vocabulary, K ids.
"""

from ctypes import CDLL, c_int32, c_int64, c_void_p

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.generate.native.layout import whole_row


class NativeFinder:
    """The ids of the highest scores in each of several rows, as `sampler.likeliest` gives them, by one call."""

    def __init__(self, library: CDLL, rows: int, vocab_size: int) -> None:
        """Make room for so many rows of scores at most."""
        self._find = library.mypt_likeliest
        self._find.restype = None
        self._ids = np.empty(rows * vocab_size, np.int64)
        self._counts_B = np.empty(rows, np.int64)
        self._kept = np.empty(rows * whole_row(vocab_size), np.float32)
        self._rooms = [c_void_p(room.ctypes.data) for room in (self._ids, self._kept, self._counts_B)]
        self._threads = c_int32(torch.get_num_threads())

    def __call__(self, logits_BV: NDArray[np.float32], count: int) -> list[NDArray[np.int64]]:
        """So many ids of each row, in order, and those as high as the last of them; until the next call."""
        rows, vocab_size = logits_BV.shape
        assert logits_BV.strides[1] == logits_BV.itemsize
        numbers = map(c_int64, (logits_BV.strides[0] // logits_BV.itemsize, rows, vocab_size, count))
        self._find(c_void_p(logits_BV.ctypes.data), *numbers, *self._rooms, self._threads)
        ids_BV = self._ids[: rows * vocab_size].reshape(rows, vocab_size)
        return [ids_V[:found] for ids_V, found in zip(ids_BV, self._counts_B[:rows].tolist(), strict=True)]
