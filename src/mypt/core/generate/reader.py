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
from mypt.errors import DivergedError


class Reader(Protocol):
    """Extends the rows of one cache."""

    def read(self, row: int, ids: Sequence[int]) -> None:
        """Read the tokens that follow those of a row."""

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read one token in each of the first rows; logits of the next ones, shape (B, V).

        Raises:
            DivergedError: when they are no numbers.
        """


class ModelReader:
    """Reads by the model's own forward pass, on any device."""

    def __init__(self, model: GPT, cache: KeyValueCache, device: torch.device) -> None:
        self._model, self._cache, self._device = model, cache, device

    def read(self, row: int, ids: Sequence[int]) -> None:
        """Read the tokens that follow those of a row."""
        self._model.hidden(torch.tensor([list(ids)], device=self._device), self._cache.rows(row, 1))

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read one token in each of the first rows; logits of the next ones, shape (B, V).

        Raises:
            DivergedError: when they are no numbers.
        """
        ids_B1 = torch.tensor(ids, device=self._device)[:, None]
        hidden_B1C = self._model.hidden(ids_B1, self._cache.rows(0, len(ids)))
        return require_numbers(self._model.logits(hidden_B1C)[:, 0].float().cpu().numpy())


def require_numbers(logits_BV: NDArray[np.float32]) -> NDArray[np.float32]:
    """Let nothing be drawn from what is none.

    Raises:
        DivergedError: when one of them is no number, or more than any.
    """
    if not np.isfinite(logits_BV.max()):
        raise no_numbers()
    return logits_BV


def no_numbers() -> DivergedError:
    """What is said of it."""
    return DivergedError(
        "the model's scores are no numbers",
        hint="fp16 may be too narrow for it: --precision fp32. Else its weights are damaged.",
    )
