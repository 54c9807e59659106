"""Where a byte range of a text file really begins: at a place that both neighbours find alone.

A file without a separator is cut where every byte-pair pre-tokenizer we take ends a word: after a
letter or digit, before a space or newline. So encoding the ranges one by one equals encoding the
whole. Files of records are cut after a record.
"""

import re
from pathlib import Path
from typing import BinaryIO

# A place to cut is looked for this far; a text with longer words is cut inside one.
_WINDOW_BYTES = 2**18
_READ_BYTES = 2**18
_WORD_END = re.compile(r"[^\W_](?=[ \n])")
_UTF8_LONGEST = 4


def resolve_range(path: Path, start: int, end: int, size_bytes: int, terminator: bytes | None) -> tuple[int, int]:
    """Move both ends of a planned range forward to where the text can be cut.

    Args:
        path: a text file.
        start: first byte as planned.
        end: end as planned.
        size_bytes: size of the file as planned.
        terminator: what ends a record; None cuts between words.
    """
    with path.open("rb") as file:
        if terminator is None:
            return _word_border(file, start, size_bytes), _word_border(file, end, size_bytes)
        first = _record_border(file, start, size_bytes, terminator, within=end)
        if first >= end < size_bytes:
            return first, first  # the record that began before is longer than this range
        return first, _record_border(file, end, size_bytes, terminator, within=size_bytes)


def _word_border(file: BinaryIO, offset: int, size_bytes: int) -> int:
    if not 0 < offset < size_bytes:
        return min(offset, size_bytes)
    file.seek(offset)
    window = file.read(_WINDOW_BYTES + 2 * _UTF8_LONGEST)
    skipped = _continuation_bytes(window)
    text = _valid_beginning(window[skipped:])
    found = _WORD_END.search(text)
    ahead = len(text[: found.end()].encode()) if found else 0
    return min(offset + skipped + ahead, size_bytes)


def _continuation_bytes(window: bytes) -> int:
    """Bytes at the start that belong to a character begun before."""
    for skipped, byte in enumerate(window[:_UTF8_LONGEST]):
        if byte & 0xC0 != 0x80:  # noqa: PLR2004 - continuation bytes are 0b10xxxxxx
            return skipped
    # The file ends with that character; or it is no UTF-8 here, which reading will tell.
    return len(window) if len(window) < _UTF8_LONGEST else 0


def _valid_beginning(window: bytes) -> str:
    try:
        return window.decode("utf-8")
    except UnicodeDecodeError as problem:
        return window[: problem.start].decode("utf-8")


def _record_border(file: BinaryIO, offset: int, size_bytes: int, terminator: bytes, *, within: int) -> int:
    """The end of the first terminator that begins at `offset` - its length or later.

    Looks no further than `within` and gives `within` where nothing was found. A terminator that
    overlaps one before it (the last two of three line feeds) is passed over: reading from the
    start of the file may see it otherwise.
    """
    if not 0 < offset < size_bytes:
        return min(offset, size_bytes)
    length = len(terminator)
    position = max(0, offset - 2 * length + 1)
    first = max(0, offset - length) - position
    file.seek(position)
    window = b""
    while position < within:
        chunk = file.read(_READ_BYTES)
        if not chunk:
            break
        window += chunk
        found = _free_terminator(window, terminator, first)
        if found >= 0:
            return min(position + found + length, size_bytes)
        kept = min(len(window), 2 * length - 2)
        first = max(first - len(window), 1 - length) + kept
        position += len(window) - kept
        window = window[len(window) - kept :]
    return within


def _free_terminator(window: bytes, terminator: bytes, first: int) -> int:
    """Where the first terminator from `first` on begins that overlaps none before; -1 for nowhere."""
    length = len(terminator)
    found = window.find(terminator, first)
    while found >= 0 and terminator in window[max(0, found - length + 1) : found + length - 1]:
        found = window.find(terminator, found + 1)
    return found
