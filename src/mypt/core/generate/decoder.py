"""Growing texts -> logits of their next tokens: a model and its cache, several texts at a time.

Letters: B rows, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.device import Device
from mypt.core.generate.compiled import open_reader
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT


class Decoder:
    """Reads each token of each row once while it fits the window.

    Past the window no position was ever learned: then the newest half of the window is read anew, so that the cost of
    a token stays what it was (mypt-v1 keeps the newest block_size tokens instead, as the original did).
    """

    def __init__(self, model: GPT, device: Device, rows: int, longest: int) -> None:
        """Make room.

        Args:
            model: in evaluation mode.
            device: where it is.
            rows: texts at a time, at most.
            longest: tokens of a text, at most.
        """
        self._window = model.config.block_size
        self._kept = self._window if model.config.traits.slides_by_one else max(1, self._window // 2)
        positions = max(1, min(self._window, longest))
        with torch.inference_mode():
            self._cache = KeyValueCache(model.config, rows, positions, device.torch, model.dtype)
        self._reader = open_reader(model, self._cache, device)
        self._starts = [0] * rows
        """Index in each text of the first token in the cache."""
        self._prompts: list[tuple[int, ...] | None] = [None] * rows
        """What each row's text began with; also of one that has ended, until another takes its place."""

    @torch.inference_mode()
    def begin(self, row: int, prompt: Sequence[int]) -> None:
        """Read a new text into a row; a prompt that another row began with, and still holds, is not read again."""
        prompt, first = tuple(prompt), max(0, len(prompt) - self._window)
        for other, known in enumerate(self._prompts):
            if known == prompt and self._starts[other] == first:
                self._cache.copy(other, row, len(prompt) - 1 - first)
                break
        else:
            self._cache.forget(row)
            self._read(row, prompt, first)
        self._starts[row], self._prompts[row] = first, prompt

    @torch.inference_mode()
    def step(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits of the token after each of the first rows' texts, shape (B, V). A text only ever grows, by one.

        Raises:
            DivergedError: when they are no numbers.
        """
        for row, text in enumerate(texts):
            if len(text) - self._starts[row] > self._window:
                self._starts[row] = len(text) - self._kept
                self._cache.forget(row)
                self._read(row, text, self._starts[row])
        return self._reader.step([text[-1] for text in texts])

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Give a row's text to another row."""
        self._cache.copy(source, target, self._cache.lengths[source])
        self._starts[target], self._prompts[target] = self._starts[source], self._prompts[source]

    @torch.inference_mode()
    def reorder(self, sources: Sequence[int]) -> None:
        """Make the text of row i that of row sources[i]."""
        self._cache.reorder(sources)
        self._starts[: len(sources)] = [self._starts[source] for source in sources]
        self._prompts[: len(sources)] = [self._prompts[source] for source in sources]

    def _read(self, row: int, text: Sequence[int], first: int) -> None:
        """Read a text from token `first` on, but for its newest token, which every step reads of all rows."""
        if unread := text[first:-1]:
            self._reader.read(row, unread)
