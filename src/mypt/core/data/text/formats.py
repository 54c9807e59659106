"""A span of a source -> fragments of documents. One function per format.

A fragment is (text, whether a document ends with it). Documents of any size flow through in
pieces where the format allows it: only a record (a JSON line, a table's cell) is held whole.
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mypt.core.data.text.reading import cut_pieces, cut_text
from mypt.core.data.text.spans import Tally, read_span
from mypt.core.data.text.tables import column_names, read_column
from mypt.core.data.text.units import Span
from mypt.errors import DataError
from mypt.records.plan import SourceFile
from mypt.records.text import TextConfig

# A record is held whole, several times over while it is read: about a gigabyte for this one.
_LONGEST_LINE_CHARS = 2**28
_SLICE_CHARS = 2**20

Fragment = tuple[str, bool]


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
    chunks = read_span(source, span, terminator, config, tally)
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
    for number, line in enumerate(_lines(source, span, config, tally), 1):
        if not line or line.isspace():
            continue
        try:
            text = json.loads(line)[field]
        except (ValueError, RecursionError) as problem:
            raise DataError(f"{_place(source, span, number)}: not valid JSON ({_reason(problem)})") from None
        except (KeyError, TypeError):
            raise _no_field(_place(source, span, number), field, json.loads(line)) from None
        yield from _whole(text, lambda number=number: _place(source, span, number), config)


def _read_csv(source: SourceFile, span: Span, config: TextConfig, tally: Tally) -> Iterator[Fragment]:
    csv.field_size_limit(2**31 - 1)  # the most that Windows takes
    rows = csv.reader(_lines(source, span, config, tally, keep_ends=True), strict=True)
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


def _records(source: SourceFile, span: Span, config: TextConfig, tally: Tally) -> Iterator[str]:
    """The text of a file of records, without the byte order mark that some programs begin it with."""
    chunks = read_span(source, span, b"\n", config, tally)
    if span.start == 0:
        yield next(chunks, "").removeprefix("\ufeff")
    yield from chunks


def _lines(
    source: SourceFile, span: Span, config: TextConfig, tally: Tally, *, keep_ends: bool = False
) -> Iterator[str]:
    """Cut the text of a file of records at its line feeds."""
    held: list[str] = []
    held_chars = number = 0
    for chunk in _records(source, span, config, tally):
        *whole, last = chunk.split("\n")
        for line in whole:
            held.append(f"{line}\n" if keep_ends else line)
            number += 1
            # Let go before the line is read: it may be long.
            line = "".join(held)  # noqa: PLW2901 - the whole of it
            held.clear()
            held_chars = 0
            yield line
        held.append(last)
        held_chars += len(last)
        if held_chars > _LONGEST_LINE_CHARS:
            raise DataError(
                f"{_place(source, span, number + 1)}: longer than {_LONGEST_LINE_CHARS:,} characters",
                hint="A record is held in memory whole: cut it into several, or give plain text as a .txt file.",
            )
    if any(held):
        yield "".join(held)


def _whole(text: Any, place: Callable[[], str], config: TextConfig) -> Iterator[Fragment]:  # noqa: ANN401 - whatever a record holds
    """One document out of a record."""
    if not isinstance(text, str):
        raise DataError(
            f"{place()}: the field '{config.text_field}' holds {type(text).__name__}, not text",
            hint="Name another field: --text-field NAME",
        )
    if not _is_text(text):
        if config.encoding_errors == "strict":
            raise DataError(
                f"{place()}: half a surrogate pair, which is no character",
                hint="Go on with U+FFFD in its place: --encoding-errors replace",
            )
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    *pieces, last = cut_text(text)
    for piece in pieces:
        yield piece, False
    yield last, True


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8; in slices, for a second copy of a long text would be large."""
    try:
        for start in range(0, len(text), _SLICE_CHARS):
            text[start : start + _SLICE_CHARS].encode()
    except UnicodeEncodeError:
        return False
    return True


def _place(source: SourceFile, span: Span, number: int) -> str:
    """Where a record is: its line where the file is read from its start, a position elsewhere."""
    if span.start == 0:
        return f"{source.path}: line {number:,}"
    return f"{source.path}: line {number:,} after byte {span.start:,}"


def _reason(problem: ValueError | RecursionError) -> str:
    """Python's word for bad JSON; what it says to programmers about its limits, in other words."""
    if isinstance(problem, json.JSONDecodeError):
        return str(problem)
    return "nested too deeply" if isinstance(problem, RecursionError) else "a number of thousands of digits"


def _no_field(place: str, field: str, record: Any) -> DataError:  # noqa: ANN401 - whatever a line holds
    if not isinstance(record, dict):
        return DataError(f"{place}: not a JSON object with the field '{field}'")
    names = ", ".join(list(record)[:8]) or "none"
    return DataError(f"{place}: no field '{field}' (there: {names})", hint="Name it: --text-field NAME")
