"""A unit -> pieces of documents, each with its side of the validation split.

The side of a document is a hash of its own first 65,536 characters: it does not change when files
are added, moved or renamed, and equal documents are always on the same side.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mypt.core.data.text.cleaning import clean
from mypt.core.data.text.formats import Fragment, holds_whole_files, read_fragments
from mypt.core.data.text.spans import Tally
from mypt.core.data.text.units import Span, Unit
from mypt.records.dataset import Split
from mypt.records.plan import SourceFile
from mypt.records.text import TextConfig

_HEAD_CHARS = 2**16
END_RECORD = np.dtype([("key", "V16"), ("text_bytes", "<u8")])
"""What is known of a document at its end: the 128-bit hash of its text, and its length."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of one document; `end` is its END_RECORD where the document ends with this piece."""

    text: str
    split: Split
    end: bytes | None
    source: str


def read_documents(unit: Unit, sources: Sequence[SourceFile], config: TextConfig, tally: Tally) -> Iterator[Piece]:
    """Read all documents of a unit; documents without text are left out and counted.

    Raises:
        DataError: for what cannot be read, naming file and place.
    """
    for span in unit:
        source = sources[span.source]
        document = _Document(source.path, config.val_fraction, tally)
        if holds_whole_files(source, config) and span.end - span.start < source.size_bytes:
            counted = tally.text_bytes
            _catch_up(document, source, span, config)
            tally.text_bytes = counted
        yield from _with_sides(_read(source, span, config, tally), document)


def _read(source: SourceFile, span: Span, config: TextConfig, tally: Tally) -> Iterator[Fragment]:
    return clean(read_fragments(source, span, config, tally), config, tally)


def _catch_up(document: "_Document", source: SourceFile, span: Span, config: TextConfig) -> None:
    """Read what other units read of the document: its head, and where it ends here all of it.

    All of it only to compare it with others, at a hundred times the speed of encoding.
    """
    head = _Document(source.path, document.val_fraction, Tally())
    for text, _ in _read(source, Span(span.source, 0, source.size_bytes), config, Tally()):
        head.add(text)
        if head.split is not None:
            break
    document.split = head.decided()
    if not config.deduplicate:
        document.begun_elsewhere(0 if head.is_empty else span.start)
    elif span.start and span.end == source.size_bytes:
        for text, _ in _read(source, Span(span.source, 0, span.start), config, Tally()):
            document.add(text)


def _with_sides(fragments: Iterator[Fragment], document: "_Document") -> Iterator[Piece]:
    held: list[str] = []
    for text, ends in fragments:
        document.add(text)
        if text:
            held.append(text)
        if document.split is None and not ends:
            continue
        yield from document.pieces(held, ends=ends)
        held.clear()
    if held:
        yield from document.pieces(held, ends=False)


class _Document:
    """The identity of the document that is being read."""

    def __init__(self, source: str, val_fraction: float, tally: Tally) -> None:
        self._source = source
        self.val_fraction = val_fraction
        self._tally = tally
        self._begin()

    def _begin(self) -> None:
        self.split: Split | None = None
        self._hash = hashlib.blake2b(digest_size=16)
        self._chars = 0
        self._bytes = 0

    @property
    def is_empty(self) -> bool:
        """Whether the document has had no text so far."""
        return not self._bytes

    def begun_elsewhere(self, before_bytes: int) -> None:
        """Go on with a document that is compared with no other: let its hash equal none."""
        self._hash.update(self._source.encode())
        self._bytes = before_bytes

    def add(self, text: str) -> None:
        """Take the next text of the document; its head decides the side."""
        missing = _HEAD_CHARS - self._chars
        if self.split is None and len(text) >= missing:
            self._update(text[:missing])
            self.split = self.decided()
            text = text[missing:]
        self._update(text)

    def pieces(self, texts: list[str], *, ends: bool) -> Iterator[Piece]:
        """Give texts their side; after the document's end the next one begins."""
        if ends and self.is_empty:
            self._tally.empty_documents += 1
            return
        split = self.split = self.decided()
        for text in texts[:-1]:
            yield Piece(text, split, None, self._source)
        end = self._hash.digest() + self._bytes.to_bytes(8, "little") if ends else None
        yield Piece(texts[-1] if texts else "", split, end, self._source)
        if ends:
            self._begin()

    def _update(self, text: str) -> None:
        data = text.encode()
        self._hash.update(data)
        self._chars += len(text)
        self._bytes += len(data)
        self._tally.text_bytes += len(data)

    def decided(self) -> Split:
        """The side, now at the latest."""
        if self.split is not None:
            return self.split
        value = int.from_bytes(self._hash.digest()[:8], "little")
        return "val" if value < int(self.val_fraction * 2**64) else "train"
