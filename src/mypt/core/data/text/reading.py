"""Bytes -> text, in bounded memory and strict UTF-8, through gzip, xz and zstd."""

import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from mypt.errors import DataError, MissingExtraError
from mypt.records.plan import Compression
from mypt.records.text import EncodingErrors

_READ_BYTES = 2**18
# Little at a time: what it unpacks to is held whole.
_PACKED_BYTES = 2**13
# Longer runs without a place to cut would exhaust the pre-tokenizer's stack.
_HARD_CUT_CHARS = 2**18
_LAST_WORD_END = re.compile(r"(?s:.*)[^\W_](?=[ \n])")


@contextmanager
def open_bytes(path: Path, compression: Compression) -> Generator[BinaryIO]:
    """Open a file for reading its uncompressed bytes.

    Raises:
        DataError: when it cannot be read, or is not what its name says.
        MissingExtraError: for .zst without the package.
    """
    with unreadable(path), _opened(path, compression) as file:
        yield file


@contextmanager
def unreadable(path: Path) -> Generator[None]:
    """Say in our words that a file cannot be read.

    Raises:
        DataError: instead of what the system and the decompressors raise.
    """
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as problem:
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
        # A window as large as `zstd --long=31` makes.
        decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
        return cast("BinaryIO", io.BufferedReader(_ZstdFile(path, decompressor.decompressobj), _READ_BYTES))
    return path.open("rb")


class _ZstdFile(io.RawIOBase):
    """The bytes of all frames of a .zst file: zstandard's own reader takes a file that was cut off for whole."""

    def __init__(self, path: Path, new_frame: Callable[[], Any]) -> None:
        self.fileobj = path.open("rb")
        self._new_frame = new_frame
        self._frame: Any = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.fileobj.close()
        super().close()

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - a writable buffer has no type before Python 3.12
        while not self._ready:
            self._packed = self._packed or self.fileobj.read(_PACKED_BYTES)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("it ends in the middle")
                return 0
            self._frame = self._frame or self._new_frame()
            self._ready = memoryview(self._frame.decompress(self._packed))
            self._packed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


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
    mark = b""
    final = False
    while not final:
        wanted = _READ_BYTES if end is None else min(_READ_BYTES, end - position)
        chunk = file.read(wanted) if wanted else b""
        final = not chunk if end is None else position + len(chunk) >= end
        if end is not None and not chunk and wanted:
            raise DataError(f"{path}: became shorter while it was read")
        mark = mark or (chunk[:2] if position == 0 else b"?")
        position += len(chunk)
        try:
            yield decoder.decode(chunk, final=final)
        except UnicodeDecodeError as problem:
            raise _encoding_error(path, position - len(problem.object) + problem.start, problem, mark) from None


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


def _encoding_error(path: Path, offset: int, problem: UnicodeDecodeError, mark: bytes) -> DataError:
    byte = problem.object[problem.start]
    message = f"{path}: not valid UTF-8 at byte {offset:,} (0x{byte:02x})"
    if mark in {b"\xff\xfe", b"\xfe\xff"}:
        return DataError(f"{message}; it looks like UTF-16", hint=f"Convert it: iconv -f UTF-16 -t UTF-8 {path}")
    return DataError(
        message, hint="Convert the file to UTF-8, or go on with U+FFFD in its place: --encoding-errors replace"
    )
