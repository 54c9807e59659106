"""Windows that slide over all of a stream: every token but the first is predicted once.

    stride = T     |--------|--------|-----       side by side: a window's first token has one token of context
    stride < T     |--------|
                      .....|---|                 each window scores only what no earlier one scored (after the dots),
                         .....|---|              so that each token has at least T - stride tokens of context

Letters: B batch, T block_size, or all that there is to predict where that is less.
"""

import numpy as np

from mypt.core.data.batches import NO_TARGET, Batch
from mypt.core.data.stream import TokenStream


class SlidingWindows:
    """Windows that start `stride` tokens after each other, until all tokens are predicted."""

    def __init__(self, stream: TokenStream, block_size: int, stride: int) -> None:
        """Lay windows over a stream.

        Args:
            stream: at least two tokens.
            block_size: tokens that the model sees at most.
            stride: from 1 to block_size.
        """
        assert len(stream) > 1, "the caller refuses shorter splits"
        assert 1 <= stride <= block_size, "the caller refuses other strides"
        self._stream = stream
        self._length = min(block_size, self.predicted)
        self._stride = stride
        self._seen_before = block_size - stride

    @property
    def predicted(self) -> int:
        """Tokens that are predicted: all but the first."""
        return len(self._stream) - 1

    def __len__(self) -> int:
        return 1 - (self._length - self.predicted) // self._stride

    def batch(self, first: int, count: int) -> Batch:
        """Give windows first .. first + count - 1 (fewer at the end). The last one is filled up with id 0."""
        starts_B = np.arange(first, min(first + count, len(self)), dtype=np.int64) * self._stride
        windows = np.zeros((len(starts_B), self._length + 1), dtype=np.int64)
        is_whole = starts_B + self._length <= self.predicted
        windows[is_whole] = self._stream.gather(starts_B[is_whole], self._length + 1)
        if not is_whole.all():
            rest = len(self._stream) - int(starts_B[-1])
            windows[-1:, :rest] = self._stream.gather(starts_B[-1:], rest)
        places_T = np.arange(self._length)
        is_there_BT = starts_B[:, None] + places_T < self.predicted
        is_new_BT = (starts_B[:, None] == 0) | (places_T >= self._seen_before)
        targets_BT = np.where(is_there_BT & is_new_BT, windows[:, 1:], NO_TARGET)
        return Batch(windows[:, :-1], targets_BT)

    def passed_over(self, first: int) -> int:
        """How many first positions of all windows from `first` on have no target: an earlier window scored them."""
        return self._seen_before if first else 0
