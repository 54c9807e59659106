"""A dataset opens wherever it lies; what was damaged since it was made is refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mypt.core.data.opened import open_dataset
from mypt.core.data.stream import TokenStream
from mypt.errors import DataError
from mypt.records.dataset import DatasetManifest, Split, read_dataset_manifest
from mypt.records.run import DataConfig
from mypt.records.tokenizer import ByteSpec, CharSpec
from preparation import careless_disk, prepared, write_jsonl


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    careless_disk(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Several shards of both splits."""
    path = write_jsonl(tmp_path / "a.jsonl", [f"some words of document {number}" for number in range(40)])
    config = DataConfig(input_files=(str(path),), tokenization="char", val_fraction=0.4)
    prepared(config, tmp_path / "data", 300)
    return tmp_path / "data"


def manifest_of(data: Path) -> DatasetManifest:
    return read_dataset_manifest(data)


def all_tokens(stream: TokenStream) -> list[int]:
    return stream.gather(np.zeros(1, dtype=np.int64), len(stream))[0].tolist()


def test_a_moved_dataset_still_opens(tmp_path: Path, data: Path) -> None:
    before = all_tokens(open_dataset(data).train)
    shutil.move(data, tmp_path / "moved")
    assert all_tokens(open_dataset(tmp_path / "moved").train) == before


@pytest.mark.parametrize("change", [b"", b"more"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_shard_of_another_size_is_refused_by_name(data: Path, split: Split, change: bytes) -> None:
    shard = manifest_of(data).shards(split)[-1]
    content = (data / shard.path).read_bytes()
    (data / shard.path).write_bytes(content + change if change else content[:-1])
    with pytest.raises(DataError, match=f"{shard.path}: this shard has .* the manifest says {shard.tokens * 2:,}"):
        open_dataset(data)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_shard_is_refused_by_name(data: Path, split: Split) -> None:
    shard = manifest_of(data).shards(split)[0]
    (data / shard.path).unlink()
    with pytest.raises(DataError, match=f"{shard.path}: this shard is missing"):
        open_dataset(data)


def test_a_changed_tokenizer_is_refused(data: Path) -> None:
    record = json.loads((data / "tokenizer.json").read_text())
    (data / "tokenizer.json").write_text(json.dumps(record | {"chars": record["chars"][::-1]}))
    with pytest.raises(DataError, match=r"tokenizer\.json: changed since"):
        open_dataset(data)


@pytest.mark.parametrize("name", ["tokenizer.json", "dataset.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe\x00"])
def test_a_missing_or_broken_record_is_refused_by_name(data: Path, name: str, content: bytes | None) -> None:
    (data / name).unlink()
    if content is not None:
        (data / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        open_dataset(data)


@pytest.mark.parametrize(
    "changes", [{"split_by": "tail"}, {"vocab_size": 256}, {"val": []}, {"tokens_per_shard": 7}, {"checksum": ""}]
)
def test_a_changed_manifest_is_refused(data: Path, changes: dict[str, Any]) -> None:
    path = data / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DataError, match=r"dataset\.json: .*checksum"):
        open_dataset(data)


def test_a_dataset_of_another_tokenizer_than_the_models_is_refused(data: Path) -> None:
    with pytest.raises(DataError, match=r"'char'.*'byte'"):
        open_dataset(data, ByteSpec())
    with pytest.raises(DataError, match="'char'"):
        open_dataset(data, CharSpec(chars=("a", "b")))


def test_a_folder_without_a_name_is_no_dataset_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(), Path("/")):
        with pytest.raises(DataError, match=r"no dataset\.json here"):
            open_dataset(path)
