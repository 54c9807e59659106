"""Text comes out of files whole: in pieces of any size, cut where no token is, or refused by byte."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from mypt.core.data.text.reading import cut_pieces, cut_text, open_bytes, read_text
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.errors import DataError
from mypt.records.plan import Compression
from mypt.records.text import EncodingErrors
from mypt.records.tokenizer import Gpt2Spec
from preparation import COMPRESSIONS

READING = "mypt.core.data.text.reading"

# What GPT-2's pre-tokenizer tells apart, in one to four bytes a character.
FRAGMENTS = [
    *"aZ9 \n\t\r\v'.,é", "  ", "\n\n", " \n", "\r\n", "\u00a0", "\u2003", "\u2028", "\x1c", "\x85", "\u200b",
    "'s", "I'll", "word", " word", "12", "мир", "数", "☕", "𝄞", "👩‍👧", "e\u0301", "\0",
]  # fmt: skip
VARIED = st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join)


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return build_tokenizer(Gpt2Spec())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reading")


def decoded(
    content: bytes, read_bytes: int, errors: EncodingErrors = "strict", path: Path = Path("a.txt"), start: int = 0
) -> Iterator[str]:
    # The text of some bytes, read in chunks of `read_bytes`.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{READING}._READ_BYTES", read_bytes)
        yield from read_text(io.BytesIO(content), path, start, start + len(content), errors)


def pieces_of(text: str, read_bytes: int, hard_cut_chars: int = 2**18) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{READING}._HARD_CUT_CHARS", hard_cut_chars)
        return list(cut_pieces(decoded(text.encode(), read_bytes)))


@settings(max_examples=200, deadline=None)
@given(VARIED | st.text(), st.integers(1, 40), st.sampled_from([1, 5, 2**18]))
def test_the_pieces_joined_are_the_text(text: str, read_bytes: int, hard_cut_chars: int) -> None:
    pieces = pieces_of(text, read_bytes, hard_cut_chars)
    assert "".join(pieces) == text
    assert all(pieces)


@settings(max_examples=400, deadline=None)
@given(VARIED, st.integers(1, 40))
@example("a \n b", 2)
@example("word  \n\n  word 's 's", 1)
@example("a\x1c b\x85 c\u2003 d\u00a0 e", 1)
def test_encoding_piece_by_piece_equals_encoding_the_whole(gpt2: Tokenizer, text: str, read_bytes: int) -> None:
    try:
        pieces = list(pieces_of(text, read_bytes))
    except DataError:
        if "\0" not in text:
            raise
        reject()  # full of NULs: refused as UTF-16, which is another test's
    ids = [token_id for piece in pieces for token_id in gpt2.encode(piece).tolist()]
    assert ids == gpt2.encode(text).tolist()


@settings(max_examples=100, deadline=None)
@given(VARIED, st.integers(1, 40), st.integers(1, 40))
def test_a_text_in_memory_is_cut_into_the_same_text(text: str, read_chars: int, hard_cut_chars: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{READING}._READ_BYTES", read_chars)
        patch.setattr(f"{READING}._HARD_CUT_CHARS", hard_cut_chars)
        assert "".join(cut_text(text)) == text


def test_a_text_of_words_is_really_read_in_pieces() -> None:
    pieces = pieces_of("some words and lines\n" * 50, read_bytes=16)
    assert len(pieces) > 50
    assert max(map(len, pieces)) < 40


def test_text_without_spaces_is_held_no_longer_than_the_hard_cut() -> None:
    assert max(map(len, pieces_of("x" * 1000, read_bytes=16, hard_cut_chars=64))) <= 64 + 16


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(1, 9))
def test_replacing_gives_what_python_gives_whatever_the_chunks(content: bytes, read_bytes: int) -> None:
    assert "".join(decoded(content, read_bytes, "replace")) == content.decode("utf-8", "replace")


def test_a_file_that_becomes_shorter_is_refused() -> None:
    with pytest.raises(DataError, match=r"a\.txt: became shorter"):
        list(read_text(io.BytesIO(b"some"), Path("a.txt"), 0, 10, "strict"))


# Bytes that are no UTF-8.


INVALID = [b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf"]


@settings(max_examples=300, deadline=None)
@given(VARIED, st.sampled_from(INVALID), VARIED, st.integers(1, 9), st.integers(0, 10**9))
def test_invalid_bytes_are_refused_with_file_and_exact_offset(
    folder: Path, before: str, invalid: bytes, after: str, read_bytes: int, start: int
) -> None:
    content = before.encode() + invalid + after.encode()
    path = folder / "invalid.txt"
    path.write_bytes(content)
    with pytest.raises(UnicodeDecodeError) as truth:
        content.decode()
    with pytest.raises(DataError) as caught:
        list(decoded(content, read_bytes, path=path, start=start))
    offset = start + truth.value.start
    assert caught.value.message == (f"{path}: not valid UTF-8 at byte {offset:,} (0x{content[truth.value.start]:02x})")
    assert "--encoding-errors replace" in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_recognized_by_its_mark(tmp_path: Path, encoding: str) -> None:
    mark = {"utf-16": "", "utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}[encoding]
    content = f"{mark}words é".encode(encoding)
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match="looks like UTF-16") as caught:
        list(decoded(content, 100, path=tmp_path / "a.txt"))
    assert "iconv" in caught.value.hint


# Compressed files.


NAMES: dict[str, Compression] = {"": "", ".gz": "gz", ".xz": "xz", ".zst": "zst"}


def unpacked(path: Path, compression: Compression) -> bytes:
    with open_bytes(path, compression) as file:
        return b"".join(iter(lambda: file.read(1000), b""))


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_compressed_file_gives_its_bytes(tmp_path: Path, suffix: str) -> None:
    content = b"some words " * 10_000
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESSIONS[suffix](content))
    assert unpacked(path, NAMES[suffix]) == content


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_files_packed_one_after_another_are_read_to_the_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(b"".join(COMPRESSIONS[suffix](b"%d words " % number) for number in range(50)))
    assert unpacked(path, NAMES[suffix]) == b"".join(b"%d words " % number for number in range(50))


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["truncated", "one byte short", "not compressed"])
def test_a_broken_compressed_file_is_refused_by_name(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    whole = COMPRESSIONS[suffix](bytes(range(256)) * 1000)
    damaged = {"truncated": whole[: len(whole) // 2], "one byte short": whole[:-1], "not compressed": b"plain words"}
    path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=rf"a\.txt{suffix}: cannot read it"):
        unpacked(path, NAMES[suffix])
