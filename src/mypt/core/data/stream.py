"""TokenStream: many shards seen as one long row of tokens. In memory or read from files.

Files are read and not mapped: mapped pages count as this process's memory, and a dataset may have
more shards than a process may map.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from operator import itemgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.files import OpenFiles
from mypt.core.tokens.base import Ids
from mypt.errors import DataError


class Shard(Protocol):
    """A row of tokens of known length."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        ...

    def read(self, offset: int, count: int) -> Ids:
        """Tokens offset .. offset + count - 1, shape (count,).

        Raises:
            DataError: when they cannot be read.
        """
        ...

    def place(self, offset: int) -> tuple[str, int]:
        """The file that a token is of, and how many of this split's tokens lie before it there."""
        ...

    def require_documents(self) -> None:
        """Make sure that the ends of the documents are known.

        Raises:
            DataError: when they are not, or are damaged.
        """
        ...

    def ends_between(self, low: int, high: int) -> NDArray[np.int64]:
        """Where documents end (exclusive, from the shard's first token), in low <= end <= high."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryShard:
    """Tokens held in memory."""

    ids: Ids
    document_ends: NDArray[np.int64] | None = None
    """Where documents end: exclusive, from the shard's first token, in order."""
    name: str = "the text"
    files: tuple[tuple[int, str], ...] = ()
    """Where each file begins, in order; the first one may have begun before the shard."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.ids.size

    def place(self, offset: int) -> tuple[str, int]:
        """The file that a token was read from, where it is known."""
        number = bisect_right(self.files, offset, key=itemgetter(0)) - 1
        if number < 0:
            return self.name, offset
        first, name = self.files[number]
        return name, offset - first

    def read(self, offset: int, count: int) -> Ids:
        """A view of the tokens."""
        return self.ids[offset : offset + count]

    def require_documents(self) -> None:
        """Make sure that the ends of the documents are known.

        Raises:
            DataError: when they are not.
        """
        if self.document_ends is None:
            raise no_documents(self.name)

    def ends_between(self, low: int, high: int) -> NDArray[np.int64]:
        """Where documents end, in low <= end <= high."""
        assert self.document_ends is not None, "the caller requires documents first"
        first, last = np.searchsorted(self.document_ends, [low, high + 1])
        return self.document_ends[first:last]


@dataclass(frozen=True, slots=True)
class Source:
    """A stretch of a stream that is drawn from in its own measure."""

    name: str
    first: int
    """Its first token in the stream."""
    tokens: int
    share: Fraction
    """Its part of all samples; the shares of a stream add up to 1."""


class TokenStream:
    """The tokens of one split, end to end."""

    def __init__(
        self,
        shards: Sequence[Shard],
        sources: Sequence[Source] = (),
        *,
        vocab_size: int | None = None,
        files: OpenFiles | None = None,
    ) -> None:
        """Put shards in a row.

        Args:
            shards: in order.
            sources: what a mixture is made of, in the order of the shards; all of one piece if not given.
            vocab_size: ids from here on are refused when they are read; None: they are sure to be sound.
            files: what the shards read from; None: they are in memory.
        """
        self.shards = [shard for shard in shards if shard.tokens]
        self._starts = [0, *accumulate(shard.tokens for shard in self.shards)]
        self._vocab_size = vocab_size
        self._files = files
        self.sources = tuple(sources) or (Source("", 0, len(self), Fraction(1)),)

    def __len__(self) -> int:
        return self._starts[-1]

    def gather(self, starts_B: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Read one window of `length` tokens at each start; windows may cross shards.

        Returns:
            Ids of shape (B, length).

        Raises:
            DataError: naming the shard, when it cannot be read or holds an id beyond the vocabulary.
        """
        windows = np.empty((len(starts_B), length), dtype=np.int64)
        for window, start in zip(windows, starts_B.tolist(), strict=True):
            filled = 0
            for shard, offset, count in self._pieces(start, length):
                window[filled : filled + count] = shard.read(offset, count)
                filled += count
        if self._vocab_size is not None and windows.size and windows.max() >= self._vocab_size:
            raise self._beyond(windows, starts_B, self._vocab_size)
        return windows

    def documents(self, starts_B: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Number the documents of each window from 0 on.

        Returns:
            For every token of every window its document's number, shape (B, length).
        """
        documents = np.empty((len(starts_B), length), dtype=np.int64)
        for row, start in enumerate(starts_B.tolist()):
            begins, passed = np.zeros(length, dtype=np.int64), 0
            for shard, offset, count in self._pieces(start, length):
                # Where one document ends the next begins, be it in the next shard.
                places = shard.ends_between(offset, offset + count) - offset + passed
                begins[places[places < length]] = 1
                passed += count
            documents[row] = np.cumsum(begins) - begins[0]
        return documents

    def followed_by(self, other: "TokenStream") -> "TokenStream":
        """Both streams in a row, as one source."""
        return TokenStream([*self.shards, *other.shards], vocab_size=self._vocab_size, files=self._files)

    def require_documents(self) -> None:
        """Make sure that every shard tells where its documents end.

        Raises:
            DataError: naming the first one that does not.
        """
        for shard in self.shards:
            shard.require_documents()

    def place(self, start: int) -> tuple[str, int]:
        """The file that a token lies in, and how many of this split's tokens lie before it there."""
        shard, offset, _ = self._pieces(start, 1)[0]
        return shard.place(offset)

    def changed(self) -> list[str]:
        """Name the files that are no longer what they were when they were opened; each change once."""
        return [] if self._files is None else self._files.changed()

    def _pieces(self, start: int, length: int) -> list[tuple[Shard, int, int]]:
        """The slices (shard, offset, count) that hold `length` tokens from `start` on."""
        pieces: list[tuple[Shard, int, int]] = []
        end = start + length
        home = bisect_right(self._starts, start) - 1
        while start < end:
            offset = start - self._starts[home]
            count = min(end - start, self.shards[home].tokens - offset)
            pieces.append((self.shards[home], offset, count))
            start += count
            home += 1
        return pieces

    def _beyond(self, windows: NDArray[np.int64], starts_B: NDArray[np.int64], vocab_size: int) -> DataError:
        row, column = (int(place[0]) for place in np.nonzero(windows >= vocab_size))
        shard, offset, _ = self._pieces(int(starts_B[row]) + column, 1)[0]
        return beyond_vocabulary(shard.name, int(windows[row, column]), offset, vocab_size)


def beyond_vocabulary(shard: str, token_id: int, offset: int, vocab_size: int) -> DataError:
    """The error for an id that its tokenizer does not have."""
    return DataError(
        f"{shard}: id {token_id:,} at token {offset:,} is beyond the tokenizer's {vocab_size:,} ids",
        hint="The shard is damaged, or another tokenizer made it.",
    )


def no_documents(name: str) -> DataError:
    """The error for a shard that does not tell where its documents end."""
    return DataError(
        f"{name}: where its documents end is not known, so --document-mask cannot keep them apart",
        hint="Prepare the text with mypt prepare-dataset, or train without --document-mask.",
    )
