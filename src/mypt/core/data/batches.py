"""Token stream -> batches. A pure function of (seed, position): resuming is starting at a number.

Window k of an epoch starts at phase + k x T; the phase (0 <= phase < T where the text allows it)
is drawn anew each epoch, so that the borders of the windows move. Every window comes once per epoch.

Letters: B batch, T block_size.
"""

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.order import permute
from mypt.core.data.stream import TokenStream
from mypt.core.seeds import mix

InputsTargets = tuple[NDArray[np.int64], NDArray[np.int64]]

# The permutation costs 32 ns an index in blocks of this size and many times that one by one.
_POSITIONS_AT_ONCE = 4096


class Batches:
    """Training windows in a seeded order, addressed by the number of windows already seen."""

    def __init__(self, stream: TokenStream, block_size: int, seed: int) -> None:
        assert len(stream) > block_size, "the caller refuses texts shorter than one block"
        self._stream = stream
        self._block_size = block_size
        self._seed = seed
        # One window less than fits, so that any phase below T stays inside the text.
        self.windows_per_epoch = max(1, len(stream) // block_size - 1)
        self._phases = min(block_size, len(stream) - self.windows_per_epoch * block_size)
        self._block = (-1, np.empty(0, dtype=np.int64))

    def at(self, position: int, count: int) -> InputsTargets:
        """Give windows position .. position + count - 1 of the endless order.

        Returns:
            Inputs and targets (inputs shifted by one), each of shape (count, T).
        """
        starts_B = np.concatenate(
            [self._starts(block)[low:high] for block, low, high in _blocks(position, position + count)]
        )
        return _shifted(self._stream, starts_B, self._block_size)

    def _starts(self, block: int) -> NDArray[np.int64]:
        """Window starts of one block of positions; the newest block is kept."""
        if self._block[0] != block:
            positions = np.arange(block * _POSITIONS_AT_ONCE, (block + 1) * _POSITIONS_AT_ONCE, dtype=np.int64)
            epochs = positions // self.windows_per_epoch
            starts = np.empty_like(positions)
            for epoch in np.unique(epochs).tolist():
                inside = epochs == epoch
                starts[inside] = self._epoch_starts(epoch, positions[inside] - epoch * self.windows_per_epoch)
            self._block = (block, starts)
        return self._block[1]

    def _epoch_starts(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        phase = mix(self._seed, epoch, 1) % self._phases
        windows = permute(positions.astype(np.uint64), self.windows_per_epoch, mix(self._seed, epoch, 2))
        return phase + windows.astype(np.int64) * self._block_size


class FixedWindows:
    """The validation windows: chosen once by the seed, the same at every evaluation."""

    def __init__(self, stream: TokenStream, block_size: int, count: int, seed: int) -> None:
        assert len(stream) > block_size, "the caller refuses splits shorter than one block"
        self._stream = stream
        self._block_size = block_size
        available = (len(stream) - 1) // block_size
        chosen = permute(np.arange(min(count, available), dtype=np.uint64), available, mix(seed, 3))
        # In text order: neighbours share pages.
        self._starts = np.sort(chosen.astype(np.int64)) * block_size

    def __len__(self) -> int:
        return len(self._starts)

    def batch(self, first: int, count: int) -> InputsTargets:
        """Give windows first .. first + count - 1 (fewer at the end), each of shape (B, T)."""
        return _shifted(self._stream, self._starts[first : first + count], self._block_size)


def _blocks(first: int, end: int) -> list[tuple[int, int, int]]:
    """Split positions first..end into (block, low, high) slices."""
    pieces = []
    while first < end:
        block, low = divmod(first, _POSITIONS_AT_ONCE)
        high = min(_POSITIONS_AT_ONCE, low + end - first)
        pieces.append((block, low, high))
        first += high - low
    return pieces


def _shifted(stream: TokenStream, starts_B: NDArray[np.int64], block_size: int) -> InputsTargets:
    windows = stream.gather(starts_B, block_size + 1)
    return windows[:, :-1], windows[:, 1:]
