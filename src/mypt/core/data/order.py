"""The order of the samples: a keyed permutation, computed and never stored.

A Feistel network (Luby and Rackoff, 1988) over the next power of four, with cycle walking
(Black and Rogaway, 2002) down to any size. Position in, sample out; the state is the position.

Window k of an epoch starts at phase + k x T; the phase (0 <= phase < T where the text allows it)
is drawn anew each epoch, so that the borders of the windows move. Every window comes once per epoch.
"""

import numpy as np
from numpy.typing import NDArray

from mypt.core.seeds import mix

_ROUNDS = 6


class WindowOrder:
    """The windows of T = `block_size` tokens of one text, epoch after epoch: position in, first token out."""

    def __init__(self, tokens: int, block_size: int, seed: int) -> None:
        assert tokens > block_size, "the caller refuses texts shorter than one block"
        self._block_size = block_size
        self._seed = seed
        # One window less than fits, so that any phase below T stays inside the text.
        self.windows_per_epoch = max(1, tokens // block_size - 1)
        self._phases = min(block_size, tokens - self.windows_per_epoch * block_size)

    def starts(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the windows at these positions of the endless order start, same shape."""
        epochs = positions // self.windows_per_epoch
        starts = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            inside = epochs == epoch
            starts[inside] = self._epoch_starts(epoch, positions[inside] - epoch * self.windows_per_epoch)
        return starts

    def _epoch_starts(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        phase = mix(self._seed, epoch, 1) % self._phases
        windows = permute(positions.astype(np.uint64), self.windows_per_epoch, mix(self._seed, epoch, 2))
        return phase + windows.astype(np.int64) * self._block_size


def permute(positions: NDArray[np.uint64], size: int, key: int) -> NDArray[np.uint64]:
    """Map positions 0..size-1 one to one onto 0..size-1, in an order chosen by `key`.

    Args:
        positions: any shape; each below `size`.
        size: number of samples.
        key: equal keys give equal orders.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = [np.uint64(mix(key, round_number)) for round_number in range(_ROUNDS)]
    samples = _feistel(positions.astype(np.uint64), half_bits, keys)
    outside = samples >= size
    while outside.any():
        samples[outside] = _feistel(samples[outside], half_bits, keys)
        outside = samples >= size
    return samples


def _feistel(values: NDArray[np.uint64], half_bits: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    bits = np.uint64(half_bits)
    mask = np.uint64(2**half_bits - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_scramble(right ^ key) & mask)
    return left << bits | right


def _scramble(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 finalizer on arrays; overflow wraps, as it should."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58_476D_1CE4_E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D0_49BB_1331_11EB)
    return values ^ values >> np.uint64(31)
