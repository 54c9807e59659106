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
from shlex import quote
from typing import Any, BinaryIO, Protocol, cast

from mypt.errors import DataError, MissingExtraError
from mypt.records.plan import Compression
from mypt.records.text import EncodingErrors

_READ_BYTES = 2**18
# Little at a time: what it unpacks to is held whole, and a bomb unpacks to 32,768 times as much.
_PACKED_BYTES = 2**10
# What a decompressor may look back on: as far as `zstd --long=31`, and further than any xz preset.
_WINDOW_BYTES = 2**31
# Longer runs without a place to cut would exhaust the pre-tokenizer's stack.
_HARD_CUT_CHARS = 2**18
# UTF-32's mark begins with UTF-16's.
_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_PACKED_MARKS = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"\xfd7zXZ\0": ".xz"}
# Which of four bytes are NUL in text of plain letters.
_NUL_COLUMNS = {"a0a0": "UTF-16LE", "0a0a": "UTF-16BE", "a000": "UTF-32LE", "000a": "UTF-32BE"}
_FEW = 0.05
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
        return _unpacking(path, lambda: lzma.LZMADecompressor(memlimit=_WINDOW_BYTES))
    if compression == "zst":
        try:
            import zstandard
        except ImportError:
            raise MissingExtraError(
                f"{path}: reading .zst needs the package zstandard", hint="pip install 'mypt[data]'"
            ) from None
        return _unpacking(path, zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj)
    return path.open("rb")


def _unpacking(path: Path, new_frame: Callable[[], Any]) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(_PackedFile(path, new_frame), _READ_BYTES))


class _PackedFile(io.RawIOBase):
    """The bytes of all frames of a .zst or .xz file, to its last byte.

    zstandard's own reader takes a file that was cut off for whole, and Python's own for xz passes
    over whatever comes after a frame, be it another one that is damaged.
    """

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
            if self._frame is None:
                self._packed = self._packed.lstrip(b"\0")  # which may fill up between frames of xz
                if not self._packed:
                    continue
                self._frame = self._new_frame()
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
    beginning = b""
    final = False
    while not final:
        wanted = _READ_BYTES if end is None else min(_READ_BYTES, end - position)
        chunk = file.read(wanted) if wanted else b""
        final = not chunk if end is None else position + len(chunk) >= end
        if end is not None and not chunk and wanted:
            raise DataError(f"{path}: became shorter while it was read")
        if position == 0:
            beginning = chunk
            _require_utf_8(path, chunk, errors)
        position += len(chunk)
        try:
            yield decoder.decode(chunk, final=final)
        except UnicodeDecodeError as problem:
            raise _encoding_error(path, position - len(problem.object) + problem.start, problem, beginning) from None


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


def _require_utf_8(path: Path, beginning: bytes, errors: EncodingErrors) -> None:
    """Refuse UTF-16 and UTF-32 of plain letters without a mark: as UTF-8 it is letters and NULs, and no error.

    Raises:
        DataError: with the way to convert it.
    """
    columns = [beginning[place::4] for place in range(4)]
    if errors != "strict" or not columns[-1] or beginning.startswith(tuple(_MARKS)):
        return
    shares = [column.count(0) / len(column) for column in columns]
    if all(share < _FEW or share > 1 - _FEW for share in shares):
        encoding = _NUL_COLUMNS.get("".join("0" if share > _FEW else "a" for share in shares))
        if encoding:
            raise _other_encoding(path, "is full of NULs", encoding)


def _encoding_error(path: Path, offset: int, problem: UnicodeDecodeError, beginning: bytes) -> DataError:
    message = f"not valid UTF-8 at byte {offset:,} (0x{problem.object[problem.start]:02x})"
    for mark, encoding in _MARKS.items():
        if beginning.startswith(mark):
            return _other_encoding(path, message, encoding)
    for mark, suffix in _PACKED_MARKS.items():
        if beginning.startswith(mark):
            return DataError(
                f"{path}: {message}; it looks like a packed file", hint=f"Unpack it, or let its name end with {suffix}."
            )
    return DataError(
        f"{path}: {message}",
        hint="Convert the file to UTF-8, or go on with U+FFFD in its place: --encoding-errors replace",
    )


def _other_encoding(path: Path, message: str, encoding: str) -> DataError:
    return DataError(
        f"{path}: {message}; it looks like {encoding}",
        hint=f"Convert it: iconv -f {encoding} -t UTF-8 {quote(str(path))}",
    )
