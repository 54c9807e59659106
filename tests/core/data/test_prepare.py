"""A prepared dataset is the tokens of the text, whole and vouched for, or it is not there."""

import gc
import hashlib
import json
import shutil
import warnings
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mypt.core.data.corpus import TokenBuffer, read_corpus
from mypt.core.data.opened import open_dataset
from mypt.core.data.prepare import prepare_dataset
from mypt.core.data.report import report_dataset
from mypt.core.data.splits import Corpus
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.core.tokens.build import build_tokenizer
from mypt.errors import DataError, MyptError, UsageError
from mypt.events import DatasetWritten, Event, ShardWritten, TextRead
from mypt.records.dataset import DatasetManifest, Split, read_dataset_manifest
from mypt.records.run import DataConfig
from mypt.records.tokenizer import ByteSpec, CharSpec, Gpt2Spec

TEXTS = {
    "one.txt": "Once upon a time, naïve ☕ tokens met.\n" * 5,
    "two.txt": "𝄞",
    "six.txt": "The end\n\n of it. " * 4,
}
SPLITS: tuple[Split, Split] = ("train", "val")
TOKENIZATIONS: tuple[str, ...] = ("gpt2", "char", "byte")


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    # Three text files, the second one of a single character; and an empty one.
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, text in {**TEXTS, "void.txt": ""}.items():
        (folder / name).write_bytes(text.encode())
    return [str(folder / name) for name in (*TEXTS, "void.txt")]


def config_of(texts: list[str], tokenization: str = "byte", val_fraction: float = 0.2) -> DataConfig:
    return DataConfig(input_files=tuple(texts), tokenization=tokenization, val_fraction=val_fraction)


def prepared(config: DataConfig, out_dir: Path, tokens_per_shard: int = 100) -> DatasetManifest:
    list(prepare_dataset(config, out_dir, tokens_per_shard))
    return read_dataset_manifest(out_dir)


def corpus_of(config: DataConfig, spec: Gpt2Spec | CharSpec | ByteSpec | None = None) -> Corpus:
    reading = read_corpus(config, spec)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return cast("Corpus", end.value)


def all_tokens(stream: TokenStream) -> list[int]:
    return stream.gather(np.zeros(1, dtype=np.int64), len(stream))[0].tolist() if len(stream) else []


def shard_tokens(out_dir: Path, manifest: DatasetManifest, split: Split) -> list[NDArray[np.uint16]]:
    return [np.fromfile(out_dir / shard.path, dtype="<u2") for shard in manifest.shards(split)]


def direct_tokens(texts: list[str], tokenization: str, val_fraction: float) -> dict[Split, list[int]]:
    # Both splits encoded in one go, in the plainest way there is.
    contents = [Path(path).read_text(encoding="utf-8") for path in texts]
    spec = {"gpt2": Gpt2Spec(), "byte": ByteSpec(), "char": CharSpec(chars=tuple(sorted(set("".join(contents)))))}
    tokenizer = build_tokenizer(spec[tokenization])
    end: list[int] = [] if tokenizer.end_of_text_id is None else [tokenizer.end_of_text_id]
    total = sum(len(content.encode()) for content in contents)
    left = total - int(total * val_fraction)
    tokens: dict[Split, list[int]] = {"train": [], "val": []}
    for content in contents:
        cut = 0
        while cut < len(content) and left > 0:
            left -= len(content[cut].encode())
            cut += 1
        parts: dict[Split, str] = {"train": content[:cut], "val": content[cut:]}
        for split, part in parts.items():
            ends_document = part and (split == "val" or cut == len(content))
            tokens[split] += tokenizer.encode(part).tolist() + (end if ends_document else [])
    return tokens


# What is written.


@pytest.mark.parametrize("tokens_per_shard", [5, 100, 10**6])
@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
def test_the_shards_joined_are_the_text_encoded_at_once(
    tmp_path: Path, texts: list[str], tokenization: str, tokens_per_shard: int
) -> None:
    manifest = prepared(config_of(texts, tokenization), tmp_path / "data", tokens_per_shard)
    direct = direct_tokens(texts, tokenization, 0.2)
    for split in SPLITS:
        shards = shard_tokens(tmp_path / "data", manifest, split)
        assert np.concatenate(shards).tolist() == direct[split]
        assert [len(shard) for shard in shards[:-1]] == [tokens_per_shard] * (len(shards) - 1)
        assert 0 < len(shards[-1]) <= tokens_per_shard


@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
def test_the_manifest_tells_the_truth(tmp_path: Path, texts: list[str], tokenization: str) -> None:
    out_dir = tmp_path / "data"
    manifest = prepared(config_of(texts, tokenization), out_dir)
    for shard in (*manifest.train, *manifest.val):
        content = (out_dir / shard.path).read_bytes()
        assert shard.dtype == "uint16"
        assert len(content) == shard.tokens * shard.item_bytes == shard.tokens * 2
        assert hashlib.sha256(content).hexdigest() == shard.sha256
    assert hashlib.sha256((out_dir / "tokenizer.json").read_bytes()).hexdigest() == manifest.tokenizer_sha256
    assert [(source.path, source.size_bytes) for source in manifest.sources] == [
        (path, Path(path).stat().st_size) for path in texts
    ]
    listed = {shard.path for shard in (*manifest.train, *manifest.val)}
    found = {path.relative_to(out_dir).as_posix() for path in out_dir.rglob("*") if path.is_file()}
    assert found == listed | {path.replace(".bin", ".idx") for path in listed} | {"tokenizer.json", "dataset.json"}


@pytest.mark.parametrize("tokens_per_shard", [1, 7, 100, 10**6])
@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
def test_the_index_tells_where_each_document_ends(tmp_path: Path, tokenization: str, tokens_per_shard: int) -> None:
    names = []
    for number, text in enumerate(["a" * 7, "b", "c" * 13, "d" * 7]):
        (tmp_path / f"{number}.txt").write_text(text)
        names.append(str(tmp_path / f"{number}.txt"))
    manifest = prepared(config_of(names, tokenization, 0.0), tmp_path / "data", tokens_per_shard)
    ends: list[int] = []
    before = 0
    for shard in manifest.train:
        index = np.fromfile((tmp_path / "data" / shard.path).with_suffix(".idx"), dtype="<u8")
        assert shard.documents == len(index)
        assert (index <= shard.tokens).all()
        ends += [before + int(end) for end in index]
        before += shard.tokens
    tokens = np.concatenate(shard_tokens(tmp_path / "data", manifest, "train"))
    specs = {"char": CharSpec(chars=tuple("abcd")), "gpt2": Gpt2Spec(), "byte": ByteSpec()}
    tokenizer = build_tokenizer(specs[tokenization])
    lengths = [tokenizer.encode(Path(name).read_text()).size + (tokenization != "char") for name in names]
    assert ends == np.cumsum(lengths).tolist()
    assert manifest.documents == 4
    if tokenizer.end_of_text_id is not None:
        assert (np.flatnonzero(tokens == tokenizer.end_of_text_id) + 1).tolist() == ends


def test_the_events_tell_every_shard_and_the_whole(tmp_path: Path, texts: list[str]) -> None:
    events = list(prepare_dataset(config_of(texts), tmp_path / "data", 100))
    manifest = read_dataset_manifest(tmp_path / "data")
    shards = {event.path: event for event in events if isinstance(event, ShardWritten)}
    assert set(shards) == {shard.path for shard in (*manifest.train, *manifest.val)}
    assert all((tmp_path / "data" / path).stat().st_size == event.size_bytes for path, event in shards.items())
    last = events[-1]
    assert isinstance(last, DatasetWritten)
    assert (last.train_tokens, last.val_tokens) == (manifest.tokens("train"), manifest.tokens("val"))
    assert (last.documents, last.source_bytes) == (3, sum(Path(path).stat().st_size for path in texts))
    progress = [event for event in events if isinstance(event, TextRead)]
    assert progress[-1].done_bytes == progress[-1].total_bytes == last.source_bytes
    assert progress[-1].tokens == last.train_tokens + last.val_tokens


def test_the_report_agrees_with_the_manifest(tmp_path: Path, texts: list[str]) -> None:
    manifest = prepared(config_of(texts), tmp_path / "data")
    report = report_dataset(tmp_path / "data")
    assert report.manifest == manifest
    assert report.size_bytes == 2 * (report.train_tokens + report.val_tokens)
    assert report.bytes_per_token == pytest.approx(report.source_bytes / (report.train_tokens + report.val_tokens))


def test_a_vocabulary_beyond_two_bytes_is_stored_in_four(tmp_path: Path) -> None:
    chars = [chr(point) for point in range(2**16 + 2048 + 10) if not 0xD800 <= point < 0xE000]
    path = tmp_path / "a.txt"
    path.write_bytes("".join(chars).encode())
    manifest = prepared(config_of([str(path)], "char", 0.0), tmp_path / "data", 10**6)
    assert {shard.dtype for shard in manifest.train} == {"uint32"}
    assert np.fromfile(tmp_path / "data" / manifest.train[0].path, dtype="<u4").tolist() == list(range(len(chars)))
    assert all_tokens(open_dataset(tmp_path / "data").train) == list(range(len(chars)))


@pytest.mark.parametrize("val_fraction", [0.0, 0.2])
@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
def test_a_dataset_and_text_in_memory_give_the_same_tokens(
    tmp_path: Path, texts: list[str], tokenization: str, val_fraction: float
) -> None:
    config = config_of(texts, tokenization, val_fraction)
    prepared(config, tmp_path / "data", 64)
    memory, dataset = corpus_of(config), corpus_of(DataConfig(dataset_dir=str(tmp_path / "data")))
    assert memory.tokenizer.spec == dataset.tokenizer.spec
    assert len(memory.train) > 0
    assert (len(memory.val) > 0) == (val_fraction > 0)
    for one, other in ((memory.train, dataset.train), (memory.val, dataset.val)):
        assert all_tokens(one) == all_tokens(other)


def test_the_same_text_prepared_twice_has_the_same_fingerprint(tmp_path: Path, texts: list[str]) -> None:
    for name in ("one", "two"):
        prepared(config_of(texts), tmp_path / name)
    assert open_dataset(tmp_path / "one").fingerprint == open_dataset(tmp_path / "two").fingerprint
    assert corpus_of(config_of(texts)).fingerprint == corpus_of(config_of(texts)).fingerprint
    assert corpus_of(config_of(texts)).fingerprint != corpus_of(config_of(texts, val_fraction=0.3)).fingerprint


def test_a_moved_dataset_still_opens(tmp_path: Path, texts: list[str]) -> None:
    prepared(config_of(texts), tmp_path / "data")
    before = all_tokens(open_dataset(tmp_path / "data").train)
    shutil.move(tmp_path / "data", tmp_path / "moved")
    assert all_tokens(open_dataset(tmp_path / "moved").train) == before


# What is refused before anything is written.


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("content", ["a file", "a folder with something in it"])
def test_a_taken_name_is_refused_and_nothing_changes(tmp_path: Path, texts: list[str], content: str) -> None:
    out_dir = tmp_path / "data"
    if content == "a file":
        out_dir.write_text(content)
    else:
        out_dir.mkdir()
        (out_dir / "mine.txt").write_text(content)
    before = listing(tmp_path)
    with pytest.raises(DataError, match="nothing was changed"):
        list(prepare_dataset(config_of(texts), out_dir, 100))
    assert listing(tmp_path) == before


def test_an_empty_folder_is_a_free_name(tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / "data").mkdir()
    assert prepared(config_of(texts), tmp_path / "data").documents == 3


def test_the_folder_one_stands_in_is_written_or_refused(
    tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    try:
        list(prepare_dataset(config_of(texts), Path(), 100))
    except MyptError:
        assert list((tmp_path / "data").iterdir()) == []
    else:
        assert read_dataset_manifest(tmp_path / "data").documents == 3


def test_a_folder_of_someone_else_beside_the_dataset_is_kept(tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / "data.partial").mkdir()
    (tmp_path / "data.partial" / "mine.txt").write_text("mine")
    with suppress(DataError):
        list(prepare_dataset(config_of(texts), tmp_path / "data", 100))
    assert (tmp_path / "data.partial" / "mine.txt").exists()


def test_text_without_a_token_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "void.txt").write_text("")
    for tokenization in TOKENIZATIONS:
        with pytest.raises(DataError, match="empty"):
            list(prepare_dataset(config_of([str(tmp_path / "void.txt")], tokenization), tmp_path / "data", 100))
    assert [path.name for path in tmp_path.iterdir()] == ["void.txt"]


# What is interrupted.


def begun(config: DataConfig, out_dir: Path) -> Generator[Event]:
    # A preparation that has written its first shard.
    preparing = prepare_dataset(config, out_dir, 10)
    assert isinstance(preparing, Generator)
    assert any(isinstance(event, ShardWritten) for event in preparing)
    assert not out_dir.exists()
    return preparing


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path, texts: list[str]) -> None:
    before = listing(tmp_path)
    preparing = begun(config_of(texts), tmp_path / "data")
    assert listing(tmp_path) != before
    preparing.close()
    assert listing(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]


def test_broken_text_leaves_nothing(tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / "texts" / "two.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"two\.txt: not valid UTF-8 at byte 0"):
        list(prepare_dataset(config_of(texts), tmp_path / "data", 10))
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]


def test_an_interrupted_preparation_leaves_no_file_open(tmp_path: Path, texts: list[str]) -> None:
    # An open file cannot be removed everywhere.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        preparing = begun(config_of(texts), tmp_path / "data")
        preparing.close()
        del preparing
        gc.collect()
    assert [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)] == []


def test_an_interrupted_preparation_can_be_started_again(tmp_path: Path, texts: list[str]) -> None:
    begun(config_of(texts), tmp_path / "data").close()
    assert prepared(config_of(texts), tmp_path / "data").documents == 3


# What is damaged.


def damaged_manifest(out_dir: Path, **changes: Any) -> None:
    path = out_dir / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("change", [b"", b"more"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_shard_of_another_size_is_refused_by_name(
    tmp_path: Path, texts: list[str], split: Split, change: bytes
) -> None:
    shard = prepared(config_of(texts), tmp_path / "data").shards(split)[-1]
    path = tmp_path / "data" / shard.path
    path.write_bytes(path.read_bytes() + change if change else path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{shard.path}: this shard has .* the manifest says {shard.tokens * 2:,}"):
        open_dataset(tmp_path / "data")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_shard_is_refused_by_name(tmp_path: Path, texts: list[str], split: Split) -> None:
    shard = prepared(config_of(texts), tmp_path / "data").shards(split)[0]
    (tmp_path / "data" / shard.path).unlink()
    with pytest.raises(DataError, match=f"{shard.path}: this shard is missing"):
        open_dataset(tmp_path / "data")


def test_a_changed_tokenizer_is_refused(tmp_path: Path, texts: list[str]) -> None:
    prepared(config_of(texts, "char"), tmp_path / "data")
    path = tmp_path / "data" / "tokenizer.json"
    chars = json.loads(path.read_text())["chars"]
    path.write_text(json.dumps({"kind": "char", "chars": chars[::-1]}))
    with pytest.raises(DataError, match=r"tokenizer\.json: changed since"):
        open_dataset(tmp_path / "data")


@pytest.mark.parametrize("name", ["tokenizer.json", "dataset.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe\x00"])
def test_a_missing_or_broken_record_is_refused_by_name(
    tmp_path: Path, texts: list[str], name: str, content: bytes | None
) -> None:
    prepared(config_of(texts), tmp_path / "data")
    (tmp_path / "data" / name).unlink()
    if content is not None:
        (tmp_path / "data" / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        open_dataset(tmp_path / "data")


@pytest.mark.parametrize("changes", [{"val_fraction": 0.3}, {"vocab_size": 256}, {"val": []}, {"checksum": ""}])
def test_a_changed_manifest_is_refused(tmp_path: Path, texts: list[str], changes: dict[str, Any]) -> None:
    prepared(config_of(texts), tmp_path / "data")
    damaged_manifest(tmp_path / "data", **changes)
    with pytest.raises(DataError, match=r"dataset\.json: .*checksum"):
        open_dataset(tmp_path / "data")


def test_a_dataset_of_another_tokenizer_than_the_models_is_refused(tmp_path: Path, texts: list[str]) -> None:
    prepared(config_of(texts, "char"), tmp_path / "data")
    with pytest.raises(DataError, match=r"'char'.*'byte'"):
        open_dataset(tmp_path / "data", ByteSpec())
    with pytest.raises(DataError, match="'char'"):
        open_dataset(tmp_path / "data", CharSpec(chars=("a", "b")))


# Text in memory.


def test_without_a_source_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no text"):
        corpus_of(DataConfig())


def test_text_with_characters_unknown_to_the_model_is_refused_by_file(texts: list[str]) -> None:
    with pytest.raises(DataError, match=r"one\.txt: .*does not hold"):
        corpus_of(config_of(texts, "char"), CharSpec(chars=("a", "b")))


def test_the_models_tokenizer_wins_over_the_settings(texts: list[str]) -> None:
    assert corpus_of(config_of(texts, "gpt2"), ByteSpec()).tokenizer.spec == ByteSpec()


def test_a_split_shorter_than_a_block_is_refused_with_a_block_size_that_fits(texts: list[str]) -> None:
    corpus = corpus_of(config_of(texts, val_fraction=0.01))
    corpus.require_blocks(len(corpus.val) - 1)
    with pytest.raises(DataError, match="validation split") as caught:
        corpus.require_blocks(len(corpus.val))
    assert f"--block-size {len(corpus.val) - 1}" in caught.value.hint
    with pytest.raises(DataError, match="training text"):
        corpus.require_blocks(len(corpus.train))


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 40), max_size=12), block_tokens=st.integers(1, 32))
def test_a_token_buffer_gives_back_what_was_appended(dtype: str, lengths: list[int], block_tokens: int) -> None:
    ids = np.arange(sum(lengths), dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mypt.core.data.corpus._PIECE_TOKENS", block_tokens)
        buffer = TokenBuffer(np.dtype(dtype))
        for end, length in zip(np.cumsum(lengths), lengths, strict=True):
            buffer.append(ids[end - length : end])
        blocks = buffer.blocks()
    assert np.concatenate(blocks).tolist() == ids.tolist()
    # Two (or four) bytes a token, and nothing beside: no block longer than its share.
    assert sum(block.nbytes for block in blocks) == ids.nbytes
    assert max(block.size for block in blocks) <= block_tokens


def test_text_in_memory_takes_two_bytes_a_token(texts: list[str]) -> None:
    for tokenization in TOKENIZATIONS:
        corpus = corpus_of(config_of(texts, tokenization))
        for stream in (corpus.train, corpus.val):
            assert sum(shard.ids.nbytes for shard in stream.shards if isinstance(shard, MemoryShard)) == 2 * len(stream)
