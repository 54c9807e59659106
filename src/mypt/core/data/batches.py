"""Token stream -> batches. A pure function of (seed, position): resuming is starting at a number.

Positions count the samples of the whole run, whoever takes them: any slices of them, taken by any
number of processes in pieces of any size, put together give the same batches.

Letters: B batch, T block_size.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.mixture import Mixture, apportion
from mypt.core.data.order import WindowOrder, permute
from mypt.core.data.stream import TokenStream
from mypt.core.seeds import mix

NO_TARGET = -100
"""Stands where nothing is to be predicted; torch's cross-entropy passes over it."""


class Batch(NamedTuple):
    """Windows of tokens, each of shape (B, T)."""

    inputs_BT: NDArray[np.int64]
    targets_BT: NDArray[np.int64]
    """The inputs shifted by one; NO_TARGET where that would be the next document's first token."""
    documents_BT: NDArray[np.int64] | None = None
    """The document of each input, numbered in its window; None where documents are not kept apart."""


class Place(NamedTuple):
    """Where a window lies, and what is in it."""

    name: str
    """The file: of text, or a shard."""
    offset: int
    """Tokens before it in that file; where a file is on both sides of the split, those of its own side."""
    ids: NDArray[np.int64]
    """Its inputs, shape (T,)."""


class Batches:
    """Training windows in a seeded order, addressed by the number of windows already seen."""

    def __init__(self, stream: TokenStream, block_size: int, seed: int, *, documents: bool = False) -> None:
        """Order the windows of a stream.

        Args:
            stream: each of its sources longer than block_size.
            block_size: T.
            seed: equal seeds give equal orders.
            documents: whether documents are kept apart.
        """
        self._stream = stream
        self._block_size = block_size
        self._documents = documents
        # A text that is not mixed keeps the plain seed: its order is older than mixtures.
        seeds = [seed] if len(stream.sources) == 1 else [mix(seed, n, 5) for n in range(len(stream.sources))]
        self._orders = [WindowOrder(s.tokens, block_size, own) for s, own in zip(stream.sources, seeds, strict=True)]
        self._mixture = Mixture([source.share for source in stream.sources], seed)
        self._newest = (-1, np.empty(0, dtype=np.int64))

    @property
    def windows_per_epoch(self) -> int:
        """Windows of one pass over all sources."""
        return sum(order.windows_per_epoch for order in self._orders)

    def coverage(self, samples: int) -> float:
        """The part of the tokens that the first `samples` windows read; a second reading adds nothing."""
        counts = apportion(samples, [source.share for source in self._stream.sources])
        sizes = [source.tokens for source in self._stream.sources]
        read = sum(min(count * self._block_size, size) for count, size in zip(counts, sizes, strict=True))
        return read / len(self._stream)

    def at(self, position: int, count: int) -> Batch:
        """Give windows position .. position + count - 1 of the endless order."""
        return _batch(self._stream, self._window_starts(position, count), self._block_size, documents=self._documents)

    def places(self, position: int, count: int) -> list[Place]:
        """Tell which text windows position .. position + count - 1 are; any thread may ask."""
        starts_B = self._window_starts(position, count)
        windows = self._stream.gather(starts_B, self._block_size)
        return [Place(*self._stream.place(start), ids) for start, ids in zip(starts_B.tolist(), windows, strict=True)]

    def _window_starts(self, position: int, count: int) -> NDArray[np.int64]:
        size = self._mixture.block_samples
        pieces: list[NDArray[np.int64]] = []
        end = position + count
        while position < end:
            block, low = divmod(position, size)
            high = min(size, low + end - position)
            pieces.append(self._starts(block)[low:high])
            position += high - low
        return np.concatenate(pieces)

    def _starts(self, block: int) -> NDArray[np.int64]:
        """Window starts of one block of positions; the newest block is kept."""
        newest = self._newest
        if newest[0] != block:
            sources, places = self._mixture.block(block)
            starts = np.empty_like(places)
            for number, (source, order) in enumerate(zip(self._stream.sources, self._orders, strict=True)):
                own = sources == number
                starts[own] = source.first + order.starts(places[own])
            # Put in place as one: another thread may read it now.
            newest = self._newest = (block, starts)
        return newest[1]


class FixedWindows:
    """The validation windows: chosen once by the seed, the same at every evaluation."""

    def __init__(self, stream: TokenStream, block_size: int, count: int, seed: int, *, documents: bool = False) -> None:
        """Choose `count` windows by the shares of the sources, or as many as these have."""
        self._stream = stream
        self._block_size = block_size
        self._documents = documents
        chosen: list[NDArray[np.int64]] = []
        for source, wanted in zip(stream.sources, apportion(count, [s.share for s in stream.sources]), strict=True):
            assert source.tokens > block_size, "the caller refuses splits shorter than one block"
            available = (source.tokens - 1) // block_size
            windows = permute(np.arange(min(wanted, available), dtype=np.uint64), available, mix(seed, 3))
            # In text order: neighbours share pages.
            chosen.append(source.first + np.sort(windows.astype(np.int64)) * block_size)
        self._starts = np.concatenate(chosen)

    def __len__(self) -> int:
        return len(self._starts)

    def batch(self, first: int, count: int) -> Batch:
        """Give windows first .. first + count - 1 (fewer at the end)."""
        starts_B = self._starts[first : first + count]
        return _batch(self._stream, starts_B, self._block_size, documents=self._documents)

    def passed_over(self, first: int) -> int:  # noqa: ARG002 - other windows' depends on it
        """How many first positions of all windows from `first` on have no target: each may have one."""
        return 0


def _batch(stream: TokenStream, starts_B: NDArray[np.int64], block_size: int, *, documents: bool) -> Batch:
    windows = stream.gather(starts_B, block_size + 1)
    inputs_BT, targets_BT = windows[:, :-1], windows[:, 1:]
    if not documents:
        return Batch(inputs_BT, targets_BT)
    numbers = stream.documents(starts_B, block_size + 1)
    inside_BT = numbers[:, :-1] == numbers[:, 1:]
    return Batch(inputs_BT, np.where(inside_BT, targets_BT, NO_TARGET), numbers[:, :-1])
