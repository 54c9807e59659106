"""The same documents come out of every kind of file; what cannot be read is refused with its place."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mypt.core.data.text.units import cut_units
from mypt.errors import DataError
from mypt.records.text import TextConfig
from preparation import COMPRESSIONS, read_texts, write_jsonl, write_parquet

TEXTS = [
    "plain words",
    'quotes " and, commas\tand tabs',
    "lines\nand\r\nmore lines\n\n",
    "naïve ☕ 𝄞 e\u0301 \u2028 \x85 \ufeff",
    "<|endoftext|> is plain text",
    " ",
    "x" * 300_000,
]
TRAIN = TextConfig(val_fraction=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


def write_csv(path: Path, texts: list[str], field: str = "text") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", field], *enumerate(texts)])
    return path


def write_separated(path: Path, texts: list[str]) -> Path:
    path.write_bytes("§".join(texts).encode())
    return path


WRITERS: dict[str, Callable[[Path, list[str]], Path]] = {
    "jsonl": write_jsonl,
    "ndjson": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}


def texts_in(path: Path, config: TextConfig = TRAIN, unit_bytes: int = 2**22) -> list[str]:
    return [text for text, _ in read_texts([path], config, unit_bytes)]


@pytest.mark.parametrize("suffix", WRITERS)
def test_records_give_their_texts(tmp_path: Path, suffix: str) -> None:
    assert texts_in(WRITERS[suffix](tmp_path / f"a.{suffix}", TEXTS)) == TEXTS


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt"])
def test_compressed_files_give_the_same_texts(tmp_path: Path, suffix: str, compression: str) -> None:
    plain = tmp_path / f"a.{suffix}"
    (WRITERS.get(suffix) or write_separated)(plain, TEXTS)
    packed = tmp_path / f"b.{suffix}{compression}"
    packed.write_bytes(COMPRESSIONS[compression](plain.read_bytes()))
    separator = "§" if suffix == "txt" else None
    assert texts_in(packed, TextConfig(val_fraction=0, document_separator=separator)) == TEXTS


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_text_may_be_in_another_field(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    writer = {"csv": write_csv, "parquet": write_parquet}.get(suffix, write_jsonl)
    writer(path, TEXTS, field="content")
    assert texts_in(path, TextConfig(val_fraction=0, text_field="content")) == TEXTS
    with pytest.raises(DataError, match=r"no field 'text' \(there: .*content") as caught:
        texts_in(path)
    assert "--text-field" in caught.value.hint


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), max_size=8))
def test_any_text_survives_every_format(folder: Path, texts: list[str]) -> None:
    for suffix in ("jsonl", "csv", "parquet"):
        assert texts_in(WRITERS[suffix](folder / f"a.{suffix}", texts)) == texts


def test_blank_lines_between_records_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"text": "a"}\r\n\n  \n{"text": "b"}')
    assert texts_in(tmp_path / "a.jsonl") == ["a", "b"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_byte_order_mark_is_no_part_of_a_record(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"a.{suffix}", ["a", "b"])
    # With the text as its first column, the name of which the mark would be glued to.
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"id,text", b'"text",id').replace(b"0,a", b"a,0"))
    assert texts_in(path)[0] == "a"


def test_a_table_is_read_row_group_by_row_group(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", TEXTS, rows_per_group=2)
    assert texts_in(path) == texts_in(path, unit_bytes=1) == TEXTS


def test_half_a_surrogate_pair_is_refused_or_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": "half \\ud83d"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: line 2: half a surrogate pair") as caught:
        texts_in(tmp_path / "a.jsonl")
    assert "--encoding-errors replace" in caught.value.hint
    replaced = TextConfig(val_fraction=0, encoding_errors="replace")
    assert texts_in(tmp_path / "a.jsonl", replaced) == ["fine", "half \ufffd"]


# What is refused: file, place, reason, one line.


BAD_LINES = {
    '{"text": "a"': "not valid JSON",
    "words": "not valid JSON",
    "[" * 100_000: "not valid JSON",
    '{"body": "a", "id": 3}': r"no field 'text' \(there: body, id\)",
    "{}": r"no field 'text' \(there: none\)",
    "[1, 2]": "not a JSON object with the field 'text'",
    '"text"': "not a JSON object with the field 'text'",
    "null": "not a JSON object with the field 'text'",
    '{"text": 3}': "the field 'text' holds int, not text",
    '{"text": null}': "the field 'text' holds NoneType, not text",
    '{"text": ["a"]}': "the field 'text' holds list, not text",
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.items(), ids=list(BAD_LINES.values()))
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_bad_line_is_refused_with_its_number(tmp_path: Path, line: str, reason: str, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    good = json.dumps({"text": "fine"})
    path.write_bytes(COMPRESSIONS[suffix](f"{good}\n\n{line}\n{good}\n".encode()))
    with pytest.raises(DataError, match=rf"a\.jsonl{suffix}: line 3: {reason}") as caught:
        texts_in(path)
    assert len(caught.value.message) < 400


def test_a_bad_line_of_a_later_unit_is_placed_by_its_unit(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["some text"] * 50)
    path.write_text(path.read_text() + "bad\n")
    with pytest.raises(DataError, match=r"a\.jsonl: line \d+ after byte 1,\d{3}: not valid JSON"):
        texts_in(path, unit_bytes=500)


def test_a_row_of_too_few_columns_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,a\n\n2\n")
    with pytest.raises(DataError, match=r"a\.csv: line 4: 1 columns, the first line has 2"):
        texts_in(tmp_path / "a.csv")


def test_a_quote_that_is_not_closed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\nfine\n"open\nand so on\n')
    with pytest.raises(DataError, match=r"a\.csv: line \d: not valid CSV"):
        texts_in(tmp_path / "a.csv")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_without_the_column_names_those_it_has(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    (write_csv if suffix == "csv" else write_parquet)(path, ["a"], field="body")
    with pytest.raises(DataError, match=r"no field 'text' \(there: .*body"):
        texts_in(path)


def test_a_column_of_numbers_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: row group 0: the field 'text' holds int, not text"):
        texts_in(tmp_path / "a.parquet")


def test_a_table_damaged_inside_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [f"words {number} " * 50 for number in range(500)])
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: "):
        texts_in(path)


def test_an_empty_file_of_any_kind_gives_no_document(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.gz", "a.jsonl.xz", "a.jsonl.zst"):
        packed = COMPRESSIONS.get(Path(name).suffix, bytes)(b"")
        (tmp_path / name).write_bytes(packed)
        assert texts_in(tmp_path / name) == []
    assert texts_in(write_parquet(tmp_path / "a.parquet", ["a"][:0])) == []
    assert cut_units([], 10) == []


def test_invalid_utf_8_inside_a_record_is_placed_by_its_byte(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: not valid UTF-8 at byte 24 \(0xff\)"):
        texts_in(tmp_path / "a.jsonl")
