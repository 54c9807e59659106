"""Text files -> pieces of text, in bounded memory and strict UTF-8.

Comes in: files, folders, globs. Goes out: pieces that tokenize exactly as the whole file would.
"""

import codecs
import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mypt.errors import DataError, UsageError
from mypt.records.dataset import Split
from mypt.records.run import DataConfig
from mypt.records.text import EncodingErrors

_READ_BYTES = 2**18
# Longer runs without a place to cut would exhaust the pre-tokenizer's stack.
_HARD_CUT_CHARS = 2**18
_LAST_WORD_END = re.compile(r"(?s:.*)\S(?=[ \n])")
_UTF8_LONGEST = 4


@dataclass(frozen=True, slots=True)
class Part:
    """A byte range of one file that belongs to one split."""

    path: Path
    start: int
    end: int
    split: Split
    ends_document: bool

    @property
    def size_bytes(self) -> int:
        """Length of the range."""
        return self.end - self.start


def require_text(config: DataConfig) -> None:
    """Refuse a config that names no text, or files that are not there. Reads nothing.

    Raises:
        UsageError: when no source is given.
        DataError: when a file is missing.
    """
    if not config.dataset_dir:
        if not config.input_files:
            raise UsageError("no text to train on", hint="Name some: mypt train notes.txt, or --dataset-dir DIR")
        find_files(config.input_files)


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Resolve files, folders (their .txt files, at any depth) and globs, sorted within each.

    Raises:
        DataError: for a pattern that gives no readable file.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        try:
            paths = _expand(pattern)
        except OSError as problem:
            raise DataError(f"{pattern[:80]}: cannot look for it ({problem.strerror or problem})") from None
        found |= dict.fromkeys(paths)
    return list(found)


def split_by_position(paths: Sequence[Path], val_fraction: float) -> list[Part]:
    """Hold out the end of the text: the last `val_fraction` of all bytes, in file order.

    The border moves forward to the next whole UTF-8 character.
    """
    sizes = [path.stat().st_size for path in paths]
    border = sum(sizes) - int(sum(sizes) * val_fraction)
    parts: list[Part] = []
    before = 0
    for path, size in zip(paths, sizes, strict=True):
        cut = min(max(border - before, 0), size)
        cut = _next_character(path, cut, size)
        if cut:
            parts.append(Part(path, 0, cut, "train", ends_document=cut == size))
        if cut < size:
            parts.append(Part(path, cut, size, "val", ends_document=True))
        before += size
    return parts


def read_pieces(part: Part, errors: EncodingErrors = "strict") -> Iterator[str]:
    """Read a part as text, piece by piece; joined, the pieces are the part.

    Pieces end where GPT-2's pre-tokenizer always ends a word (before a space or newline that
    follows a visible character), so encoding them one by one equals encoding the whole. Only a
    run of 250,000 characters without such a place is cut elsewhere.

    Raises:
        DataError: naming file and byte offset, when the bytes are not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    pending = ""
    for position, chunk in _read_chunks(part):
        try:
            pending += decoder.decode(chunk, final=position == part.end)
        except UnicodeDecodeError as problem:
            raise _encoding_error(part, position - len(problem.object) + problem.start, problem) from None
        cut = _safe_cut(pending)
        if cut:
            yield pending[:cut]
            pending = pending[cut:]
    if pending:
        yield pending


def _expand(pattern: str) -> list[Path]:
    if not pattern:
        raise DataError("an empty file name", hint="Name text files, folders or globs.")
    path = Path(pattern).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.txt") if file.is_file())
        if not files:
            raise DataError(
                f"{pattern}: no .txt file in this folder",
                hint=f"Name other files by a glob: '{pattern.rstrip('/')}/**/*.md'",
            )
        return files
    if path.is_file():
        return [path]
    if path.exists():
        raise DataError(f"{pattern}: not a regular file")
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute globs too
    files = [match for match in matches if match.is_file()]
    if not files:
        raise DataError(f"{pattern}: no such file", hint="Check the path; globs such as 'data/**/*.txt' work too.")
    return files


def _next_character(path: Path, offset: int, size: int) -> int:
    """Move an offset forward past UTF-8 continuation bytes."""
    if not 0 < offset < size:
        return offset
    with path.open("rb") as file:
        file.seek(offset)
        following = file.read(_UTF8_LONGEST)
    for skipped, byte in enumerate(following):
        if byte & 0xC0 != 0x80:  # noqa: PLR2004 - continuation bytes are 0b10xxxxxx
            return offset + skipped
    return size if offset + len(following) == size else offset


def _read_chunks(part: Part) -> Iterator[tuple[int, bytes]]:
    """Yield (position after the chunk, chunk)."""
    try:
        with part.path.open("rb") as file:
            file.seek(part.start)
            position = part.start
            while position < part.end:
                chunk = file.read(min(_READ_BYTES, part.end - position))
                if not chunk:
                    raise DataError(f"{part.path}: became shorter while it was read")
                position += len(chunk)
                yield position, chunk
    except OSError as problem:
        raise DataError(f"{part.path}: cannot read it ({problem.strerror or problem})") from None


def _safe_cut(text: str) -> int:
    """Where to end a piece: the last space or newline after a visible character; 0 to read on."""
    found = _LAST_WORD_END.match(text)
    if found:
        return found.end()
    return len(text) if len(text) > _HARD_CUT_CHARS else 0


def _encoding_error(part: Part, offset: int, problem: UnicodeDecodeError) -> DataError:
    with part.path.open("rb") as file:
        start = file.read(2)
    byte = problem.object[problem.start]
    message = f"{part.path}: not valid UTF-8 at byte {offset:,} (0x{byte:02x})"
    if start in {b"\xff\xfe", b"\xfe\xff"}:
        return DataError(f"{message}; it looks like UTF-16", hint=f"Convert it: iconv -f UTF-16 -t UTF-8 {part.path}")
    return DataError(
        message, hint="Convert the file to UTF-8, or go on with U+FFFD in its place: --encoding-errors replace"
    )
