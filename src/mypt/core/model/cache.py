"""The key-value cache: what attention remembers of earlier positions while generating.

Letters: B batch, H heads of keys and values, T positions, D head width.
"""

import torch
from torch import Tensor

from mypt.records.model import ModelConfig


class KeyValueCache:
    """Keys and values of all layers, room for one full window. `length` positions are filled."""

    def __init__(self, config: ModelConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.n_layer, 2, batch_size, config.kv_heads, config.block_size, config.head_width)
        self._memory = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def extend(self, layer: int, keys_BHTD: Tensor, values_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; give back all of them so far."""
        end = self.length + keys_BHTD.shape[2]
        keys, values = self._memory[layer, 0], self._memory[layer, 1]
        keys[:, :, self.length : end] = keys_BHTD
        values[:, :, self.length : end] = values_BHTD
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, positions: int) -> None:
        """Count positions as filled, once all layers stored theirs."""
        self.length += positions

    def clear(self) -> None:
        """Forget everything."""
        self.length = 0
