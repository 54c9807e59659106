"""The key-value cache: what attention remembers of earlier positions while generating.

Each row is one text, and may be of its own length. A model reads neighbouring rows at a time: several positions of
rows that are equally long, or the next position of each.

Letters: B batch, H heads of keys and values, T positions, D head width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mypt.records.model import ModelConfig


class KeyValueCache:
    """Keys and values of all layers, with room for so many positions in each row."""

    def __init__(
        self, config: ModelConfig, rows: int, positions: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        shape = (config.n_layer, 2, rows, config.kv_heads, positions, config.head_width)
        # Not filled: a system gives memory where it is written, and what was not written is never read on a CPU.
        make = torch.empty if device.type == "cpu" else torch.zeros
        self.memory = make(shape, device=device, dtype=dtype)
        self.layers = [tuple(layer.unbind()) for layer in self.memory.unbind()]
        """Keys and values of each layer: views, since to make one anew for every token takes its time."""
        self.positions = positions
        """Room of each row."""
        self.lengths = [0] * rows
        """Filled positions of each row."""

    def rows(self, first: int, count: int) -> "CacheRows":
        """Some rows, as a model reads and extends them."""
        return CacheRows(self, first, count)

    def forget(self, row: int) -> None:
        """Empty a row."""
        self.lengths[row] = 0

    def copy(self, source: int, target: int, positions: int) -> None:
        """Make a row the beginning of another."""
        self.memory[:, :, target, :, :positions] = self.memory[:, :, source, :, :positions]
        self.lengths[target] = positions

    def reorder(self, sources: Sequence[int]) -> None:
        """Make row i what row sources[i] was."""
        used, rows = max(self.lengths), len(sources)
        filled = self.memory[:, :, :, :, :used]
        filled[:, :, :rows] = filled[:, :, list(sources)]
        self.lengths[:rows] = [self.lengths[source] for source in sources]


class CacheRows:
    """Neighbouring rows of a cache; what is written is written there."""

    def __init__(self, cache: KeyValueCache, first: int, count: int) -> None:
        self._cache = cache
        self._first, self._count = first, count
        self.advance(0)

    def advance(self, positions: int) -> None:
        """Count positions as filled, once all layers stored theirs."""
        rows = slice(self._first, self._first + self._count)
        self.lengths = [length + positions for length in self._cache.lengths[rows]]
        """Filled positions of each row; empty where a tensor alone knows."""
        self._cache.lengths[rows] = self.lengths
        self.longest = max(self.lengths)
        is_even = min(self.lengths) == self.longest
        self.ends_B = None if is_even else torch.tensor(self.lengths, device=self._cache.memory.device)
        """The same as a tensor, where rows are not equally long; else None."""

    def next_positions(self, count: int) -> Tensor:
        """Positions of the next tokens: of shape (T,) where they are the same in all rows, else (B, T)."""
        count_T = torch.arange(count, device=self._cache.memory.device)
        return count_T + (self.longest if self.ends_B is None else self.ends_B[:, None])

    def extend(self, layer: int, keys_BHTD: Tensor, values_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; give back all so far, up to the end of the longest row."""
        count = keys_BHTD.shape[2]
        keys, values = (whole.narrow(0, self._first, self._count) for whole in self._cache.layers[layer])
        if self.ends_B is None:
            keys.narrow(2, self.longest, count).copy_(keys_BHTD)
            values.narrow(2, self.longest, count).copy_(values_BHTD)
        else:
            assert count == 1, "several positions of rows that are not equally long"
            each_B = torch.arange(self._count, device=keys.device)
            keys[each_B, :, self.ends_B] = keys_BHTD[:, :, 0]
            values[each_B, :, self.ends_B] = values_BHTD[:, :, 0]
        return keys.narrow(2, 0, self.longest + count), values.narrow(2, 0, self.longest + count)


class PlacedRows(CacheRows):
    """The next position of the first rows, for work that is recorded: a tensor says where each row ends.

    Attention is given all positions there are, and looks at none after a row's end.
    """

    def __init__(self, cache: KeyValueCache, ends_B: Tensor) -> None:
        """Take the rows as they are whenever the work is done.

        Args:
            cache: whose lengths are not looked at, nor changed.
            ends_B: filled positions of each row, all of them fewer than there are.
        """
        self._cache = cache
        self._first, self._count = 0, len(ends_B)
        self.ends_B = ends_B
        self.lengths = []
        self.longest = cache.positions - 1

    def advance(self, positions: int) -> None:
        """Leave the rows as they are: whoever recorded the work counts."""
