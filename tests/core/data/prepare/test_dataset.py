"""A prepared dataset is the tokens of the text, whole and vouched for."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mypt.core.data.prepare.verb import prepare_dataset
from mypt.core.data.report import report_dataset
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.events import DatasetWritten, Noted, PreparationPlanned, ShardWritten, TextRead
from mypt.records.dataset import Split
from mypt.records.plan import PrepareConfig
from mypt.records.run import DataConfig
from mypt.records.tokenizer import ByteSpec, CharSpec, Gpt2Spec
from preparation import (
    COMPRESSIONS,
    SPLITS,
    careless_disk,
    ends_of,
    ids_of,
    prepared,
    read_texts,
    shards_of,
    small_units,
    texts_of,
    write_jsonl,
    write_parquet,
)
from support import tale

TOKENIZATIONS: tuple[str, ...] = ("gpt2", "char", "byte")
TEXTS = [f"Once upon a time, naïve ☕ token {n} met.\n\n of it" * (1 + n % 5) for n in range(60)] + ["𝄞"]


@pytest.fixture
def jsonl(tmp_path: Path) -> str:
    return str(write_jsonl(tmp_path / "texts.jsonl", TEXTS))


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> None:
    small_units(monkeypatch, 1000)
    careless_disk(monkeypatch)


def config_of(*files: str, tokenization: str = "byte", val_fraction: float = 0.2) -> DataConfig:
    return DataConfig(input_files=files, tokenization=tokenization, val_fraction=val_fraction)


def tokenizer_for(text: str, tokenization: str) -> Tokenizer:
    chars = tuple(sorted(set(text)))
    return build_tokenizer({"gpt2": Gpt2Spec(), "byte": ByteSpec(), "char": CharSpec(chars=chars)}[tokenization])


def direct_tokens(config: DataConfig) -> dict[Split, list[int]]:
    # Every document encoded in one go, in the plainest way there is.
    documents = read_texts([Path(name) for name in config.input_files], config.text())
    tokenizer = tokenizer_for("".join(text for text, _ in documents), config.tokenization)
    end: list[int] = [] if tokenizer.end_of_text_id is None else [tokenizer.end_of_text_id]
    tokens: dict[Split, list[int]] = {"train": [], "val": []}
    for text, side in documents:
        tokens[side] += tokenizer.encode(text).tolist() + end
    return tokens


# The tokens.


@pytest.mark.parametrize("tokens_per_shard", [5, 1000, 10**6])
@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
@pytest.mark.usefixtures("units")
def test_the_shards_joined_are_the_documents_encoded_at_once(
    tmp_path: Path, jsonl: str, tokenization: str, tokens_per_shard: int
) -> None:
    config = config_of(jsonl, tokenization=tokenization, val_fraction=0.5)
    write_jsonl(Path(jsonl), TEXTS if tokens_per_shard > 5 else TEXTS[:6])
    prepared(config, tmp_path / "data", tokens_per_shard)
    direct = direct_tokens(config)
    for split in SPLITS:
        assert ids_of(tmp_path / "data", split) == direct[split]
        *full, last = [len(shard) for shard in shards_of(tmp_path / "data", split)]
        assert full == [tokens_per_shard] * len(full)
        assert 0 < last <= tokens_per_shard


@pytest.mark.parametrize("tokens_per_shard", [7, 1000, 10**6])
@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
@pytest.mark.usefixtures("units")
def test_the_index_tells_where_each_document_ends(
    tmp_path: Path, jsonl: str, tokenization: str, tokens_per_shard: int
) -> None:
    texts = TEXTS if tokens_per_shard > 7 else TEXTS[:4]
    write_jsonl(Path(jsonl), texts)
    manifest = prepared(
        config_of(jsonl, tokenization=tokenization, val_fraction=0), tmp_path / "data", tokens_per_shard
    )
    tokenizer = tokenizer_for("".join(texts), tokenization)
    lengths = [tokenizer.encode(text).size + (tokenization != "char") for text in texts]
    assert ends_of(tmp_path / "data", "train") == np.cumsum(lengths).tolist()
    assert manifest.documents == manifest.counts.documents == len(texts)
    ids = np.array(ids_of(tmp_path / "data", "train"))
    if tokenizer.end_of_text_id is not None:
        ends = np.flatnonzero(ids == tokenizer.end_of_text_id) + 1
        assert ends.tolist() == ends_of(tmp_path / "data", "train")


@pytest.mark.parametrize("tokens_per_shard", [100, 10**6])
@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
@pytest.mark.usefixtures("units")
def test_a_file_over_many_units_has_the_tokens_of_the_whole(
    tmp_path: Path, text: str, tokenization: str, tokens_per_shard: int
) -> None:
    (tmp_path / "a.txt").write_text(text)
    prepared(config_of(str(tmp_path / "a.txt"), tokenization=tokenization, val_fraction=0.1), tmp_path / "data")
    train, val = (ids_of(tmp_path / "data", split) for split in SPLITS)
    tokenizer = tokenizer_for(text, tokenization)
    end: list[int] = [] if tokenizer.end_of_text_id is None else [tokenizer.end_of_text_id]
    assert train + val == tokenizer.encode(text).tolist() + end
    assert len(val) == int(0.1 * (len(train) + len(val)))
    assert (ends_of(tmp_path / "data", "train"), ends_of(tmp_path / "data", "val")) == ([], [len(val)])


@pytest.mark.usefixtures("units")
def test_a_document_that_ends_where_a_unit_begins_keeps_its_end(tmp_path: Path) -> None:
    # The last unit holds the end of the document and nothing else: its lines were all dropped.
    (tmp_path / "a.txt").write_text("a line that stays\n" * 60 + "no\n" * 500)
    (tmp_path / "b.txt").write_text("another text\n")
    config = DataConfig(
        input_files=(str(tmp_path / "a.txt"), str(tmp_path / "b.txt")),
        tokenization="char", val_fraction=0, min_line_chars=5,
    )  # fmt: skip
    for tokens_per_shard in (18 * 60, 100, 10**6):
        out_dir = tmp_path / f"data-{tokens_per_shard}"
        manifest = prepared(config, out_dir, tokens_per_shard)
        assert texts_of(out_dir, "train") == ["a line that stays\n" * 60, "another text\n"]
        assert manifest.documents == manifest.counts.documents == 2


def test_special_tokens_in_a_text_are_plain_text(tmp_path: Path) -> None:
    texts = ["before <|endoftext|> after", "<|endoftext|>"]
    for tokenization, end in (("gpt2", 50_256), ("byte", 256)):
        out_dir = tmp_path / tokenization
        prepared(
            config_of(str(write_jsonl(tmp_path / "a.jsonl", texts)), tokenization=tokenization, val_fraction=0), out_dir
        )
        assert ids_of(out_dir, "train").count(end) == 2
        assert [text.removesuffix("<|endoftext|>") for text in texts_of(out_dir, "train")] == [texts[0], ""]


def test_a_vocabulary_beyond_two_bytes_is_stored_in_four(tmp_path: Path) -> None:
    chars = [chr(point) for point in range(2**16 + 2048 + 10) if not 0xD800 <= point < 0xE000]
    (tmp_path / "a.txt").write_bytes("".join(chars).encode())
    manifest = prepared(config_of(str(tmp_path / "a.txt"), tokenization="char", val_fraction=0), tmp_path / "data")
    assert {shard.dtype for shard in manifest.train} == {"uint32"}
    assert ids_of(tmp_path / "data", "train") == list(range(len(chars)))


# What is said about them.


@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
@pytest.mark.usefixtures("units")
def test_the_manifest_tells_the_truth(tmp_path: Path, jsonl: str, tokenization: str) -> None:
    out_dir = tmp_path / "data"
    manifest = prepared(config_of(jsonl, tokenization=tokenization), out_dir, 500)
    for shard in (*manifest.train, *manifest.val):
        content = (out_dir / shard.path).read_bytes()
        index = (out_dir / shard.path).with_suffix(".idx").read_bytes()
        assert shard.dtype == "uint16"
        assert len(content) == shard.tokens * shard.item_bytes == shard.tokens * 2
        assert hashlib.sha256(content).hexdigest() == shard.sha256
        assert len(index) == 8 * (shard.documents or 0)
        assert hashlib.sha256(index).hexdigest() == shard.index_sha256
    assert hashlib.sha256((out_dir / "tokenizer.json").read_bytes()).hexdigest() == manifest.tokenizer_sha256
    assert [(source.path, source.size_bytes) for source in manifest.sources] == [(jsonl, Path(jsonl).stat().st_size)]
    assert manifest.counts.text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert manifest.split_by == "content"
    listed = {shard.path for shard in (*manifest.train, *manifest.val)}
    found = {path.relative_to(out_dir).as_posix() for path in out_dir.rglob("*") if path.is_file()}
    assert found == listed | {path.replace(".bin", ".idx") for path in listed} | {"tokenizer.json", "dataset.json"}


@pytest.mark.usefixtures("units")
def test_the_manifest_counts_what_cleaning_did(tmp_path: Path) -> None:
    texts = ["x\nlong enough\n", "y", "", "LONG  ENOUGH\n", "other words\n"]
    config = DataConfig(
        input_files=(str(write_jsonl(tmp_path / "a.jsonl", texts)),),
        tokenization="byte", val_fraction=0, normalize=("lowercase", "spaces"), min_line_chars=3, deduplicate=True,
    )  # fmt: skip
    manifest = prepared(config, tmp_path / "data")
    assert texts_of(tmp_path / "data", "train") == ["long enough\n", "other words\n"]
    counts = manifest.counts
    assert (counts.documents, counts.empty_documents) == (2, 2)
    assert (counts.duplicate_documents, counts.dropped_lines) == (1, 2)
    assert counts.text_bytes == len("long enough\nother words\n")
    assert manifest.text == config.text()


@pytest.mark.usefixtures("units")
def test_the_events_tell_every_shard_and_the_whole(tmp_path: Path, jsonl: str) -> None:
    options = PrepareConfig(tokens_per_shard=500, workers=1)
    events = list(prepare_dataset(config_of(jsonl), tmp_path / "data", options))
    shards = {event.path: event for event in events if isinstance(event, ShardWritten)}
    listed = {path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*.bin")}
    assert set(shards) == listed
    assert all((tmp_path / "data" / path).stat().st_size == event.size_bytes for path, event in shards.items())
    (planned,) = [event for event in events if isinstance(event, PreparationPlanned)]
    assert (planned.units, planned.finished_units, planned.workers) == (planned.units, 0, 1)
    assert planned.units > 5
    last = events[-1]
    assert isinstance(last, DatasetWritten)
    tokens = [len(ids_of(tmp_path / "data", split)) for split in SPLITS]
    assert [last.train_tokens, last.val_tokens] == tokens
    assert (last.documents, last.source_bytes, last.shards) == (61, Path(jsonl).stat().st_size, len(shards))
    progress = [event for event in events if isinstance(event, TextRead)]
    assert progress[-1].done_bytes == progress[-1].total_bytes == last.source_bytes
    assert progress[-1].tokens == sum(tokens)
    assert [event.done_bytes for event in progress] == sorted(event.done_bytes for event in progress)


def test_one_document_is_split_at_its_tail_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words " * 100)
    events = list(prepare_dataset(config_of(str(tmp_path / "a.txt")), tmp_path / "data", PrepareConfig(workers=1)))
    notes = [event.message for event in events if isinstance(event, Noted)]
    assert notes == ["one document: the last 20% of the tokens are held out for validation"]
    assert report_dataset(tmp_path / "data").manifest.split_by == "tail"


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.jsonl.xz", "a.jsonl.zst"])
def test_the_tokens_to_come_are_estimated_from_a_sample(tmp_path: Path, name: str) -> None:
    texts = [tale(200, seed=number) for number in range(120)]
    path = tmp_path / name
    if name.endswith("parquet"):
        write_parquet(path, texts)
    else:
        write_jsonl(path, texts)
        path.write_bytes(COMPRESSIONS["" if path.suffix == ".jsonl" else path.suffix](path.read_bytes()))
    events = list(prepare_dataset(config_of(str(path)), tmp_path / "data", PrepareConfig(workers=1)))
    (planned,) = [event for event in events if isinstance(event, PreparationPlanned)]
    written = events[-1]
    assert isinstance(written, DatasetWritten)
    assert planned.estimated_tokens == pytest.approx(written.train_tokens + written.val_tokens, rel=0.2)


def test_the_report_agrees_with_the_manifest(tmp_path: Path, jsonl: str) -> None:
    manifest = prepared(config_of(jsonl), tmp_path / "data")
    report = report_dataset(tmp_path / "data")
    assert report.manifest == manifest
    assert report.size_bytes == 2 * (report.train_tokens + report.val_tokens)
    text_bytes = sum(len(text.encode()) for text in TEXTS)
    assert report.bytes_per_token == pytest.approx(text_bytes / (report.train_tokens + report.val_tokens))
