"""How long a run is to be, where that is not said in steps."""

from typing import NamedTuple, Self

from mypt.errors import UsageError
from mypt.units import parse_count, parse_duration


class Length(NamedTuple):
    """One of three ways to say it; it becomes a number of steps before the first one."""

    tokens: float | None = None
    tokens_per_parameter: float | None = None
    duration_s: float | None = None

    @classmethod
    def until_tokens(cls, text: str) -> Self:
        """Read a number of tokens ('10M', '1e9'), or of tokens per parameter ('20x').

        Raises:
            UsageError: when it is neither, or nothing.
        """
        is_relative = text.strip().lower().endswith("x")
        try:
            count = parse_count(text.strip()[:-1] if is_relative else text)
        except ValueError:
            count = 0.0
        if not count:
            raise UsageError(
                f"--until-tokens {text[:40]}: should be tokens (10M, 1e9), or tokens per parameter of the model (20x)"
            )
        return cls(tokens_per_parameter=count) if is_relative else cls(tokens=count)

    @classmethod
    def lasting(cls, text: str) -> Self:
        """Read a duration: '45m', '1h30m'.

        Raises:
            UsageError: when it is none, or nothing.
        """
        try:
            duration_s = parse_duration(text)
        except ValueError:
            duration_s = 0.0
        if not duration_s:
            raise UsageError(f"--for {text[:40]}: should be a duration, for example 45m, 1h30m or 90s")
        return cls(duration_s=duration_s)
