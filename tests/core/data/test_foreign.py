"""Shards of other programs are read as they are; each damage is one error that names the shard."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mypt.core.data.foreign import find_foreign
from mypt.core.data.importing import import_dataset
from mypt.core.data.opened import open_dataset, open_datasets
from mypt.core.data.report import report_dataset
from mypt.core.data.splits import Corpus
from mypt.core.tokens.base import decode
from mypt.core.tokens.build import build_tokenizer
from mypt.durable import sha256_of
from mypt.errors import DataError, MyptError, UsageError
from mypt.events import DatasetWritten, Event, ShardsChecked, Warned
from mypt.records.dataset import read_dataset_manifest
from mypt.records.tokenizer import ByteSpec, CharSpec, Gpt2Spec

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. " * 9
CHARS = "".join(sorted(set(TEXT)))


def gpt2_ids(text: str) -> NDArray[np.uint16]:
    return build_tokenizer(Gpt2Spec()).encode(text).astype("<u2")


def original(folder: Path) -> Path:
    """The original MyPT's: three shards of a character text, uint32 without headers."""
    ids = np.array([CHARS.index(char) for char in TEXT], dtype="<u4")
    for place, part in zip(
        ["train/shard_00000", "train/shard_00001", "val/shard_00002"], np.split(ids, [300, 600]), strict=True
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        part.tofile(folder / f"{place}.bin")
    state = {"token_kind": "char", "chars": list(CHARS)}
    (folder / "tokenizer_state.json").write_text(json.dumps(state), encoding="utf-8")
    metadata = {"total_tokens": ids.size, "total_shards": 3, "train_shards": 2, "val_shards": 1, "tokenization": "char"}
    (folder / "dataset_metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    return folder


def nanogpt(folder: Path) -> Path:
    """nanoGPT's: one headerless uint16 file per split."""
    folder.mkdir(parents=True, exist_ok=True)
    gpt2_ids(TEXT).tofile(folder / "train.bin")
    gpt2_ids("The hallway smelt of boiled cabbage. ").tofile(folder / "val.bin")
    return folder


def llmc_shard(path: Path, ids: NDArray[np.uint16 | np.uint32], magic: int = 20240520, version: int = 1) -> None:
    header = np.zeros(256, dtype="<i4")
    header[:3] = magic, version, ids.size
    path.write_bytes(header.tobytes() + ids.tobytes())


def llmc(folder: Path) -> Path:
    """llm.c's: 256 int32 of header before the ids."""
    folder.mkdir(parents=True, exist_ok=True)
    first, second = np.array_split(gpt2_ids(TEXT), 2)
    llmc_shard(folder / "text_train_000001.bin", first)
    llmc_shard(folder / "text_train_000002.bin", second)
    llmc_shard(folder / "text_val_000000.bin", gpt2_ids("The hallway smelt of boiled cabbage. "))
    return folder


WRITERS = [original, nanogpt, llmc]
Writer = Callable[[Path], Path]
Change = Callable[[bytes], bytes]


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.__name__)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param(tmp_path / "shards")


def opened(path: Path) -> tuple[list[Event], Corpus]:
    told, work = list[Event](), open_datasets([str(path)])
    while True:
        try:
            told.append(next(work))
        except StopIteration as end:
            return told, end.value


def told_text(corpus: Corpus) -> tuple[str, str]:
    def text(split: str) -> str:
        stream = corpus.train if split == "train" else corpus.val
        return decode(corpus.tokenizer, stream.gather(np.array([0]), len(stream))[0].tolist())

    return text("train"), text("val")


# Reading.


def test_the_text_comes_back(written: Path) -> None:
    told, corpus = opened(written)
    train, val = told_text(corpus)
    assert train in {TEXT, TEXT[:600]}
    assert val in {"The hallway smelt of boiled cabbage. ", TEXT[600:]}
    (warning,) = [event.message for event in told if isinstance(event, Warned)]
    assert f"mypt import-dataset {written}" in warning
    last = [event for event in told if isinstance(event, ShardsChecked)][-1]
    assert last.done_bytes == last.total_bytes == sum(path.stat().st_size for path in written.rglob("*.bin"))
    assert last.tokens == len(corpus.train) + len(corpus.val)


def test_the_fingerprint_stays_when_the_folder_moves_and_tells_other_tokens(written: Path, tmp_path: Path) -> None:
    before = opened(written)[1].fingerprint
    shutil.move(written, tmp_path / "moved")
    assert opened(tmp_path / "moved")[1].fingerprint == before
    nanogpt(tmp_path / "other")
    (tmp_path / "other/val.bin").unlink()
    assert opened(tmp_path / "other")[1].fingerprint != before


def test_one_file_is_a_training_split(tmp_path: Path) -> None:
    corpus = opened(nanogpt(tmp_path) / "train.bin")[1]
    assert told_text(corpus) == (TEXT, "")
    llmc(tmp_path)
    assert len(opened(tmp_path / "text_train_000001.bin")[1].train) < len(corpus.train)


def test_nothing_else_is_taken_for_shards(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no shards", encoding="utf-8")
    (tmp_path / "my_training.bin").write_bytes(b"\0" * 2048)
    assert find_foreign(tmp_path) is None
    assert find_foreign(tmp_path / "nowhere") is None
    with pytest.raises(DataError, match=r"no dataset\.json here"):
        opened(tmp_path)


# Importing.


def test_an_imported_dataset_is_the_same_text_and_stays_where_it_was(written: Path, tmp_path: Path) -> None:
    before = {path: sha256_of(path) for path in written.rglob("*") if path.is_file()}
    told = list(import_dataset(written, tmp_path / "data"))
    assert told_text(open_dataset(tmp_path / "data")) == told_text(opened(written)[1])
    assert {path: sha256_of(path) for path in written.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["dataset.json", "tokenizer.json"]
    manifest = read_dataset_manifest(tmp_path / "data")
    for shard in (*manifest.train, *manifest.val):
        assert shard.sha256 == before[Path(shard.path)]
        assert shard.documents is None
    assert manifest.split_by == "given"
    assert isinstance(told[-1], DatasetWritten)
    assert told[-1].train_tokens == manifest.tokens("train")
    assert report_dataset(tmp_path / "data").documents is None
    assert [event for event in opened(tmp_path / "data")[0] if isinstance(event, Warned)] == []


def test_imported_into_its_own_folder_it_can_move(written: Path, tmp_path: Path) -> None:
    list(import_dataset(written, written))
    text = told_text(open_dataset(written))
    shutil.move(written, tmp_path / "moved")
    assert told_text(open_dataset(tmp_path / "moved")) == text
    assert all(not Path(shard.path).is_absolute() for shard in read_dataset_manifest(tmp_path / "moved").train)


def test_a_folder_that_holds_a_dataset_is_never_touched(written: Path, tmp_path: Path) -> None:
    list(import_dataset(written, tmp_path / "data"))
    before = sha256_of(tmp_path / "data/dataset.json")
    with pytest.raises(DataError, match=r"already holds a dataset\.json"):
        list(import_dataset(written, tmp_path / "data"))
    assert sha256_of(tmp_path / "data/dataset.json") == before
    (tmp_path / "other").mkdir()
    ByteSpec().write(tmp_path / "other/tokenizer.json")
    with pytest.raises(DataError, match="another tokenizer; nothing was changed"):
        list(import_dataset(written, tmp_path / "other"))
    assert not (tmp_path / "other/dataset.json").exists()


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (tmp_path / "exploded",)  # pyrefly: ignore[bad-return]

    ids = np.frombuffer(TEXT.encode(), dtype=np.uint8).astype("<u2")
    ids.tofile(tmp_path / "train.bin")
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="do not say which tokenizer") as refused:
        opened(tmp_path)
    assert f"mypt import-dataset {tmp_path}" in refused.value.hint
    with pytest.raises(UsageError, match="do not say which tokenizer"):
        list(import_dataset(tmp_path, tmp_path))
    list(import_dataset(tmp_path, tmp_path, "byte"))
    assert told_text(open_dataset(tmp_path)) == (TEXT, "")
    assert not (tmp_path / "exploded").exists()


def test_shards_of_llama_3_need_a_tokenizer(tmp_path: Path) -> None:
    ids = np.frombuffer(TEXT.encode(), dtype=np.uint8).astype("<u4")
    llmc_shard(tmp_path / "text_train_0.bin", ids, magic=20240801, version=7)
    with pytest.raises(DataError, match=r"llm\.c do not say which tokenizer"):
        opened(tmp_path)
    list(import_dataset(tmp_path, tmp_path / "data", "byte"))
    assert told_text(open_dataset(tmp_path / "data")) == (TEXT, "")


@pytest.mark.parametrize(
    ("tokenization", "told"),
    [("byte", "name their tokenizer themselves"), ("no such", "no such"), ("char", "ids alone")],
)
def test_a_tokenization_that_cannot_be_is_refused(tmp_path: Path, tokenization: str, told: str) -> None:
    source = original(tmp_path / "a") if tokenization == "byte" else nanogpt(tmp_path / "b")
    with pytest.raises(MyptError, match=told):
        list(import_dataset(source, tmp_path / "data", tokenization))
    assert not (tmp_path / "data").exists()


# Damage.


def damaged(path: Path, change: Change) -> None:
    path.write_bytes(change(path.read_bytes()))


def cut(count: int) -> Change:
    return lambda raw: raw[:-count]


def put(place: int, new: bytes) -> Change:
    def change(raw: bytes) -> bytes:
        start = place % len(raw)
        return raw[:start] + new + raw[start + len(new) :]

    return change


DAMAGES: list[tuple[Writer, str, Change, str]] = [
    (nanogpt, "train.bin", cut(1), r"train\.bin: .* bytes are no whole number of uint16 ids"),
    (nanogpt, "train.bin", put(200, b"\xff\xff"), r"train\.bin: id 65,535 at token 100 is"),
    (nanogpt, "val.bin", put(-2, b"\xff\xff"), r"val\.bin: id 65,535 at token 8 is beyond"),
    (original, "val/shard_00002.bin", cut(2), r"shard_00002\.bin: .* no whole number of uint32 ids"),
    (original, "train/shard_00001.bin", cut(4), "total_tokens is 665 here, .* says 666"),
    (original, "train/shard_00000.bin", put(0, b"\x63"), r"shard_00000\.bin: id 99 at token 0 is beyond"),
    (llmc, "text_train_000002.bin", cut(2), r"train_000002\.bin: its header announces \d+ tokens"),
    (llmc, "text_train_000002.bin", lambda raw: raw + b"\0\0", r"train_000002\.bin: its header announces"),
    (llmc, "text_train_000002.bin", lambda raw: raw[:500], r"train_000002\.bin: its header \(magic 0\)"),
    (llmc, "text_val_000000.bin", put(0, b"\0"), r"val_000000\.bin: its header \(magic \d+\)"),
    (llmc, "text_train_000001.bin", put(4, b"\2"), r"train_000001\.bin: version 2 of"),
    (llmc, "text_train_000001.bin", put(8, b"\xff" * 4), r"train_000001\.bin: its header announces -1 tokens"),
    (llmc, "text_val_000000.bin", put(-2, b"\xff\xff"), r"val_000000\.bin: id 65,535 at token 8"),
]


@pytest.mark.parametrize(("writer", "shard", "change", "told"), DAMAGES)
def test_a_damaged_shard_is_named_before_training(
    tmp_path: Path, writer: Writer, shard: str, change: Change, told: str
) -> None:
    folder = writer(tmp_path / "shards")
    damaged(folder / shard, change)
    with pytest.raises(DataError, match=told):
        opened(folder)
    with pytest.raises(DataError, match=told):
        list(import_dataset(folder, tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_a_missing_shard_of_the_original_is_noticed(tmp_path: Path) -> None:
    (original(tmp_path) / "train/shard_00000.bin").unlink()
    with pytest.raises(DataError, match=r"train_shards is 1 here, .* says 2"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ('{"token_kind": "words"}', "unknown legacy tokenizer 'words'"),
        ("[]", "tokenizer_state"),
        (None, "tokenizer_state"),
    ],
)
def test_a_tokenizer_of_the_original_that_cannot_be_read_is_named(tmp_path: Path, state: str | None, told: str) -> None:
    path = original(tmp_path) / "tokenizer_state.json"
    path.unlink() if state is None else path.write_text(state, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        opened(tmp_path)


def test_an_imported_shard_that_changed_its_size_or_went_is_named(written: Path, tmp_path: Path) -> None:
    list(import_dataset(written, tmp_path / "data"))
    shard = max(written.rglob("*.bin"))
    damaged(shard, lambda raw: raw[:-2])
    with pytest.raises(DataError, match=rf"{shard.name}: this shard has .* bytes, the manifest says") as refused:
        open_dataset(tmp_path / "data")
    assert "import-dataset" in refused.value.hint
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard.name}: this shard is missing"):
        open_dataset(tmp_path / "data")


def test_shards_of_another_tokenizer_than_the_models_are_refused(written: Path) -> None:
    with pytest.raises(DataError, match="of another table than the model's 'char'"):
        list(open_datasets([str(written)], CharSpec(chars=("a", "b"))))
