"""Text read into memory is the dataset that would be prepared from it: the same tokens, the same splits."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mypt.core.data.memory import TokenBuffer, read_into_memory
from mypt.core.data.opened import open_dataset
from mypt.core.data.splits import Corpus
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.core.data.tokenize import Chunk
from mypt.errors import DataError, UsageError
from mypt.events import Event, Noted
from mypt.records.run import DataConfig
from mypt.records.tokenizer import ByteSpec, CharSpec, TokenizerSpec
from preparation import COMPRESSIONS, careless_disk, prepared, small_units, write_jsonl, write_parquet

TOKENIZATIONS: tuple[str, ...] = ("gpt2", "char", "byte")


@pytest.fixture(autouse=True)
def units(monkeypatch: pytest.MonkeyPatch) -> None:
    small_units(monkeypatch, 500)
    careless_disk(monkeypatch)


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    # Every kind of file: long, of one character, empty, packed, and with records.
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "one.txt").write_bytes(("Once upon a time, naïve ☕ tokens met.\n" * 40).encode())
    (folder / "six.txt.gz").write_bytes(COMPRESSIONS[".gz"](b"The end\n\n of it. " * 40))
    (folder / "two.txt").write_bytes("𝄞".encode())
    (folder / "void.txt").write_bytes(b"")
    write_jsonl(folder / "a.jsonl", [f"record {number} " * 5 for number in range(30)])
    write_parquet(folder / "b.parquet", [f"row {number} " * 5 for number in range(30)], rows_per_group=8)
    return [str(path) for path in sorted(folder.iterdir())]


def config_of(texts: list[str], tokenization: str = "byte", val_fraction: float = 0.2) -> DataConfig:
    return DataConfig(input_files=tuple(texts), tokenization=tokenization, val_fraction=val_fraction)


def read(config: DataConfig, spec: TokenizerSpec | None = None) -> tuple[Corpus, list[Event]]:
    reading = read_into_memory(config, spec)
    events: list[Event] = []
    while True:
        try:
            events.append(next(reading))
        except StopIteration as end:
            return cast("Corpus", end.value), events


def corpus_of(config: DataConfig, spec: TokenizerSpec | None = None) -> Corpus:
    return read(config, spec)[0]


def all_tokens(stream: TokenStream) -> list[int]:
    return stream.gather(np.zeros(1, dtype=np.int64), len(stream))[0].tolist() if len(stream) else []


def documents(stream: TokenStream) -> list[int]:
    stream.require_documents()
    return stream.documents(np.zeros(1, dtype=np.int64), len(stream))[0].tolist() if len(stream) else []


@pytest.mark.parametrize("val_fraction", [0.0, 0.2])
@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
def test_a_dataset_and_text_in_memory_give_the_same_tokens(
    tmp_path: Path, texts: list[str], tokenization: str, val_fraction: float
) -> None:
    config = config_of(texts, tokenization, val_fraction)
    prepared(config, tmp_path / "data", 1000)
    memory, dataset = corpus_of(config), open_dataset(tmp_path / "data")
    assert memory.spec == dataset.spec
    assert len(memory.train) > 0
    assert (len(memory.val) > 0) == (val_fraction > 0)
    for one, other in ((memory.train, dataset.train), (memory.val, dataset.val)):
        assert all_tokens(one) == all_tokens(other)
        assert documents(one) == documents(other)


def test_one_text_is_split_at_its_tail_in_both(tmp_path: Path, texts: list[str]) -> None:
    config = config_of([name for name in texts if name.endswith("one.txt")])
    manifest = prepared(config, tmp_path / "data", 1000)
    memory, events = read(config)
    assert manifest.split_by == "tail"
    assert [event.message for event in events if isinstance(event, Noted)] == [
        "one document: the last 20% of the tokens are held out for validation"
    ]
    assert all_tokens(memory.val) == all_tokens(open_dataset(tmp_path / "data").val)


def test_cleaning_is_the_same_in_both(tmp_path: Path, texts: list[str]) -> None:
    config = config_of(texts).model_copy(update={"normalize": ("nfkc", "lowercase"), "min_line_chars": 8})
    prepared(config, tmp_path / "data", 1000)
    assert all_tokens(corpus_of(config).train) == all_tokens(open_dataset(tmp_path / "data").train)


def test_equal_tokens_have_equal_fingerprints(tmp_path: Path, texts: list[str]) -> None:
    for name in ("one", "two"):
        prepared(config_of(texts), tmp_path / name)
    assert open_dataset(tmp_path / "one").fingerprint == open_dataset(tmp_path / "two").fingerprint
    assert corpus_of(config_of(texts)).fingerprint == corpus_of(config_of(texts)).fingerprint
    assert corpus_of(config_of(texts)).fingerprint != corpus_of(config_of(texts, val_fraction=0.5)).fingerprint


def test_duplicates_are_not_looked_for_in_memory(texts: list[str]) -> None:
    with pytest.raises(UsageError, match=r"data\.deduplicate") as caught:
        corpus_of(config_of(texts).model_copy(update={"deduplicate": True}))
    assert "prepare-dataset --deduplicate" in caught.value.hint


def test_text_with_characters_unknown_to_the_model_is_refused_by_file(texts: list[str]) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl: .*does not hold"):
        corpus_of(config_of(texts, "char"), CharSpec(chars=("a", "b")))


def test_the_models_tokenizer_wins_over_the_settings(texts: list[str]) -> None:
    assert corpus_of(config_of(texts, "gpt2"), ByteSpec()).spec == ByteSpec()


def test_a_split_shorter_than_a_block_is_refused_with_a_block_size_that_fits(texts: list[str]) -> None:
    corpus = corpus_of(config_of([name for name in texts if name.endswith("one.txt")], val_fraction=0.01))
    corpus.require_blocks(len(corpus.val) - 1)
    with pytest.raises(DataError, match="validation split") as caught:
        corpus.require_blocks(len(corpus.val))
    assert f"--block-size {len(corpus.val) - 1}" in caught.value.hint
    with pytest.raises(DataError, match="training text"):
        corpus.require_blocks(len(corpus.train))


# The buffer that text is read into.


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
@settings(deadline=None)
@given(data=st.data(), lengths=st.lists(st.integers(1, 40), max_size=12), block_tokens=st.integers(1, 32))
def test_a_token_buffer_gives_back_what_was_appended(
    dtype: str, data: st.DataObject, lengths: list[int], block_tokens: int
) -> None:
    # Chunks end with a document each.
    total = sum(lengths)
    ids = np.arange(total, dtype=dtype)
    start = data.draw(st.integers(0, total))
    end = data.draw(st.integers(start, total))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mypt.core.data.memory._BLOCK_TOKENS", block_tokens)
        buffer = TokenBuffer(np.dtype(dtype))
        for last, length in zip(np.cumsum(lengths), lengths, strict=True):
            buffer.append(Chunk("train", ids[last - length : last], np.array([length]), b""))
        shards = buffer.shards(start, end)
        assert (buffer.tokens, buffer.documents) == (total, len(lengths))
    assert [one for shard in shards for one in shard.ids.tolist()] == ids[start:end].tolist()
    # Two (or four) bytes a token, and no block longer than its share.
    assert sum(shard.ids.nbytes for shard in shards) == ids[start:end].nbytes
    assert all(0 < shard.ids.size <= block_tokens for shard in shards)
    firsts = np.cumsum([start, *(shard.tokens for shard in shards)]).tolist()
    ends = [
        first + one
        for first, shard in zip(firsts, shards, strict=False)
        if shard.document_ends is not None
        for one in shard.document_ends.tolist()
    ]
    assert ends == [one for one in np.cumsum(lengths).tolist() if start < one <= end]


def test_text_in_memory_takes_two_bytes_a_token(texts: list[str]) -> None:
    for tokenization in TOKENIZATIONS:
        corpus = corpus_of(config_of(texts, tokenization))
        for stream in (corpus.train, corpus.val):
            assert sum(shard.ids.nbytes for shard in stream.shards if isinstance(shard, MemoryShard)) == 2 * len(stream)
