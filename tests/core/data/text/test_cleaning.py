"""What cleaning does to a text does not depend on the pieces it comes in, and is counted."""

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mypt.core.data.text.spans import Tally
from mypt.records.text import Normalization, TextConfig
from preparation import read_texts, read_units, write_jsonl

FRAGMENTS = [
    *"aZé☕ \n\t.ÅΣσ", "  ", "\n\n", "e\u0301", "\u00a0", " \u0301", "ﬁ", "½", "ΑΣ", "long line of words", "\r\n", "①",
]  # fmt: skip
WORDS = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)
CHANGES: list[Normalization] = ["nfc", "nfkc", "lowercase", "spaces"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cleaning")


def naive_change(text: str, change: Normalization) -> str:
    if change == "spaces":
        return "\n".join(re.sub(r"\s+", " ", line) for line in text.split("\n"))
    if change == "lowercase":
        return text.lower()
    return unicodedata.normalize("NFC" if change == "nfc" else "NFKC", text)


def length_of(line: str) -> int:
    # Neither kind of line end is part of the line.
    return len(line.removesuffix("\n").removesuffix("\r"))


def naive_filter(text: str, least: int, most: int | None) -> tuple[str, int]:
    # What is left of the text, and how many lines are not.
    lines = text.split("\n")
    whole = [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    kept = [line for line in whole if least <= length_of(line) and (most is None or length_of(line) <= most)]
    return "".join(kept), len(whole) - len(kept)


def cleaned(path: Path, config: TextConfig, unit_bytes: int, read_bytes: int) -> tuple[str, Tally]:
    # The text of one file as it comes out, and all that was counted.
    total, texts = Tally(), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mypt.core.data.text.reading._READ_BYTES", read_bytes)
        for pieces, tally in read_units([path], config, unit_bytes):
            texts += pieces
            total.dropped_lines += tally.dropped_lines
            total.text_bytes += tally.text_bytes
    return "".join(texts), total


@settings(max_examples=300, deadline=None)
@given(WORDS, st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3), st.integers(1, 20))
@example("ΑΣ Σ", ["lowercase"], 2)
@example("a \u0301", ["nfc"], 1)
def test_a_change_piece_by_piece_equals_a_change_of_the_whole(
    folder: Path, text: str, changes: list[Normalization], read_bytes: int
) -> None:
    path = folder / "changed.txt"
    path.write_bytes(text.encode())
    expected = text
    for change in changes:
        expected = naive_change(expected, change)
    found, tally = cleaned(path, TextConfig(normalize=tuple(changes)), 10**6, read_bytes)
    assert found == expected
    assert tally.text_bytes == len(expected.encode())


@settings(max_examples=300, deadline=None)
@given(WORDS, st.integers(0, 6), st.none() | st.integers(0, 10), st.integers(1, 20), st.integers(1, 60))
@example("", 1, None, 1, 1)
@example("\n", 1, None, 1, 1)
@example("a\r\n\r\nb\r", 1, 1, 1, 60)
@example("abc", 0, 0, 1, 1)
def test_lines_are_dropped_as_a_plain_reading_drops_them(
    folder: Path, text: str, least: int, more: int | None, read_bytes: int, unit_bytes: int
) -> None:
    path = folder / "filtered.txt"
    path.write_bytes(text.encode())
    most = None if more is None else max(1, least + more)
    found, tally = cleaned(path, TextConfig(min_line_chars=least, max_line_chars=most), unit_bytes, read_bytes)
    if least or most is not None:
        assert (found, tally.dropped_lines) == naive_filter(text, least, most)
    else:
        assert (found, tally.dropped_lines) == (text, 0)
    assert tally.text_bytes == len(found.encode())


def test_lines_are_measured_after_they_were_changed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" + " " * 20 + "b\nabcdef\n")
    found, _ = cleaned(tmp_path / "a.txt", TextConfig(normalize=("spaces",), max_line_chars=5), 10**6, 100)
    assert found == "a b\n"


def test_lines_are_dropped_inside_each_document(tmp_path: Path) -> None:
    texts = ["a\nlong enough\n", "b", "long enough\nc", "\n\n"]
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    config = TextConfig(min_line_chars=5, val_fraction=0)
    assert [text for text, _ in read_texts([path], config)] == ["long enough\n", "long enough\n"]
    ((_, tally),) = read_units([path], config, 10**6)
    assert (tally.empty_documents, tally.dropped_lines) == (2, 5)


@pytest.mark.parametrize("unit_bytes", [64, 10**6])
def test_a_document_whose_first_units_are_dropped_is_on_one_side(tmp_path: Path, unit_bytes: int) -> None:
    # Its head, which decides the side, comes units after its first byte.
    for number in range(20):
        path = tmp_path / f"{number}.txt"
        path.write_text("short\n" * 30 + f"this line is long enough to stay, number {number}\n" * 10)
    config = TextConfig(min_line_chars=10, val_fraction=0.5)
    found = read_texts(sorted(tmp_path.glob("*.txt")), config, unit_bytes)
    assert found == read_texts(sorted(tmp_path.glob("*.txt")), config)
    assert {split for _, split in found} == {"train", "val"}


def test_by_default_the_text_stays_as_it_is(tmp_path: Path) -> None:
    text = "\ufeffA\r\nB \u00a0 e\u0301\n\n\n  \x00\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert read_texts([tmp_path / "a.txt"], TextConfig(val_fraction=0)) == [(text, "train")]
