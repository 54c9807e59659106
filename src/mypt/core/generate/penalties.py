"""What a text already holds makes its tokens less likely, or forbids them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mypt.records.sampling import SamplingConfig


class Penalties:
    """The penalties of one text in the making.

    In this order: repetition (Keskar et al., 2019), for tokens of the prompt and the new ones; frequency and presence,
    for the new ones; and no run of n tokens a second time (Paulus et al., 2018), the prompt's included.
    """

    def __init__(self, config: SamplingConfig, prompt_ids: Sequence[int]) -> None:
        self._config = config
        self._seen = dict.fromkeys(prompt_ids)
        self._new: Counter[int] = Counter()
        self._run: tuple[int, ...] = ()
        self._followers: dict[tuple[int, ...], set[int]] = {}
        if config.no_repeat_ngram is not None:
            for token_id in prompt_ids:
                self._extend_runs(token_id, config.no_repeat_ngram)

    @staticmethod
    def are_set(config: SamplingConfig) -> bool:
        """Whether there is anything to do."""
        names = ("repetition_penalty", "frequency_penalty", "presence_penalty", "no_repeat_ngram")
        return any(config.differs(name) for name in names)

    def note(self, token_id: int) -> None:
        """Count a new token."""
        self._seen[token_id] = None
        self._new[token_id] += 1
        if self._config.no_repeat_ngram is not None:
            self._extend_runs(token_id, self._config.no_repeat_ngram)

    def apply(self, logits_V: NDArray[np.floating]) -> None:
        """Change the scores of the next token in place."""
        config = self._config
        if config.repetition_penalty != 1:
            ids = list(self._seen)
            scores, factor = logits_V[ids], config.repetition_penalty
            logits_V[ids] = np.where(scores > 0, scores / factor, scores * factor)
        if self._new and (config.frequency_penalty or config.presence_penalty):
            counts = np.array(list(self._new.values()))
            logits_V[list(self._new)] -= config.frequency_penalty * counts + config.presence_penalty
        if banned := self._followers.get(self._run):
            logits_V[list(banned)] = -np.inf

    def _extend_runs(self, token_id: int, length: int) -> None:
        if len(self._run) == length - 1:
            self._followers.setdefault(self._run, set()).add(token_id)
        self._run = (*self._run, token_id)[-(length - 1) :] if length > 1 else ()
