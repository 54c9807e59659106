"""Sources -> units of work: fixed by the sizes of the files and by nothing else.

A unit is about `unit_bytes` of input: many small files, or a range of a large one. Ranges are
counted in bytes, and in parts (row groups, dataset shards) where a file is made of parts. Where a
byte range really begins and ends is decided on reading, by the text itself (`ranges.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mypt.records.plan import STDIN, SourceFile

_SMALLEST_BYTES = 2**22
_LARGEST_BYTES = 2**28
_UNITS_WANTED = 1024


@dataclass(frozen=True, slots=True)
class Span:
    """A range of one source: bytes, or parts where the source has parts."""

    source: int
    start: int
    end: int


Unit = tuple[Span, ...]


def unit_bytes_for(sources: Sequence[SourceFile]) -> int:
    """The size of a unit: a power of two, so that neither one file nor a million makes too many."""
    total = sum(source.size_bytes for source in sources)
    size = _SMALLEST_BYTES
    while size < _LARGEST_BYTES and total > size * _UNITS_WANTED:
        size *= 2
    return size


def cut_units(sources: Sequence[SourceFile], unit_bytes: int) -> list[Unit]:
    """Cut all sources into units, in their order."""
    units: list[Unit] = []
    packed: list[Span] = []
    room = unit_bytes
    for span, size_bytes in _spans(sources, unit_bytes):
        if packed and size_bytes > room:
            units.append(tuple(packed))
            packed.clear()
            room = unit_bytes
        packed.append(span)
        room -= size_bytes
    return [*units, tuple(packed)] if packed else units


def input_bytes(units: Sequence[Unit], sources: Sequence[SourceFile]) -> int:
    """Bytes of input that units read; 0 where it cannot be known."""
    return sum(_span_bytes(span, sources[span.source]) for unit in units for span in unit)


def _span_bytes(span: Span, source: SourceFile) -> int:
    return sum(source.part_bytes[span.start : span.end]) if source.part_bytes else span.end - span.start


def is_splittable(source: SourceFile) -> bool:
    """Whether a range of bytes of this source can be read alone."""
    return source.format in {"txt", "jsonl"} and not source.compression and source.size_bytes > 0


def _spans(sources: Sequence[SourceFile], unit_bytes: int) -> Iterator[tuple[Span, int]]:
    for number, source in enumerate(sources):
        if source.part_bytes:
            for part, size_bytes in enumerate(source.part_bytes):
                yield Span(number, part, part + 1), size_bytes or unit_bytes
        elif is_splittable(source):
            for start in range(0, source.size_bytes, unit_bytes):
                end = min(start + unit_bytes, source.size_bytes)
                yield Span(number, start, end), end - start
        else:
            # What cannot be cut is a unit of its own, unless it is small. What has no size may be large.
            yield Span(number, 0, source.size_bytes), unit_bytes if source.path == STDIN else source.size_bytes
