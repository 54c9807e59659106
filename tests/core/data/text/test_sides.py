"""A document's side of the validation split follows from its text alone; equal texts are together."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypt.core.data.text.sides import split_note, split_ranges
from mypt.records.text import TextConfig
from preparation import COMPRESSIONS, read_texts, write_jsonl, write_parquet

TEXTS = [f"document number {number}, with some words\n" for number in range(400)]
HALF = TextConfig(val_fraction=0.5)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    # Every text and its side.
    return dict(read_texts([write_jsonl(tmp_path_factory.mktemp("sides") / "a.jsonl", TEXTS)], HALF))


def test_both_sides_get_their_share(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [f"text {number}" for number in range(4000)])
    for fraction in (0.01, 0.1, 0.5, 0.9):
        found = [side for _, side in read_texts([path], TextConfig(val_fraction=fraction))]
        # Six standard deviations of a coin thrown 4,000 times.
        assert abs(found.count("val") / 4000 - fraction) < 6 * (fraction * (1 - fraction) / 4000) ** 0.5


def test_a_larger_share_holds_the_smaller_one(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    held = [
        {text for text, side in read_texts([path], TextConfig(val_fraction=f)) if side == "val"} for f in (0.1, 0.4)
    ]
    assert held[0] < held[1]


def test_the_side_stays_when_texts_are_added_moved_and_renamed(tmp_path: Path, sides: dict[str, str]) -> None:
    paths = [write_jsonl(tmp_path / f"z{number}.jsonl", TEXTS[::-1][number::3]) for number in range(3)]
    paths.append(write_jsonl(tmp_path / "new.jsonl", [f"another text {number}" for number in range(100)]))
    found = dict(read_texts(paths, HALF))
    assert {text: found[text] for text in TEXTS} == sides


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_the_side_is_the_same_in_files_of_any_kind(tmp_path: Path, sides: dict[str, str], suffix: str) -> None:
    for number, text in enumerate(TEXTS[:40]):
        (tmp_path / f"{number}.txt{suffix}").write_bytes(COMPRESSIONS[suffix](text.encode()))
    found = read_texts(list(tmp_path.glob(f"*.txt{suffix}")), HALF)
    assert len(found) == 40
    assert all(sides[text] == side for text, side in found)


def test_the_side_is_the_same_in_tables_and_between_separators(tmp_path: Path, sides: dict[str, str]) -> None:
    table = write_parquet(tmp_path / "a.parquet", TEXTS)
    (tmp_path / "a.txt").write_text("§".join(TEXTS))
    separated = TextConfig(val_fraction=0.5, document_separator="§")
    assert dict(read_texts([table], HALF)) == dict(read_texts([tmp_path / "a.txt"], separated)) == sides


def test_equal_texts_are_on_one_side(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS * 3)
    assert len(set(read_texts([path], HALF))) == len(TEXTS)


def test_a_long_document_has_one_side_in_units_of_any_size(tmp_path: Path) -> None:
    # Longer than the head that decides.
    texts = [f"number {number} " + "é word " * 12_000 for number in range(8)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    paths = sorted(tmp_path.glob("*.txt"))
    whole = read_texts(paths, HALF)
    assert [text for text, _ in whole] == texts
    assert read_texts(paths, HALF, 5000) == whole
    assert dict(whole) == dict(read_texts([write_jsonl(tmp_path / "a.jsonl", texts)], HALF))


# Where one side would be empty.


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_splits_hold_every_token_once(train: int, val: int, fraction: float) -> None:
    val = val if fraction else 0
    ranges, rule = split_ranges(train, val, fraction)
    assert sum(one.end - one.start for one in ranges.values()) == train + val
    if rule == "content":
        assert (ranges["train"].end, ranges["val"].end) == (train, val)
    else:
        assert not (train and val)
        assert ranges["train"].stream == ranges["val"].stream
        assert ranges["train"].end == ranges["val"].start
        assert ranges["val"].end - ranges["val"].start == int((train + val) * fraction)


def test_a_tail_split_is_said_plainly() -> None:
    assert split_note("tail", 90, 10, 1, 0.1) == "one document: the last 10% of the tokens are held out for validation"
    assert "all 3 documents fall on one side" in (split_note("tail", 90, 10, 3, 0.1) or "")
    assert split_note("content", 900, 100, 30, 0.1) is None
    assert "48% of the tokens are held out for validation, not 10%" in (split_note("content", 52, 48, 3, 0.1) or "")
