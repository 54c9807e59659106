"""TokenStream: many shards seen as one long row of tokens. In memory or mapped from files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mypt.core.tokens.base import Ids
from mypt.records.dataset import ShardInfo


class Shard(Protocol):
    """A row of tokens of known length."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        ...

    def array(self) -> Ids:
        """The tokens, shape (tokens,)."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryShard:
    """Tokens held in memory."""

    ids: Ids

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.ids.size

    def array(self) -> Ids:
        """The tokens themselves."""
        return self.ids


class FileShard:
    """Tokens mapped from a file at first use: opening costs nothing, reading is the page cache's work."""

    def __init__(self, path: Path, info: ShardInfo) -> None:
        self.path = path
        self.info = info
        self.tokens = info.tokens
        self._mapped: Ids | None = None

    def array(self) -> Ids:
        """Map the file (once) and give its tokens."""
        if self._mapped is None:
            dtype = np.dtype("<u2") if self.info.dtype == "uint16" else np.dtype("<u4")
            self._mapped = np.memmap(
                self.path, dtype=dtype, mode="r", offset=self.info.byte_offset, shape=(self.tokens,)
            )
        return self._mapped


class TokenStream:
    """The tokens of one split, end to end."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = [shard for shard in shards if shard.tokens]
        lengths = np.array([shard.tokens for shard in self.shards], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(lengths)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def gather(self, starts_B: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Read one window of `length` tokens at each start; windows may cross shards.

        Returns:
            Ids of shape (B, length).
        """
        windows = np.empty((len(starts_B), length), dtype=np.int64)
        homes_B = np.searchsorted(self._starts, starts_B, side="right") - 1
        for row, (start, home) in enumerate(zip(starts_B.tolist(), homes_B.tolist(), strict=True)):
            self._copy(windows[row], start, home)
        return windows

    def _copy(self, window: NDArray[np.int64], start: int, home: int) -> None:
        filled = 0
        while filled < len(window):
            shard = self.shards[home]
            offset = start + filled - int(self._starts[home])
            taken = min(len(window) - filled, shard.tokens - offset)
            window[filled : filled + taken] = shard.array()[offset : offset + taken]
            filled += taken
            home += 1
