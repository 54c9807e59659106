"""What an evaluation gives. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """Mean loss in nats per token, and in bits per byte of the text it predicts.

    Bits per byte do not depend on the tokenizer, so models with different ones compare.
    """

    loss: float
    bits_per_byte: float
