"""hf:// streams datasets; without a network it says so at once. Files made here go through the same loader."""

import socket
import time
from pathlib import Path

import pytest

from mypt.core.data.text.hub import open_hub_dataset
from mypt.core.data.text.sources import find_sources, with_parts
from mypt.errors import DataError
from mypt.records.text import TextConfig
from preparation import read_texts, write_jsonl, write_parquet

TEXTS = [f"streamed text {number}, naïve ☕\nwith lines" for number in range(30)]
TRAIN = TextConfig(val_fraction=0)


def streamed(address: str, config: TextConfig = TRAIN) -> list[str]:
    # hf:// names are no paths: Path would take one slash away.
    return [text for text, _ in read_texts([address], config)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_local_files_through_the_loader_give_their_texts(tmp_path: Path) -> None:
    lines = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    table = write_parquet(tmp_path / "a.parquet", TEXTS)
    assert streamed(f"hf://json?data_files={lines}") == streamed(f"hf://parquet?data_files={table}") == TEXTS


def test_each_shard_of_a_dataset_can_be_read_alone(tmp_path: Path) -> None:
    for number in range(3):
        write_jsonl(tmp_path / f"{number}.jsonl", TEXTS[10 * number : 10 * number + 10])
    address = f"hf://json?data_files={tmp_path}/*.jsonl"
    assert len(with_parts(find_sources([address])[0]).part_bytes) == 3
    assert streamed(address) == TEXTS


def test_a_missing_field_names_those_there_are(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS, field="body")
    with pytest.raises(DataError, match=r"no field 'text' \(there: id, body\)"):
        streamed(f"hf://json?data_files={path}")


def test_a_record_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\nbad\n')
    with pytest.raises(DataError, match=r"hf://json.*a\.jsonl: cannot read it"):
        streamed(f"hf://json?data_files={tmp_path}/a.jsonl")


@pytest.mark.parametrize("query", ["data_files=/nowhere/a.jsonl", "data_files={path}&split=other"])
def test_what_is_not_there_is_refused(tmp_path: Path, query: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    with pytest.raises(DataError, match=r"hf://json.*: cannot open it"):
        open_hub_dataset(f"hf://json?{query.format(path=path)}")


@pytest.mark.parametrize(("address", "word"), [("hf://", "cannot be meant"), ("hf://a/b?spilt=test", "spilt")])
def test_an_address_that_cannot_be_meant_is_refused(address: str, word: str) -> None:
    with pytest.raises(DataError, match=word) as caught:
        open_hub_dataset(address)
    assert "hf://roneneldan/TinyStories" in caught.value.hint


@pytest.mark.parametrize("name", ["MYPT_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_forbidden_network_is_not_tried(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("MYPT_OFFLINE", raising=False)
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(socket, "create_connection", None)
    with pytest.raises(DataError, match=rf"hf://owner/name: needs the network, which {name} forbids"):
        open_hub_dataset("hf://owner/name")


def test_without_a_network_the_error_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # A port of this machine where nobody listens.
    for name in ("MYPT_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr("mypt.core.data.text.hub._HUB", free.getsockname())
        started_s = time.monotonic()
        with pytest.raises(DataError, match="cannot be reached"):
            open_hub_dataset("hf://owner/name")
    assert time.monotonic() - started_s < 30
