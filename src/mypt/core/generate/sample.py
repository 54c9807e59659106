"""One text in the making: its tokens so far, when it ends, and what is told of it."""

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mypt.core.generate.penalties import Penalties
from mypt.core.generate.prompt import Prompt
from mypt.core.generate.text import TextStream
from mypt.core.seeds import mix
from mypt.core.tokens.base import Tokenizer
from mypt.events import Event, Generated, SampleStarted, Token, TokenScore
from mypt.records.sampling import SamplingConfig

_CHANCE_BITS = 53
"""What fits a float."""


@dataclass(eq=False)
class Sample:
    """A continuation of one prompt."""

    prompt: Prompt
    number: int
    """Among the samples of its prompt, from 0."""
    tokenizer: Tokenizer
    config: SamplingConfig
    events: deque[Event] = field(default_factory=deque)
    """What is not told yet."""
    stopped_by: str = ""
    """Why it ended: empty while it goes on."""

    def __post_init__(self) -> None:
        self.text_ids = list(self.prompt.ids)
        """The prompt and what was added: it only ever grows."""
        self._penalties = Penalties(self.config, self.prompt.ids) if Penalties.are_set(self.config) else None
        self._stream = TextStream(self.config.stops)
        self._pieces: list[str] = []
        self._scores: list[TokenScore] = []
        self._likeliest: list[tuple[TokenScore, ...]] = []
        self._origin = mix(self.config.seed, self.prompt.mark, self.number)
        self._began_s = time.monotonic()
        self._first_token_s = 0.0
        self.events.append(SampleStarted(self.prompt.number, self.number, self.prompt.text))

    @property
    def new_ids(self) -> list[int]:
        """The tokens that were added."""
        return self.text_ids[len(self.prompt.ids) :]

    @property
    def chance(self) -> float:
        """A number of [0, 1) for the next token: of nothing but seed, prompt, sample and the place in it."""
        place = len(self.text_ids) - len(self.prompt.ids)
        return (mix(self._origin, place) >> (63 - _CHANCE_BITS)) / 2**_CHANCE_BITS

    def penalize(self, logits_V: NDArray[np.float32]) -> None:
        """Change the scores of the next token by what the text holds. A text that may go on with nothing ends."""
        if self._penalties is not None:
            self._penalties.apply(logits_V)
            if np.isneginf(logits_V).all():
                self._end("no token left")

    def take(self, token_id: int, logits_V: NDArray[np.float32]) -> None:
        """Add the chosen token; the logits are the model's own."""
        if token_id == self.tokenizer.end_of_text_id:
            self._end("end of text")
            return
        self._first_token_s = self._first_token_s or time.monotonic() - self._began_s
        if self.config.logprobs is not None:
            self._score(token_id, logits_V, self.config.logprobs)
        if self._penalties is not None:
            self._penalties.note(token_id)
        self.text_ids.append(token_id)
        piece = self._stream.feed(self.tokenizer.decode_bytes(token_id))
        self._pieces.append(piece)
        self.events.append(Token(self.prompt.number, self.number, token_id, piece))
        if self._stream.stopped_by is not None:
            self._end("stop text")
        elif len(self.text_ids) - len(self.prompt.ids) >= self.config.max_new_tokens:
            self._end("length")

    def _end(self, reason: str) -> None:
        rest = self._stream.finish()
        # What was held back may turn out to hold a stop text.
        self.stopped_by = "stop text" if self._stream.stopped_by is not None else reason
        if rest:
            self.events.append(Token(self.prompt.number, self.number, None, rest))
        new_ids = self.new_ids
        after_first_s = time.monotonic() - self._began_s - self._first_token_s
        self.events.append(
            Generated(
                prompt_number=self.prompt.number,
                sample=self.number,
                prompt=self.prompt.text,
                text="".join(self._pieces) + rest,
                token_ids=tuple(new_ids),
                stopped_by=self.stopped_by,
                first_token_s=self._first_token_s,
                tokens_per_s=max(len(new_ids) - 1, 0) / after_first_s if after_first_s > 0 else 0.0,
                scores=tuple(self._scores) if self.config.logprobs is not None else None,
                likeliest=tuple(self._likeliest) if self.config.logprobs else None,
            )
        )

    def _score(self, token_id: int, logits_V: NDArray[np.float32], count: int) -> None:
        """Note the model's own log-probabilities: before temperature, filters and penalties."""
        logs_V = log_softmax(logits_V)
        likeliest = np.argsort(-logs_V, kind="stable")[:count].tolist() if count else []
        found = [token_score(self.tokenizer, each, float(logs_V[each])) for each in (token_id, *likeliest)]
        self._scores.append(found[0])
        self._likeliest.append(tuple(found[1:]))


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural logarithms of the probabilities, along the last axis, in double precision."""
    scores = logits - logits.max(axis=-1, keepdims=True).astype(np.float64)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def token_score(tokenizer: Tokenizer, token_id: int, logprob: float) -> TokenScore:
    """A token's score, with its text; a token may be a part of a character, and end-of-text has none."""
    text = "" if token_id == tokenizer.end_of_text_id else tokenizer.decode_bytes(token_id).decode(errors="replace")
    return TokenScore(token_id, text, logprob)
