"""Beam search: the likeliest texts, as far as a search that keeps the best few beginnings finds them.

Letters: B beams, V vocabulary.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mypt.core.device import Device
from mypt.core.generate.decoder import Decoder
from mypt.core.generate.penalties import Penalties
from mypt.core.generate.prompt import Prompt, longest_text
from mypt.core.generate.sample import log_softmax, token_score
from mypt.core.generate.text import TextStream
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import Tokenizer
from mypt.events import Event, Generated, SampleStarted, Token
from mypt.records.sampling import SamplingConfig


@dataclass(frozen=True, slots=True)
class _Beam:
    """The beginning of a text, or a whole one."""

    new_ids: tuple[int, ...]
    logprob: float
    """The logarithm of its probability, penalties included."""
    logprobs: tuple[float, ...]
    """The model's own, of each token; also of an end-of-text, which is not among the new ids."""
    stopped_by: str = ""


def search(
    model: GPT, tokenizer: Tokenizer, prompts: Sequence[Prompt], config: SamplingConfig, device: Device
) -> Iterator[Event]:
    """Give the best num_samples texts of each prompt, best first.

    The score of a text is the logarithm of its probability over its length in tokens to the power of length_penalty
    (after Wu et al., 2016); an end-of-text counts as one.
    """
    decoder = Decoder(model, device, config.texts_at_once(len(prompts)), longest_text(prompts, config))
    for prompt in prompts:
        searching = _Search(decoder, tokenizer, prompt, config)
        for number, beam in enumerate(searching.best()):
            text, _ = searching.text(beam)
            yield SampleStarted(prompt.number, number, prompt.text)
            yield Token(prompt.number, number, None, text)
            pairs = zip(beam.new_ids, beam.logprobs, strict=False)  # an end-of-text is not among the ids
            scores = tuple(token_score(tokenizer, *pair) for pair in pairs)
            yield Generated(
                prompt_number=prompt.number,
                sample=number,
                prompt=prompt.text,
                text=text,
                token_ids=beam.new_ids,
                stopped_by=beam.stopped_by,
                first_token_s=searching.first_token_s,
                tokens_per_s=max(len(beam.new_ids) - 1, 0) / searching.rest_s if searching.rest_s else 0.0,
                scores=scores if config.logprobs is not None else None,
                score=searching.score(beam),
            )


class _Search:
    """The search for one prompt."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, prompt: Prompt, config: SamplingConfig) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._config = config
        self._decoder = decoder
        self._beams = [_Beam((), 0.0, ())]
        self._ended: list[_Beam] = []
        self.first_token_s = 0.0
        self.rest_s = 0.0
        """Of all tokens after the first."""

    def best(self) -> list[_Beam]:
        """Search until no beginning can become better than what has ended; best first."""
        began_s = time.monotonic()
        self._decoder.begin(0, self._prompt.ids)
        for length in range(1, self._config.max_new_tokens + 1):
            self._extend(is_last=length == self._config.max_new_tokens)
            self.first_token_s = self.first_token_s or time.monotonic() - began_s
            if not self._beams or self._is_decided():
                break
        self.rest_s = time.monotonic() - began_s - self.first_token_s
        return self._ended[: self._config.num_samples]

    def text(self, beam: _Beam) -> tuple[str, bool]:
        """The text of a beam up to its first stop text, and whether there is one."""
        stream = TextStream(self._config.stops)
        text = stream.feed(b"".join(map(self._tokenizer.decode_bytes, beam.new_ids))) + stream.finish()
        return text, stream.stopped_by is not None

    def _extend(self, *, is_last: bool) -> None:
        """Replace the beams by the best of what one more token makes of them."""
        logits_BV = self._decoder.step([[*self._prompt.ids, *beam.new_ids] for beam in self._beams])
        own_BV = log_softmax(logits_BV[:, : self._tokenizer.vocab_size])
        allowed_BV = self._penalized(own_BV)
        for row in np.flatnonzero(np.isneginf(allowed_BV).all(axis=1)).tolist():
            self._ended.append(replace(self._beams[row], stopped_by="no token left"))
        going: list[tuple[int, _Beam]] = []
        for rank, (logprob, row, token_id) in enumerate(self._likeliest(allowed_BV)):
            if rank >= self._config.beams and (is_last or len(going) == self._config.beams):
                break
            longer = self._longer(self._beams[row], token_id, logprob, float(own_BV[row, token_id]), is_last=is_last)
            if not longer.stopped_by:
                going.append((row, longer))
            elif rank < self._config.beams:  # the others only fill the places of those that end
                self._ended.append(longer)
        self._ended = sorted(self._ended, key=self.score, reverse=True)[: self._config.beams]
        self._beams = [beam for _, beam in going]
        if going:
            self._decoder.reorder([row for row, _ in going])

    def _likeliest(self, logs_BV: NDArray[np.float64]) -> Iterator[tuple[float, int, int]]:
        """The extensions, likeliest first: logarithm, beam and token of each."""
        sums_BV = logs_BV + np.array([[beam.logprob] for beam in self._beams])
        sums, first = sums_BV.ravel(), 2 * self._config.beams
        # Twice as many as there are beams nearly always do: a beam has one end-of-text, but may have many stop texts.
        best = np.argpartition(-sums, first)[:first] if first < len(sums) else np.arange(len(sums))
        yield from self._places(sums, np.sort(best), sums_BV.shape[1])
        yield from self._places(sums, np.setdiff1d(np.arange(len(sums)), best), sums_BV.shape[1])

    @staticmethod
    def _places(
        sums: NDArray[np.float64], places: NDArray[np.int64], vocab_size: int
    ) -> Iterator[tuple[float, int, int]]:
        for place in places[np.argsort(-sums[places], kind="stable")].tolist():
            if sums[place] == -math.inf:
                return
            yield float(sums[place]), *divmod(place, vocab_size)

    def _longer(self, beam: _Beam, token_id: int, logprob: float, own: float, *, is_last: bool) -> _Beam:
        """A beam and one more token, which may end it."""
        logprobs = (*beam.logprobs, own)
        if token_id == self._tokenizer.end_of_text_id:
            return _Beam(beam.new_ids, logprob, logprobs, "end of text")
        longer = _Beam((*beam.new_ids, token_id), logprob, logprobs, "length" if is_last else "")
        if self._config.stops and self.text(longer)[1]:
            return replace(longer, stopped_by="stop text")
        return longer

    def _penalized(self, own_BV: NDArray[np.float64]) -> NDArray[np.float64]:
        if not Penalties.are_set(self._config):
            return own_BV
        logs_BV = own_BV.copy()
        for beam, logs_V in zip(self._beams, logs_BV, strict=True):
            penalties = Penalties(self._config, self._prompt.ids)
            for token_id in beam.new_ids:
                penalties.note(token_id)
            penalties.apply(logs_V)
        return logs_BV

    def score(self, beam: _Beam) -> float:
        """What beams are compared by once they have ended."""
        return beam.logprob / max(1, len(beam.logprobs)) ** self._config.length_penalty

    def _is_decided(self) -> bool:
        """Whether the best beginning, even with tokens that cost nothing, stays behind all that has ended."""
        is_any_token_a_gain = min(self._config.frequency_penalty, self._config.presence_penalty) < 0
        if len(self._ended) < self._config.beams or is_any_token_a_gain:
            return False
        is_longer_better = self._config.length_penalty > 0
        length = self._config.max_new_tokens if is_longer_better else len(self._beams[0].logprobs)
        return self._beams[0].logprob / length**self._config.length_penalty <= self.score(self._ended[-1])
