"""What --dataset-dir says: PATH or PATH:WEIGHT, several of them for a mixture."""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from mypt.core.data.mixture import SMALLEST_SHARE
from mypt.errors import UsageError


class Choice(NamedTuple):
    """One dataset, with its weight where one was given."""

    path: Path
    weight: Fraction | None


def read_choices(texts: Sequence[str]) -> list[Choice]:
    """Take paths and weights apart.

    Raises:
        UsageError: for a weight that is no positive number, or where only some have one.
    """
    choices = [_choice(text) for text in texts]
    without = [str(choice.path) for choice in choices if choice.weight is None]
    if without and len(without) < len(choices):
        raise UsageError(
            f"--dataset-dir {without[0]}: has no weight, others have one",
            hint=f"Give every dataset a weight ({without[0]}:0.5), or none: each then counts by its tokens.",
        )
    return choices


def shares(choices: Sequence[Choice], tokens: Sequence[int]) -> list[Fraction]:
    """Each dataset's part of the samples: by the weights, or by tokens where there are none.

    Raises:
        UsageError: for a part that is too small to mix.
    """
    weights = [choice.weight or Fraction(count) for choice, count in zip(choices, tokens, strict=True)]
    total = sum(weights) or Fraction(1)
    parts = [weight / total for weight in weights]
    for choice, part in zip(choices, parts, strict=True):
        if part < SMALLEST_SHARE and len(choices) > 1:
            raise UsageError(
                f"--dataset-dir {choice.path}: its part of the samples is {float(part):.2g}, "
                f"the smallest possible is 1 in {SMALLEST_SHARE.denominator:,}",
                hint="Leave it out, or give every dataset a weight: PATH:WEIGHT.",
            )
    return parts


def _choice(text: str) -> Choice:
    path, colon, weight = text.rpartition(":")
    # A path may hold a colon itself: C:\books, or any name on Linux.
    if not colon or not path or Path(text).exists() or "/" in weight or "\\" in weight:
        return Choice(Path(text), None)
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise UsageError(
            f"--dataset-dir {text}: no such folder, and {weight or 'nothing'} is no weight (allowed: number > 0)",
            hint="For example: --dataset-dir data/wiki:0.7 --dataset-dir data/books:0.3",
        )
    return Choice(Path(path), Fraction(weight))
