"""Bytes -> text, in bounded memory and strict UTF-8, through gzip, xz and zstd."""

import codecs
import gzip
import lzma
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from mypt.errors import DataError, MissingExtraError
from mypt.records.plan import Compression
from mypt.records.text import EncodingErrors

_READ_BYTES = 2**18
# Longer runs without a place to cut would exhaust the pre-tokenizer's stack.
_HARD_CUT_CHARS = 2**18
_LAST_WORD_END = re.compile(r"(?s:.*)[^\W_](?=[ \n])")


@contextmanager
def open_bytes(path: Path, compression: Compression) -> Iterator[BinaryIO]:
    """Open a file for reading its uncompressed bytes.

    Raises:
        DataError: when it cannot be read, or is not what its name says.
        MissingExtraError: for .zst without the package.
    """
    try:
        with _opened(path, compression) as file:
            yield file
    except (OSError, EOFError, lzma.LZMAError, gzip.BadGzipFile) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise DataError(f"{path}: cannot read it ({reason})") from None
    except Exception as problem:
        if type(problem).__name__ == "ZstdError":
            raise DataError(f"{path}: cannot read it ({problem})") from None
        raise


def _opened(path: Path, compression: Compression) -> BinaryIO:
    if compression == "gz":
        return cast("BinaryIO", gzip.open(path, "rb"))
    if compression == "xz":
        return cast("BinaryIO", lzma.open(path, "rb"))
    if compression == "zst":
        try:
            import zstandard
        except ImportError:
            raise MissingExtraError(
                f"{path}: reading .zst needs the package zstandard", hint="pip install 'mypt[data]'"
            ) from None
        return cast("BinaryIO", zstandard.open(path, "rb"))
    return path.open("rb")


class ByteReader(Protocol):
    """What text can be read from."""

    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes; none at the end."""
        ...


def read_text(file: ByteReader, path: Path, start: int, end: int | None, errors: EncodingErrors) -> Iterator[str]:
    """Decode bytes `start` to `end` (None: all there is), chunk by chunk.

    Args:
        file: standing at `start`.
        path: named in errors.
        start: position in the uncompressed bytes.
        end: where to stop.
        errors: strict, or replace by U+FFFD.

    Raises:
        DataError: naming file and byte offset, when the bytes are not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    position = start
    final = False
    while not final:
        wanted = _READ_BYTES if end is None else min(_READ_BYTES, end - position)
        chunk = file.read(wanted) if wanted else b""
        final = not chunk if end is None else position + len(chunk) >= end
        if end is not None and not chunk and wanted:
            raise DataError(f"{path}: became shorter while it was read")
        position += len(chunk)
        try:
            yield decoder.decode(chunk, final=final)
        except UnicodeDecodeError as problem:
            raise _encoding_error(path, position - len(problem.object) + problem.start, problem) from None


def cut_pieces(chunks: Iterator[str]) -> Iterator[str]:
    """Give the same text in pieces that tokenize one by one as the whole would.

    Pieces end after a letter or digit, before a space or newline, where pre-tokenizers end a
    word; only a run of 250,000 characters without such a place is cut elsewhere.
    """
    pending = ""
    for chunk in chunks:
        pending += chunk
        cut = _safe_cut(pending)
        if cut:
            yield pending[:cut]
            pending = pending[cut:]
    for start in range(0, len(pending), _HARD_CUT_CHARS):
        yield pending[start : start + _HARD_CUT_CHARS]


def cut_text(text: str) -> Iterator[str]:
    """As `cut_pieces`, for a text in memory."""
    if len(text) <= _HARD_CUT_CHARS:
        return iter((text,))
    return cut_pieces(text[start : start + _READ_BYTES] for start in range(0, len(text), _READ_BYTES))


def _safe_cut(text: str) -> int:
    """Where to end a piece: the last end of a word; 0 to read on."""
    found = _LAST_WORD_END.match(text)
    if found:
        return found.end()
    return _HARD_CUT_CHARS if len(text) > _HARD_CUT_CHARS else 0


def _encoding_error(path: Path, offset: int, problem: UnicodeDecodeError) -> DataError:
    with path.open("rb") as file:
        start = file.read(2)
    byte = problem.object[problem.start]
    message = f"{path}: not valid UTF-8 at byte {offset:,} (0x{byte:02x})"
    if start in {b"\xff\xfe", b"\xfe\xff"}:
        return DataError(f"{message}; it looks like UTF-16", hint=f"Convert it: iconv -f UTF-16 -t UTF-8 {path}")
    return DataError(
        message, hint="Convert the file to UTF-8, or go on with U+FFFD in its place: --encoding-errors replace"
    )
