"""A span of a source -> fragments of documents. One function per format.

A fragment is (text, whether a document ends with it). Documents of any size flow through in
pieces where the format allows it: only a record (a JSON line, a table's cell) is held whole.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mypt.core.data.text.ranges import resolve_range
from mypt.core.data.text.reading import cut_pieces, cut_text, open_bytes, read_text, unreadable
from mypt.core.data.text.tables import column_names, read_column
from mypt.core.data.text.units import Span, is_splittable
from mypt.errors import DataError
from mypt.records.plan import STDIN, SourceFile
from mypt.records.text import TextConfig

Fragment = tuple[str, bool]


@dataclass(slots=True)
class Tally:
    """What a unit has read, and what was left out on the way."""

    read_bytes: int = 0
    text_bytes: int = 0
    empty_documents: int = 0
    dropped_lines: int = 0


def read_fragments(source: SourceFile, span: Span, config: TextConfig, tally: Tally) -> Iterator[Fragment]:
    """Read one span.

    Raises:
        DataError: for what cannot be read as text, naming file and place.
        MissingExtraError: for formats of packages that are not installed.
    """
    return _READERS[source.format](source, span, config, tally)


def holds_whole_files(source: SourceFile, config: TextConfig) -> bool:
    """Whether the source is one document, which several spans may share."""
    return source.format == "txt" and config.document_separator is None


def _read_txt(source: SourceFile, span: Span, config: TextConfig, tally: Tally) -> Iterator[Fragment]:
    separator = config.document_separator
    filters_lines = config.min_line_chars or config.max_line_chars is not None
    terminator = separator.encode() if separator else b"\n" if filters_lines else None
    chunks = _chunks(source, span, terminator, config, tally)
    if separator:
        yield from _separated(chunks, separator)
        return
    for piece in cut_pieces(chunks):
        yield piece, False
    if span.end == source.size_bytes:
        yield "", True


def _separated(chunks: Iterator[str], separator: str) -> Iterator[Fragment]:
    """Cut a text at its separators: each ends a document, and so does the end of the text."""

    def one_document() -> Iterator[str]:
        nonlocal pending, position, at_end
        while True:
            found = pending.find(separator, position)
            if found >= 0:
                yield pending[position:found]
                position = found + len(separator)
                return
            # The end may be the beginning of a separator.
            kept = max(position, len(pending) - len(separator) + 1)
            yield pending[position:kept]
            chunk = next(chunks, None)
            if chunk is None:
                at_end = True
                yield pending[kept:]
                return
            pending, position = pending[kept:] + chunk, 0

    pending, position, at_end = "", 0, False
    while not at_end:
        is_empty = True
        for piece in cut_pieces(one_document()):
            is_empty = False
            yield piece, False
        if not (at_end and is_empty):
            yield "", True


def _read_jsonl(source: SourceFile, span: Span, config: TextConfig, tally: Tally) -> Iterator[Fragment]:
    field = config.text_field
    for number, line in enumerate(_lines(_records(source, span, config, tally)), 1):
        if not line or line.isspace():
            continue
        try:
            text = json.loads(line)[field]
        except (ValueError, RecursionError) as problem:
            raise DataError(f"{_place(source, span, number)}: not valid JSON ({problem})") from None
        except (KeyError, TypeError):
            raise _no_field(_place(source, span, number), field, json.loads(line)) from None
        yield from _whole(text, lambda number=number: _place(source, span, number), config)


def _read_csv(source: SourceFile, span: Span, config: TextConfig, tally: Tally) -> Iterator[Fragment]:
    csv.field_size_limit(2**31 - 1)  # the most that Windows takes
    rows = csv.reader(_lines(_records(source, span, config, tally), keep_ends=True), strict=True)
    try:
        head: list[str] = next(rows, [])
        if config.text_field not in head:
            raise _no_field(f"{source.path}: line 1", config.text_field, dict.fromkeys(head))
        column = head.index(config.text_field)
        for row in rows:
            if len(row) > column:
                yield from _whole(row[column], lambda: f"{source.path}: line {rows.line_num}", config)
            elif row:
                raise DataError(
                    f"{source.path}: line {rows.line_num}: {len(row)} columns, the first line has {len(head)}"
                )
    except csv.Error as problem:
        raise DataError(f"{source.path}: line {rows.line_num}: not valid CSV ({problem})") from None


def _read_parquet(source: SourceFile, span: Span, config: TextConfig, tally: Tally) -> Iterator[Fragment]:
    field = config.text_field
    names = column_names(Path(source.path))
    if field not in names:
        raise _no_field(source.path, field, dict.fromkeys(names))
    for group in range(span.start, span.end):
        before = tally.read_bytes
        group_bytes = source.size_bytes * source.part_bytes[group] // sum(source.part_bytes)
        for text, share in read_column(Path(source.path), group, field):
            tally.read_bytes = before + int(group_bytes * share)
            yield from _whole(text, lambda group=group: f"{source.path}: row group {group}", config)


def _read_hf(source: SourceFile, span: Span, config: TextConfig, tally: Tally) -> Iterator[Fragment]:
    from mypt.core.data.text.hub import read_hub_records

    for shard in range(span.start, span.end):
        for record in read_hub_records(source.path, shard, len(source.part_bytes)):
            if config.text_field not in record:
                raise _no_field(source.path, config.text_field, record)
            text = record[config.text_field]
            yield from _whole(text, lambda: source.path, config)
            tally.read_bytes += len(text)


_READERS: dict[str, Callable[[SourceFile, Span, TextConfig, Tally], Iterator[Fragment]]] = {
    "txt": _read_txt,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "parquet": _read_parquet,
    "hf": _read_hf,
}


def _chunks(
    source: SourceFile, span: Span, terminator: bytes | None, config: TextConfig, tally: Tally
) -> Iterator[str]:
    """The text of a span, chunk by chunk, counting the bytes read from disk."""
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


def _records(source: SourceFile, span: Span, config: TextConfig, tally: Tally) -> Iterator[str]:
    """The text of a file of records, without the byte order mark that some programs begin it with."""
    chunks = _chunks(source, span, b"\n", config, tally)
    if span.start == 0:
        yield next(chunks, "").removeprefix("\ufeff")
    yield from chunks


def _lines(chunks: Iterator[str], *, keep_ends: bool = False) -> Iterator[str]:
    """Cut a text at its line feeds."""
    held: list[str] = []
    for chunk in chunks:
        *whole, last = chunk.split("\n")
        for line in whole:
            held.append(line)
            yield "".join(held) + ("\n" if keep_ends else "")
            held.clear()
        held.append(last)
    if any(held):
        yield "".join(held)


def _whole(text: Any, place: Callable[[], str], config: TextConfig) -> Iterator[Fragment]:  # noqa: ANN401 - whatever a record holds
    """One document out of a record."""
    if not isinstance(text, str):
        raise DataError(
            f"{place()}: the field '{config.text_field}' holds {type(text).__name__}, not text",
            hint="Name another field: --text-field NAME",
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        if config.encoding_errors == "strict":
            raise DataError(
                f"{place()}: half a surrogate pair, which is no character",
                hint="Go on with U+FFFD in its place: --encoding-errors replace",
            ) from None
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    *pieces, last = cut_text(text)
    for piece in pieces:
        yield piece, False
    yield last, True


def _place(source: SourceFile, span: Span, number: int) -> str:
    """Where a record is: its line where the file is read from its start, a position elsewhere."""
    if span.start == 0:
        return f"{source.path}: line {number:,}"
    return f"{source.path}: line {number:,} after byte {span.start:,}"


def _no_field(place: str, field: str, record: Any) -> DataError:  # noqa: ANN401 - whatever a line holds
    if not isinstance(record, dict):
        return DataError(f"{place}: not a JSON object with the field '{field}'")
    names = ", ".join(list(record)[:8]) or "none"
    return DataError(f"{place}: no field '{field}' (there: {names})", hint="Name it: --text-field NAME")
