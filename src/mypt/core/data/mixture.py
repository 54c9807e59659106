"""Which source each sample comes from: exact quotas per block, in an order chosen by the seed.

A block is a fixed number of positions. After k blocks every source has given its share of the k
blocks' samples, rounded down or up (largest remainders, as in Hamilton's apportionment), so no
rounding adds up. A block's quotas are the differences; inside the block they are shuffled.
Nothing is stored: block in, samples out.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.order import permute
from mypt.core.seeds import mix

# The permutation costs 32 ns an index in blocks of this size and many times that one by one.
_BLOCK_SAMPLES = 2048
_LONGEST_BLOCK_SAMPLES = 2**20

SMALLEST_SHARE = Fraction(1, _LONGEST_BLOCK_SAMPLES)
"""A source with less than this part of the samples would need blocks too long to compute at once."""


class Mixture:
    """Samples of several sources in fixed proportions."""

    def __init__(self, shares: Sequence[Fraction], seed: int) -> None:
        """Fix the proportions.

        Args:
            shares: each source's part of the samples, SMALLEST_SHARE or more; together 1.
            seed: of the order inside the blocks.
        """
        assert sum(shares) == 1, "the caller divides by the sum"
        assert min(shares) >= SMALLEST_SHARE, "the caller refuses smaller ones"
        self._shares = tuple(shares)
        self._seed = seed
        # At least one sample of every source in each block: then no total ever falls.
        blocks = ceil(1 / (min(shares) * _BLOCK_SAMPLES))
        self.block_samples = _BLOCK_SAMPLES * 2 ** (blocks - 1).bit_length()

    def block(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples of one block of positions.

        Returns:
            For each position its source, and its place among the samples of that source since
            position 0; each of shape (block_samples,).
        """
        before, after = self.totals(number), self.totals(number + 1)
        quotas = [new - old for old, new in zip(before, after, strict=True)]
        order = permute(np.arange(self.block_samples, dtype=np.uint64), self.block_samples, mix(self._seed, number, 6))
        sources = np.repeat(np.arange(len(quotas)), quotas)[order]
        places = np.empty(self.block_samples, dtype=np.int64)
        for source, (first, quota) in enumerate(zip(before, quotas, strict=True)):
            places[sources == source] = first + np.arange(quota)
        return sources, places

    def totals(self, blocks: int) -> list[int]:
        """Samples of each source in the first `blocks` blocks: each less than 1 off its exact share."""
        return apportion(blocks * self.block_samples, self._shares)


def apportion(count: int, shares: Sequence[Fraction]) -> list[int]:
    """Split a count by shares into whole numbers that add up: rounded down, then up by largest remainder."""
    exact = [count * share for share in shares]
    whole = [int(part) for part in exact]
    by_remainder = sorted(range(len(shares)), key=lambda source: (whole[source] - exact[source], source))
    for source in by_remainder[: count - sum(whole)]:
        whole[source] += 1
    return whole
