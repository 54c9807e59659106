"""What is told while a model writes."""

from dataclasses import dataclass

from mypt.events.base import Event


@dataclass(frozen=True, slots=True)
class SampleStarted(Event):
    """A sample begins; `prompt` is what it continues, as the user gave it, and `prompt_number` counts from 0."""

    event = "sample"
    prompt_number: int
    sample: int
    prompt: str


@dataclass(frozen=True, slots=True)
class Token(Event):
    """Newly safe text of one sample. `token_id` is None for text that was held back."""

    event = "token"
    prompt_number: int
    sample: int
    token_id: int | None
    text: str


@dataclass(frozen=True, slots=True)
class TokenScore:
    """How likely a token was: the natural logarithm of the model's own probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Generated(Event):
    """One whole sample. `tokens_per_s` counts the new tokens after the first, of this sample alone.

    Where they were asked for: `scores` are those of the new tokens, `likeliest` the highest at each of their places.
    `score` is what a beam is compared by.
    """

    event = "generated"
    prompt_number: int
    sample: int
    prompt: str
    text: str
    token_ids: tuple[int, ...]
    stopped_by: str
    first_token_s: float
    tokens_per_s: float
    scores: tuple[TokenScore, ...] | None = None
    likeliest: tuple[tuple[TokenScore, ...], ...] | None = None
    score: float | None = None
