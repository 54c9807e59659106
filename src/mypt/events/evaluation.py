"""What is told while models are scored."""

from dataclasses import dataclass

from mypt.events.base import Event


@dataclass(frozen=True, slots=True)
class Scoring(Event):
    """Progress of evaluating one model. `loss` is that of the tokens so far, nats per token."""

    event = "scoring"
    model_name: str
    done_tokens: int
    total_tokens: int
    loss: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Scored(Event):
    """How well one model predicts a text: all tokens but the first, each once.

    `text` names files or datasets; `tokens` and `text_bytes` are those of the whole split; `perplexity` is None where
    it is larger than any number; `tokens_per_s` counts what was predicted.
    """

    event = "scored"
    model_name: str
    path: str
    step: int
    parameters: int
    tokenizer: str
    text: tuple[str, ...]
    split: str
    block_size: int
    stride: int
    loss: float
    perplexity: float | None
    bits_per_byte: float
    accuracy: float
    tokens: int
    text_bytes: int
    predicted_tokens: int
    predicted_bytes: int
    device: str
    elapsed_s: float
    tokens_per_s: float
