"""Units of work: every byte of every file in exactly one, whatever its size, and no document notices."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mypt.core.data.text.ranges import resolve_range
from mypt.core.data.text.units import Unit, cut_units, unit_bytes_for
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.records.plan import Compression, SourceFile, SourceFormat
from mypt.records.text import TextConfig
from mypt.records.tokenizer import Gpt2Spec
from preparation import read_texts, read_units, write_jsonl, write_parquet

WORDS = st.lists(
    st.sampled_from([*"aé☕𝄞 \n\t.9_", "  ", "\n\n", "word", " word", "naïve", "'s", "12 ", "\r\n", "ß\n"]), max_size=40
).map("".join)
SEPARATORS = st.sampled_from(["\n", "\n\n", "--", "aba", "§", "\n\n\n", "<|endoftext|>"])
RECORDS = st.lists(st.sampled_from(["\n", "\n\n", "-", "a", "b", "§", "word ", "<|endoftext|>", " "]), max_size=40).map(
    "".join
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("units")


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return build_tokenizer(Gpt2Spec())


def source(
    size_bytes: int, form: SourceFormat = "txt", compression: Compression = "", parts: tuple[int, ...] = ()
) -> SourceFile:
    return SourceFile(path="a", size_bytes=size_bytes, format=form, compression=compression, part_bytes=parts)


def written(folder: Path, text: str) -> Path:
    path = folder / "text.txt"
    path.write_bytes(text.encode())
    return path


def ranges_of(path: Path, unit_bytes: int, terminator: bytes | None) -> list[tuple[int, int]]:
    size = path.stat().st_size
    starts = range(0, size, unit_bytes)
    return [resolve_range(path, start, min(start + unit_bytes, size), size, terminator) for start in starts]


# What a plan is.


@given(st.lists(st.integers(0, 100), max_size=8), st.integers(1, 50))
def test_units_hold_every_byte_of_every_file_once_and_in_order(sizes: list[int], unit_bytes: int) -> None:
    units = cut_units([source(size) for size in sizes], unit_bytes)
    spans = [span for unit in units for span in unit]
    covered = [(span.source, byte) for span in spans for byte in range(span.start, span.end)]
    assert covered == [(number, byte) for number, size in enumerate(sizes) for byte in range(size)]
    assert {span.source for span in spans} == set(range(len(sizes)))
    assert all(sum(span.end - span.start for span in unit) <= unit_bytes for unit in units)


@given(st.lists(st.integers(1, 100), max_size=8), st.integers(1, 50))
def test_what_cannot_be_cut_is_in_one_unit(sizes: list[int], unit_bytes: int) -> None:
    for one in ("gz", "xz", "zst"):
        units = cut_units([source(size, compression=one) for size in sizes], unit_bytes)
        spans = [span for unit in units for span in unit]
        assert [(span.start, span.end) for span in spans] == [(0, size) for size in sizes]
    units = cut_units([source(size, "csv") for size in sizes], unit_bytes)
    assert [span.source for unit in units for span in unit] == list(range(len(sizes)))


def test_row_groups_are_cut_apart_and_small_ones_share_a_unit() -> None:
    units = cut_units([source(1, "parquet", parts=(60, 30, 30, 100))], 100)
    assert [[span.start for span in unit] for unit in units] == [[0, 1], [2], [3]]


def test_shards_of_unknown_size_are_units_of_their_own() -> None:
    assert [len(unit) for unit in cut_units([source(0, "hf", parts=(0, 0, 0))], 100)] == [1, 1, 1]


def test_small_files_share_a_unit() -> None:
    units: list[Unit] = cut_units([source(10) for _ in range(10)], 50)
    assert [len(unit) for unit in units] == [5, 5]


def test_the_size_of_a_unit_grows_with_the_text_and_depends_on_nothing_else() -> None:
    assert unit_bytes_for([source(1)]) == 2**22
    assert unit_bytes_for([source(2**34)]) == unit_bytes_for([source(2**33), source(2**33)]) == 2**24
    assert unit_bytes_for([source(2**50)]) == 2**28


# Where a range really begins.


@settings(max_examples=200, deadline=None)
@given(WORDS, st.integers(1, 20), st.none() | SEPARATORS)
def test_ranges_lie_side_by_side_and_cut_no_character(
    folder: Path, text: str, unit_bytes: int, terminator: str | None
) -> None:
    path = written(folder, text)
    ranges = ranges_of(path, unit_bytes, terminator.encode() if terminator else None)
    content = path.read_bytes()
    assert b"".join(content[start:end] for start, end in ranges) == content
    assert "".join(content[start:end].decode() for start, end in ranges) == text


@settings(max_examples=200, deadline=None)
@given(WORDS, st.integers(1, 20))
@example("word  \n word 's", 3)
def test_a_text_cut_between_words_has_the_tokens_of_the_whole(
    folder: Path, gpt2: Tokenizer, text: str, unit_bytes: int
) -> None:
    path = written(folder, text)
    content = path.read_bytes()
    parts = [content[start:end].decode() for start, end in ranges_of(path, unit_bytes, None) if start < end]
    # A place that no word's end follows is cut as planned: only then may tokens differ.
    if all(one[-1].isalnum() and other[0] in " \n" for one, other in pairwise(parts)):
        assert [one for part in parts for one in gpt2.encode(part).tolist()] == gpt2.encode(text).tolist()


def test_a_real_text_cut_anywhere_has_the_tokens_of_the_whole(tmp_path: Path, gpt2: Tokenizer, text: str) -> None:
    path = written(tmp_path, text)
    for unit_bytes in (97, 1000, 4096):
        units = [texts for texts, _ in read_units([path], TextConfig(), unit_bytes)]
        assert len(units) == -(-path.stat().st_size // unit_bytes)
        ids = [one for texts in units for piece in texts for one in gpt2.encode(piece).tolist()]
        assert ids == gpt2.encode(text).tolist()


# Documents do not know of units.


@settings(max_examples=300, deadline=None)
@given(RECORDS, SEPARATORS, st.integers(1, 30))
@example("a\n\n\nb", "\n\n", 4)
@example("ababa" * 4, "aba", 3)
def test_documents_between_separators_do_not_depend_on_units(
    folder: Path, text: str, separator: str, unit_bytes: int
) -> None:
    path = written(folder, text)
    config = TextConfig(document_separator=separator, val_fraction=0.5)
    found = read_texts([path], config, unit_bytes)
    assert found == read_texts([path], config)
    assert [one for one, _ in found] == [one for one in text.split(separator) if one]


@settings(max_examples=100, deadline=None)
@given(RECORDS, SEPARATORS, st.integers(1, 30))
def test_empty_documents_are_counted_the_same_in_any_units(
    folder: Path, text: str, separator: str, unit_bytes: int
) -> None:
    path = written(folder, text)
    config = TextConfig(document_separator=separator)
    counted = sum(tally.empty_documents for _, tally in read_units([path], config, unit_bytes))
    between = text.split(separator)
    assert counted == between[:-1].count("")


@settings(max_examples=100, deadline=None)
@given(st.lists(WORDS, max_size=8), st.integers(1, 60))
def test_records_do_not_depend_on_units(folder: Path, texts: list[str], unit_bytes: int) -> None:
    path = write_jsonl(folder / "a.jsonl", texts)
    found = read_texts([path], TextConfig(val_fraction=0.5), unit_bytes)
    assert [one for one, _ in found] == [one for one in texts if one]
    assert found == read_texts([path], TextConfig(val_fraction=0.5))


@settings(max_examples=100, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(1, 60))
def test_whole_files_do_not_depend_on_units(folder: Path, texts: list[str], unit_bytes: int) -> None:
    paths = [folder / f"{number}.txt" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    found = read_texts(paths, TextConfig(val_fraction=0.5), unit_bytes)
    assert [one for one, _ in found] == [one for one in texts if one]
    assert found == read_texts(paths, TextConfig(val_fraction=0.5))


def test_row_groups_do_not_depend_on_units(tmp_path: Path) -> None:
    texts = [f"text {number} " * 20 for number in range(50)]
    path = write_parquet(tmp_path / "a.parquet", texts, rows_per_group=7)
    config = TextConfig(val_fraction=0.5)
    assert [one for one, _ in read_texts([path], config, 1)] == texts
    assert read_texts([path], config, 1) == read_texts([path], config)


@pytest.mark.parametrize("unit_bytes", [1, 7, 100, 10**6])
def test_every_byte_is_told_as_read_once(tmp_path: Path, text: str, unit_bytes: int) -> None:
    path = written(tmp_path, text[:500])
    tallies = [tally for _, tally in read_units([path], TextConfig(), unit_bytes)]
    assert sum(tally.read_bytes for tally in tallies) == path.stat().st_size
    assert sum(tally.text_bytes for tally in tallies) == path.stat().st_size
