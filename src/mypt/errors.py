"""The error tree. Users get these; assert is for our own mistakes.

MyptError                 1   anything that went wrong and is not below
├── UnwritableError       1   standard output takes nothing any more
├── UsageError            2   a command line or a config that cannot be meant
├── DataError             3   text, dataset or tokenizer
├── CheckpointError       4   missing, broken or incompatible checkpoint
├── MemoryShortageError   5   does not fit
├── DivergedError         6   the loss is not a number any more
├── MissingExtraError     7   an optional package is not installed
└── LockedError          75   another process works on this model or dataset

Every error is one message: what happened and where (`message`), and what to do (`hint`).
"""

from collections.abc import Mapping
from typing import ClassVar


class MyptError(Exception):
    """A failure we understand: shown as one message, never as a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UnwritableError(MyptError):
    """Standard output takes nothing any more: an answer would be lost."""


class UsageError(MyptError):
    """The command line or a config asks for something impossible."""

    exit_code = 2


class DataError(MyptError):
    """Text, a dataset or a tokenizer is missing, broken or unfit."""

    exit_code = 3


class CheckpointError(MyptError):
    """A checkpoint is missing, broken or does not fit the request."""

    exit_code = 4


class MemoryShortageError(MyptError):
    """The work does not fit into the memory of the device."""

    exit_code = 5


class DivergedError(MyptError):
    """The loss became NaN or infinite."""

    exit_code = 6


class MissingExtraError(MyptError):
    """An optional package is needed; the hint holds the exact install line."""

    exit_code = 7


class LockedError(MyptError):
    """Another process works on this model or dataset."""

    exit_code = 75


def retold(message: Mapping[str, str]) -> Exception:
    """The error that a process of ours told another one: its kind as `error`, its `message` and its `hint`."""
    kind = globals().get(message["error"])
    if isinstance(kind, type) and issubclass(kind, MyptError):
        return kind(message["message"], hint=message["hint"])
    return RuntimeError(f"{message['error']}: {message['message']}")
