"""The program's three streams, made safe at the door: one that is closed or full ends no work unseen.

Data on stdout is the answer: where it cannot be written, that is an error. Prose on stderr tells of
the work: where it cannot be written, the work goes on.
"""

import os
import re
import sys
from contextlib import suppress
from io import BufferedWriter, RawIOBase, TextIOWrapper
from typing import IO, TypeVar

from mypt.errors import UnwritableError

# All that moves the cursor, colours, rings or turns the direction of writing; and halves of characters.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_STREAMS, _DELETE = 3, 0x7F


def visible(text: str) -> str:
    r"""Show control characters (\x1b, \u009b) instead of sending them to a terminal; line feeds and tabs stay.

    What JSON is stays JSON: there those below 32 are escaped already.
    """
    return _ACTING.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return found[0].encode("unicode_escape").decode() if code < _DELETE else f"\\u{code:04x}"


class AnswerStream(TextIOWrapper):
    """Stdout: a failure to write is told as one message. A reader that left is left to the caller."""

    def write(self, text: str, /) -> int:
        """Write text.

        Raises:
            UnwritableError: when the system refuses.
        """
        try:
            written = super().write(text)
        except OSError as problem:
            raise _told(problem) from None
        if self.write_through:
            self.flush()
        return written

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            UnwritableError: when the system refuses.
        """
        try:
            super().flush()
        except OSError as problem:
            raise _told(problem) from None


class ProseStream(TextIOWrapper):
    """Stderr: what cannot be written is lost, and nothing else is."""

    def write(self, text: str, /) -> int:
        """Write text, if that is possible."""
        with suppress(OSError):
            super().write(text)
        if self.write_through:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, if that is possible."""
        with suppress(OSError):
            super().flush()


def open_streams() -> None:
    """Put safe streams in the places of stdin, stdout and stderr."""
    for number in range(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            # Closed by the caller: a file we open would get its number, and prose would be written into it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - a number, for good
    if isinstance(sys.stdin, TextIOWrapper):
        with suppress(ValueError):  # closed, or read from before
            sys.stdin.reconfigure(errors="surrogateescape")  # no byte that comes in ends a command
    sys.stdout = _wrapped(sys.stdout, 1, AnswerStream)
    sys.stderr = _wrapped(sys.stderr, 2, ProseStream)


def silence_stdout() -> None:
    """Send what is still buffered to nowhere: its reader is gone, or its disk is full."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_Safe = TypeVar("_Safe", AnswerStream, ProseStream)


def _wrapped(stream: IO[str] | None, number: int, kind: type[_Safe]) -> IO[str]:
    """The same stream as another kind; one that is not Python's own is left as it is."""
    if stream is None:
        stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a number, for good
    if not isinstance(stream, TextIOWrapper):
        return stream
    encoding, lines, through = stream.encoding, stream.line_buffering, stream.write_through
    binary = stream.detach()
    if isinstance(binary, RawIOBase):  # under PYTHONUNBUFFERED: it may write a part, and leave it at that
        binary = BufferedWriter(binary)
    # Generated text holds any character; a terminal that cannot show one gets a '?'.
    return kind(binary, encoding=encoding, errors="replace", line_buffering=lines, write_through=through)


def _told(problem: OSError) -> OSError | UnwritableError:
    """Our words for a failure. What is still buffered goes nowhere: Python would try it again at its end."""
    silence_stdout()
    if isinstance(problem, BrokenPipeError):
        return problem
    return UnwritableError(f"standard output: cannot write ({problem.strerror or problem})")
