"""What reads tokens into a cache.

Letters: B rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT


class Reader(Protocol):
    """Extends the rows of one cache."""

    def read(self, row: int, ids: Sequence[int]) -> None:
        """Read the tokens that follow those of a row."""

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read one token in each of the first rows; logits of the next ones, shape (B, V)."""


class ModelReader:
    """Reads by the model's own forward pass, on any device."""

    def __init__(self, model: GPT, cache: KeyValueCache, device: torch.device) -> None:
        self._model, self._cache, self._device = model, cache, device

    def read(self, row: int, ids: Sequence[int]) -> None:
        """Read the tokens that follow those of a row."""
        self._model.hidden(torch.tensor([list(ids)], device=self._device), self._cache.rows(row, 1))

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read one token in each of the first rows; logits of the next ones, shape (B, V)."""
        ids_B1 = torch.tensor(ids, device=self._device)[:, None]
        hidden_B1C = self._model.hidden(ids_B1, self._cache.rows(0, len(ids)))
        return self._model.logits(hidden_B1C)[:, 0].float().cpu().numpy()
