"""What all events are."""

import json
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import ClassVar, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `event` is its name in JSON."""

    event: ClassVar[str] = "event"

    def as_json(self) -> str:
        """Give the event as one line of JSON, its name first."""
        return json.dumps({"event": self.event} | asdict(self), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something the user should know, though the work goes on."""

    event = "warning"
    message: str


@dataclass(frozen=True, slots=True)
class Noted(Event):
    """Something worth telling on the way."""

    event = "note"
    message: str


def result_of(work: Generator[Event, None, T]) -> T:
    """Do the work without telling of it, and give what it ends with."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
