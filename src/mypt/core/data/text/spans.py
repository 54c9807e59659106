"""A span of a source -> its text, chunk by chunk, and how much was read for it."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mypt.core.data.text.ranges import resolve_range
from mypt.core.data.text.reading import open_bytes, read_text, unreadable
from mypt.core.data.text.units import Span, is_splittable
from mypt.errors import DataError
from mypt.records.plan import STDIN, SourceFile
from mypt.records.text import TextConfig


@dataclass(slots=True)
class Tally:
    """What a unit has read, and what was left out on the way."""

    read_bytes: int = 0
    text_bytes: int = 0
    empty_documents: int = 0
    dropped_lines: int = 0


def read_span(
    source: SourceFile, span: Span, terminator: bytes | None, config: TextConfig, tally: Tally
) -> Iterator[str]:
    """Read the text of a span, chunk by chunk, counting the bytes read from disk.

    Args:
        source: the file.
        span: the range, as planned.
        terminator: what ends a record; None lets the span begin and end between words.
        config: what is done with bytes that are no UTF-8.
        tally: where the bytes are counted.

    Raises:
        DataError: for what cannot be read as text, naming file and place.
    """
    if source.path == STDIN:
        yield from _standard_input(config, tally)
        return
    path = Path(source.path)
    start, end = 0, None
    if is_splittable(source):
        with unreadable(path):
            start, end = resolve_range(path, span.start, span.end, source.size_bytes, terminator)
    with open_bytes(path, source.compression) as file:
        if start:
            file.seek(start)
        before = tally.read_bytes
        for chunk in read_text(file, path, start, end, config.encoding_errors):
            tally.read_bytes = before + _done_bytes(file, source, start)
            yield chunk
    tally.read_bytes = before + span.end - span.start
    _require_unchanged(path, source)


def _require_unchanged(path: Path, source: SourceFile) -> None:
    """Refuse a file that is not the one the work was planned for.

    Raises:
        DataError: naming it.
    """
    with unreadable(path):
        status = path.stat()
    if (status.st_size, status.st_mtime_ns) != (source.size_bytes, source.modified_ns):
        raise DataError(f"{path}: changed while it was read", hint="Give the command again when it is at rest.")


def _standard_input(config: TextConfig, tally: Tally) -> Iterator[str]:
    name = Path("standard input")
    if sys.stdin is None:
        raise DataError(f"{name}: is closed")
    with unreadable(name):
        yield from read_text(_Counted(sys.stdin.buffer, tally), name, 0, None, config.encoding_errors)


def _done_bytes(file: BinaryIO, source: SourceFile, start: int) -> int:
    """Bytes read from disk, compressed ones where they are compressed."""
    if not source.compression:
        return file.tell() - start
    packed = getattr(file, "raw", file)
    inner = getattr(packed, "fileobj", None) or getattr(packed, "_fp", None)
    return inner.tell() if inner is not None else 0


class _Counted:
    """Standard input, which tells no position."""

    def __init__(self, file: BinaryIO, tally: Tally) -> None:
        self._file = file
        self._tally = tally

    def read(self, size: int, /) -> bytes:
        chunk = self._file.read(size)
        self._tally.read_bytes += len(chunk)
        return chunk
