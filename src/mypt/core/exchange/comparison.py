"""What models are compared on with other programs, and what comes of it.

Letters: T tokens.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.battery import BATTERY
from mypt.errors import MyptError
from mypt.records.tokenizer import CharSpec

MOST_TOKENS = 1024
"""Of one text that is compared."""


class Checked(NamedTuple):
    """That another program says what the model says."""

    program: str
    """Its name and version."""
    largest_difference: float
    """Of what was compared."""


def random_ids(length: int, vocab_size: int) -> Tensor:
    """Token ids by chance, for every position up to a thousand, shape (1, T)."""
    chance = torch.Generator().manual_seed(0)
    return torch.randint(vocab_size, (1, min(length, MOST_TOKENS)), generator=chance)


@contextmanager
def compared(where: Path) -> Generator[None]:
    """Say of which files another program says something else.

    Raises:
        MyptError: with the files before the reason, unless it is of another kind.
    """
    try:
        yield
    except MyptError as problem:
        if type(problem) is not MyptError:
            raise
        raise MyptError(f"{where}: {problem.message}", hint="Nothing was kept.") from None


def require_numbers(*computed: Tensor) -> None:
    """Refuse to compare what is no number.

    Raises:
        MyptError: when the model's own logits are not all finite.
    """
    if not all(each.isfinite().all() for each in computed):
        raise MyptError("the model itself computes what is no number: its weights are too large")


def odd_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts that the tokenizer knows every character of; and without special tokens' names, which others look for."""
    spec = tokenizer.spec
    if isinstance(spec, CharSpec):
        return [*spec.chars, "".join(spec.chars), *(text for text in BATTERY if set(text) <= set(spec.chars))]
    return [text for text in BATTERY if not any(name in text for name in spec.special_tokens)]
