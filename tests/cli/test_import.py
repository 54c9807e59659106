"""Datasets of every origin train from the command line, alone and mixed."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from mypt.durable import sha256_of
from mypt.records.dataset import DATASET_FILE, DatasetManifest, ShardInfo
from mypt.records.tokenizer import TOKENIZER_FILE, ByteSpec
from support import Mypt

SIZES = ("--set", "model.n_layer=2", "--n-head", 2, "--n-embd", 16, "--block-size", 16)
SIZES += ("--batch-size", 2, "--max-iters", 4, "--eval-iters", 2)


@pytest.fixture
def nanogpt(tmp_path: Path) -> Path:
    """A folder as nanoGPT writes it, of bytes."""
    folder = tmp_path / "nano"
    folder.mkdir()
    for name, text in (("train", b"the river finds the sea. " * 90), ("val", b"the sea keeps the river. " * 9)):
        np.frombuffer(text, dtype=np.uint8).astype("<u2").tofile(folder / f"{name}.bin")
    return folder


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_of_nanogpt_trains_as_it_is_and_imported(mypt: Mypt, nanogpt: Path) -> None:
    direct = mypt("train", "--dataset-dir", "nano", *SIZES)
    assert direct.returncode == 0, direct.stderr
    assert "shards of nanoGPT" in direct.stderr
    told = mypt("import-dataset", "nano", "--out-dir", "nano")
    assert told.returncode == 0, told.stderr
    assert "checked 4.8 KiB of shards" in told.stderr
    assert "Train on it:  mypt train --dataset-dir nano" in told.stderr
    assert "2,250 training + 225 validation (gpt2)" in mypt("inspect", "nano").stdout
    again = mypt("train", "--max-iters", "5")
    assert again.returncode == 0, again.stderr
    assert "shards of nanoGPT" not in again.stderr


def test_a_weighted_mixture_with_a_document_mask_trains(mypt: Mypt, nanogpt: Path, text_file: Path) -> None:
    for number, share in ((1, 0.2), (2, 0.3)):
        line = f"prepare-dataset {text_file} --out-dir d{number} --tokenization byte --val-fraction {share}"
        assert mypt(*line.split()).returncode == 0
    run = mypt("train", "--dataset-dir", "d1:0.7", "--dataset-dir", "d2:0.3", "--document-mask", *SIZES)
    assert run.returncode == 0, run.stderr
    assert "a mixture: d1 70.00%, d2 30.00% of the samples" in run.stderr
    again = mypt("train", "--max-iters", "6")
    assert again.returncode == 0, again.stderr
    assert "70.00%" in again.stderr


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("train --dataset-dir nano:0", 2, "0 is no weight"),
        ("import-dataset", 2, "the shards and --out-dir are needed"),
        ("import-dataset nano", 2, "the shards and --out-dir are needed"),
        ("import-dataset nowhere --out-dir data", 3, "nowhere: no shards of"),
        ("import-dataset nano --out-dir data --tokenization wrods", 2, "wrods"),
        ("import_dataset nano --out_dir nano/train.bin", 3, "already there, and no folder"),
    ],
)
def test_mistakes_are_one_message(mypt: Mypt, nanogpt: Path, line: str, code: int, told: str) -> None:
    run = mypt(*line.split())
    assert run.returncode == code, run.stderr
    assert told in run.stderr
    assert "Traceback" not in run.stderr


def test_ids_that_changed_since_the_import_are_named(mypt: Mypt, nanogpt: Path) -> None:
    imported = mypt("import-dataset", "nano", "--out-dir", "data", "--tokenization", "byte", "--json")
    assert imported.returncode == 0, imported.stderr
    assert [event["event"] for event in events(imported.stdout)] == ["shards_checked", "dataset_written"]
    shard = nanogpt / "train.bin"
    content = bytearray(shard.read_bytes())
    content[1::2] = b"\x80" * (len(content) // 2)
    shard.write_bytes(content)
    flipped = mypt("train", "--dataset-dir", "data", *SIZES)
    assert flipped.returncode == 3
    assert "beyond the tokenizer's 257 ids" in flipped.stderr


def test_500_million_tokens_train_at_once(mypt: Mypt, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    (folder / "train").mkdir(parents=True)
    with (folder / "train/0.bin").open("wb") as file:
        file.truncate(10**9)  # a hole: no disk is used
    ByteSpec().write(folder / TOKENIZER_FILE)
    DatasetManifest(
        mypt_version="0", tokenizer_sha256=sha256_of(folder / TOKENIZER_FILE), vocab_size=257, end_of_text_id=256,
        split_by="given", sources=(), val=(),
        train=(ShardInfo(path="train/0.bin", dtype="uint16", tokens=5 * 10**8),),
    ).sealed().write(folder / DATASET_FILE)  # fmt: skip
    started_s = time.monotonic()
    run = mypt("train", "--dataset-dir", "large", "--json", *SIZES)
    assert run.returncode == 0, run.stderr
    read = next(event for event in events(run.stdout) if "train_tokens" in event)  # others may tell of kernels
    assert read["train_tokens"] == 5 * 10**8
    assert time.monotonic() - started_s < 60  # reading all of it, let alone twice, is not part of a start
