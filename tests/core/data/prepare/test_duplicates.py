"""Duplicates are found as a set finds them, wherever they lie and however little memory there is."""

import random
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mypt.records.run import DataConfig
from preparation import SPLITS, careless_disk, ids_of, listing, prepared, read_texts, small_units, texts_of, write_jsonl

# Short ones that repeat, and some that are longer than a unit.
DOCUMENTS = st.lists(st.sampled_from(["a", "b", "c" * 100, "d\n" * 40, "e" * 33, "f f", "ab"]), min_size=1, max_size=14)


def config_of(*files: Path, separator: str | None = None, deduplicate: bool = True) -> DataConfig:
    return DataConfig(
        input_files=tuple(map(str, files)), tokenization="char", val_fraction=0.4,
        document_separator=separator, deduplicate=deduplicate,
    )  # fmt: skip


def without_end(texts: list[str]) -> list[str]:
    return [text.removesuffix("<|endoftext|>") for text in texts]


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    careless_disk(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("duplicates")


def check(folder: Path, name: str, files: list[Path], separator: str | None) -> None:
    config = config_of(*files, separator=separator)
    documents = read_texts(files, config.text())
    manifest = prepared(config, folder / name, 50)
    expected = list(dict.fromkeys(text for text, _ in documents))
    sides = dict(documents)
    found = {split: without_end(texts_of(folder / name, split)) for split in SPLITS}
    if manifest.split_by == "content":
        assert found == {split: [text for text in expected if sides[text] == split] for split in SPLITS}
    else:
        everything = "".join(found["train"] + found["val"])
        assert everything == "" or len(ids_of(folder / name, "train") + ids_of(folder / name, "val")) == sum(
            map(len, expected)
        )
    assert manifest.counts.duplicate_documents == len(documents) - len(expected)
    assert manifest.counts.documents == len(expected)
    assert manifest.counts.text_bytes == sum(len(text.encode()) for text in expected)


@settings(max_examples=40, deadline=None)
@given(DOCUMENTS, st.sampled_from([1, 20, 64, 10**6]), st.sampled_from([80, 2**28]))
def test_what_stays_is_what_a_set_has_not_seen(  # any unit size, any memory
    folder: Path, texts: list[str], unit_bytes: int, memory_bytes: int
) -> None:
    path = Path(mkdtemp(dir=folder), "a.txt")
    path.write_text("§".join(texts))
    with pytest.MonkeyPatch.context() as patch:
        small_units(patch, unit_bytes)
        patch.setattr("mypt.core.data.prepare.duplicates._MEMORY_BYTES", memory_bytes)
        check(path.parent, "data", [path], "§")


@pytest.mark.parametrize("memory_bytes", [500, 2**28])
def test_many_documents_in_many_files_and_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_bytes: int
) -> None:
    chance = random.Random(3)
    texts = [f"text {chance.randint(0, 400)} " * chance.randint(1, 3) for _ in range(1000)]
    files = [write_jsonl(tmp_path / f"{number}.jsonl", texts[number::4]) for number in range(4)]
    small_units(monkeypatch, 900)
    monkeypatch.setattr("mypt.core.data.prepare.duplicates._MEMORY_BYTES", memory_bytes)
    check(tmp_path, "data", files, None)


def test_whole_files_that_span_units_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"word {number % 5} " * 200 for number in range(12)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number:02d}.txt").write_text(text)
    small_units(monkeypatch, 300)
    check(tmp_path, "data", sorted(tmp_path.glob("*.txt")), None)


def test_duplicates_stay_unless_asked_and_are_counted_all_the_same(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["same", "same", "other"] * 10)
    manifest = prepared(config_of(path, deduplicate=False), tmp_path / "data")
    assert manifest.counts.documents == 30
    assert manifest.counts.duplicate_documents == 28


def test_nothing_of_the_search_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mypt.core.data.prepare.duplicates._MEMORY_BYTES", 100)
    path = write_jsonl(tmp_path / "a.jsonl", [f"text {number % 7}" for number in range(50)])
    prepared(config_of(path), tmp_path / "data")
    names = {Path(name).name for name in listing(tmp_path)}
    assert names <= {"a.jsonl", "dataset.json", "tokenizer.json", "shard-00000.bin", "shard-00000.idx"}
