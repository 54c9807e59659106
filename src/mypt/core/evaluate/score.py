"""What an evaluation gives. No torch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """Mean loss in nats per token, and in bits per byte of the text it predicts.

    Bits per byte do not depend on the tokenizer, so models with different ones compare.
    """

    loss: float
    bits_per_byte: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over tokens that were predicted."""

    nats: float = 0.0
    hits: int = 0
    """Tokens that were the likeliest by the model."""
    tokens: int = 0
    text_bytes: int = 0
    """UTF-8 bytes that the tokens stand for."""

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.nats + other.nats,
            self.hits + other.hits,
            self.tokens + other.tokens,
            self.text_bytes + other.text_bytes,
        )

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / max(self.tokens, 1)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of the text."""
        return self.nats / math.log(2) / max(self.text_bytes, 1)

    @property
    def accuracy(self) -> float:
        """The part of the tokens that were the likeliest by the model."""
        return self.hits / max(self.tokens, 1)

    @property
    def perplexity(self) -> float | None:
        """Of the loss the exponential; None where that is larger than any number."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return None
