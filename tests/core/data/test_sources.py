"""Text comes out of files whole: in pieces of any size, cut where no token is, or refused by byte."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mypt.core.data.sources import Part, find_files, read_pieces, split_by_position

from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.errors import DataError
from mypt.records.tokenizer import Gpt2Spec

SOURCES = "mypt.core.data.sources"

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
    return tmp_path_factory.mktemp("sources")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Some files, and that folder as the working directory.
    for name in ("b.txt", "a.txt", "c.md", "deep/er/z.txt", "deep/y.txt", "odd[1].txt", "empty/.keep"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def whole(path: Path) -> Part:
    return Part(path, 0, path.stat().st_size, "train", ends_document=True)


def pieces_of(part: Part, read_bytes: int, hard_cut_chars: int = 2**23) -> list[str]:
    # The pieces when files are read in chunks of `read_bytes`.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{SOURCES}._READ_BYTES", read_bytes)
        patch.setattr(f"{SOURCES}._HARD_CUT_CHARS", hard_cut_chars)
        return list(read_pieces(part))


# Reading piece by piece.


@settings(max_examples=200, deadline=None)
@given(VARIED | st.text(), st.integers(1, 40), st.sampled_from([1, 5, 2**23]))
def test_the_pieces_joined_are_the_file(folder: Path, text: str, read_bytes: int, hard_cut_chars: int) -> None:
    path = folder / "joined.txt"
    path.write_bytes(text.encode())
    pieces = pieces_of(whole(path), read_bytes, hard_cut_chars)
    assert "".join(pieces) == text
    assert all(pieces)


@settings(max_examples=400, deadline=None)
@given(VARIED, st.integers(1, 40))
@example("a \n b", 2)
@example("word  \n\n  word 's 's", 1)
@example("a\x1c b\x85 c\u2003 d\u00a0 e", 1)
def test_encoding_piece_by_piece_equals_encoding_the_whole(
    folder: Path, gpt2: Tokenizer, text: str, read_bytes: int
) -> None:
    path = folder / "encoded.txt"
    path.write_bytes(text.encode())
    ids = [token_id for piece in pieces_of(whole(path), read_bytes) for token_id in gpt2.encode(piece).tolist()]
    assert ids == gpt2.encode(text).tolist()


def test_a_file_of_words_is_really_read_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words and lines\n" * 50)
    pieces = pieces_of(whole(tmp_path / "a.txt"), read_bytes=16)
    assert len(pieces) > 50
    assert max(map(len, pieces)) < 40


def test_text_without_spaces_is_held_no_longer_than_the_hard_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 1000)
    pieces = pieces_of(whole(tmp_path / "a.txt"), read_bytes=16, hard_cut_chars=64)
    assert max(map(len, pieces)) <= 64 + 16


@settings(deadline=None)
@given(st.data())
def test_a_part_is_read_from_its_start_to_its_end(folder: Path, data: st.DataObject) -> None:
    text = "naïve ☕ words 𝄞 and\nmore"
    path = folder / "part.txt"
    path.write_bytes(text.encode())
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    part = Part(path, len(text[:start].encode()), len(text[:end].encode()), "val", ends_document=False)
    assert "".join(pieces_of(part, data.draw(st.integers(1, 9)))) == text[start:end]


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(1, 9))
def test_replacing_gives_what_python_gives_whatever_the_chunks(folder: Path, content: bytes, read_bytes: int) -> None:
    path = folder / "broken.txt"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{SOURCES}._READ_BYTES", read_bytes)
        assert "".join(read_pieces(whole(path), "replace")) == content.decode("utf-8", "replace")


def test_a_file_that_becomes_shorter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some words")
    part = whole(path)
    path.write_text("some")
    with pytest.raises(DataError, match=r"a\.txt: became shorter"):
        list(read_pieces(part))


# Bytes that are no UTF-8.


INVALID = [b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf"]


@settings(max_examples=300, deadline=None)
@given(VARIED, st.sampled_from(INVALID), VARIED, st.integers(1, 9))
def test_invalid_bytes_are_refused_with_file_and_exact_offset(
    folder: Path, before: str, invalid: bytes, after: str, read_bytes: int
) -> None:
    content = before.encode() + invalid + after.encode()
    path = folder / "invalid.txt"
    path.write_bytes(content)
    with pytest.raises(UnicodeDecodeError) as truth:
        content.decode()
    with pytest.raises(DataError) as caught:
        pieces_of(whole(path), read_bytes)
    assert caught.value.message == (
        f"{path}: not valid UTF-8 at byte {truth.value.start:,} (0x{content[truth.value.start]:02x})"
    )
    assert "--encoding-errors replace" in caught.value.hint


def test_the_offset_counts_from_the_start_of_the_file_in_every_part(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(("é" * 2000).encode() + b"\xff" + b"tail")
    with pytest.raises(DataError, match=r"at byte 4,000 \(0xff\)"):
        pieces_of(Part(path, 3000, 4005, "val", ends_document=True), read_bytes=7)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_recognized_by_its_mark(tmp_path: Path, encoding: str) -> None:
    mark = {"utf-16": "", "utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}[encoding]
    (tmp_path / "a.txt").write_bytes(f"{mark}words é".encode(encoding))
    with pytest.raises(DataError, match="looks like UTF-16") as caught:
        list(read_pieces(whole(tmp_path / "a.txt")))
    assert "iconv" in caught.value.hint


# Finding files.


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["b.txt", "a.txt"], ["b.txt", "a.txt"]),
        (["a.txt", "./a.txt", "*.txt"], ["a.txt", "b.txt", "odd[1].txt"]),
        (["*.txt"], ["a.txt", "b.txt", "odd[1].txt"]),
        (["**/*.txt"], ["a.txt", "b.txt", "deep/er/z.txt", "deep/y.txt", "odd[1].txt"]),
        (["deep"], ["deep/er/z.txt", "deep/y.txt"]),
        (["deep/"], ["deep/er/z.txt", "deep/y.txt"]),
        (["c.md"], ["c.md"]),
        (["odd[1].txt"], ["odd[1].txt"]),
        (["[ab].txt", "deep/y.txt"], ["a.txt", "b.txt", "deep/y.txt"]),
    ],
)
@pytest.mark.usefixtures("tree")
def test_files_folders_and_globs_are_found_once_and_in_order(patterns: list[str], found: list[str]) -> None:
    assert find_files(patterns) == [Path(name) for name in found]


def test_absolute_patterns_give_absolute_files(tree: Path) -> None:
    assert find_files([f"{tree}/*.txt"])[0] == tree / "a.txt"
    assert find_files([f"{tree}/deep"]) == [tree / "deep/er/z.txt", tree / "deep/y.txt"]


@pytest.mark.parametrize("pattern", ["none.txt", "none/*.txt", "", "x" * 5000, "a\0b", "empty", "*.pdf"])
@pytest.mark.usefixtures("tree")
def test_a_pattern_that_gives_no_file_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(DataError) as caught:
        find_files(["a.txt", pattern])
    assert pattern[:20] in caught.value.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no fifos here")
def test_a_fifo_is_no_file_and_is_not_waited_for(tree: Path) -> None:
    os.mkfifo(tree / "pipe.txt")
    with pytest.raises(DataError, match=r"pipe\.txt: not a regular file"):
        find_files(["pipe.txt"])
    assert Path("pipe.txt") not in find_files(["*.txt"])
    assert tree / "pipe.txt" not in find_files([str(tree)])


# Splitting.


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text(alphabet="ab\né☕𝄞", max_size=8), min_size=1, max_size=4),
    st.floats(0, 0.999) | st.sampled_from([0.0, 0.1, 0.5]),
)
def test_parts_cover_every_byte_once_and_cut_no_character(folder: Path, texts: list[str], val_fraction: float) -> None:
    paths = [folder / f"split-{number}.txt" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    parts = split_by_position(paths, val_fraction)
    assert "".join("".join(read_pieces(part)) for part in parts) == "".join(texts)
    for path, text in zip(paths, texts, strict=True):
        ranges = [(part.start, part.end) for part in parts if part.path == path]
        assert [byte for start, end in ranges for byte in range(start, end)] == list(range(len(text.encode())))
        ends = [part.ends_document for part in parts if part.path == path]
        assert ends == [False] * (len(ranges) - 1) + [True] * bool(text)
    splits = [part.split for part in parts]
    assert splits == sorted(splits)
    total = sum(len(text.encode()) for text in texts)
    val_bytes = sum(part.size_bytes for part in parts if part.split == "val")
    assert total * val_fraction - 4 < val_bytes <= total * val_fraction


def test_a_border_inside_the_last_character_moves_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("0123456789☕".encode())
    parts = split_by_position([path], 0.1)
    assert [(part.split, part.start, part.end, part.ends_document) for part in parts] == [("train", 0, 13, True)]


def test_without_a_validation_share_all_is_for_training(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("word " * 3)
    parts = split_by_position([tmp_path / "a", tmp_path / "b"], 0.0)
    assert [part.split for part in parts] == ["train", "train"]
    assert all(part.ends_document for part in parts)


def test_the_held_out_text_is_the_end_of_the_last_files(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"x" * 100)
    parts = split_by_position([tmp_path / name for name in "abc"], 0.5)
    assert [(part.path.name, part.split, part.size_bytes) for part in parts] == [
        ("a", "train", 100), ("b", "train", 50), ("b", "val", 50), ("c", "val", 100),
    ]  # fmt: skip
