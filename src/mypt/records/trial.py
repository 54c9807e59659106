"""A trial: two ways to do the same work, timed on one machine. What it found decides a default."""

from typing import Literal

from pydantic import Field

from mypt.records.base import Record


class Trial(Record, frozen=True):
    """One way against the usual one, and all that the outcome depends on."""

    format_version: Literal[1] = 1
    question: str = Field(description="What was tried, e.g. bf16.")
    facts: dict[str, str] = Field(description="Machine, versions and sizes: with other ones the trial is done again.")
    usual_s: float = Field(gt=0, description="Seconds of the work as it is done otherwise.")
    tried_s: float = Field(gt=0, description="Seconds of the same work as it was tried.")

    @property
    def gain(self) -> float:
        """How many times as fast the tried way is."""
        return self.usual_s / self.tried_s
