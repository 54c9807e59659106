"""mypt prepare-dataset, as a user drives it."""

import json
from pathlib import Path

import numpy as np

from mypt.core.tokens.build import build_tokenizer
from mypt.records.tokenizer import Gpt2Spec
from support import Mypt


def test_shards_hold_the_text_and_nothing_else(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    run = mypt(
        "prepare_dataset",
        "--input_files",
        "tale.txt",
        "tale.txt",
        "--out_dir",
        "data/large",
        "--tokens_per_shard",
        "2000",
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    manifest = json.loads((tmp_path / "data/large/dataset.json").read_text())
    tokens = [
        np.fromfile(tmp_path / "data/large" / shard["path"], dtype="<u2")
        for shard in (*manifest["train"], *manifest["val"])
    ]
    tokenizer = build_tokenizer(Gpt2Spec())
    text = b"".join(tokenizer.decode_bytes(int(token_id)) for token_id in np.concatenate(tokens))
    assert text == text_file.read_bytes()
    assert all(len(shard) <= 2000 for shard in tokens)


def test_several_files_end_with_end_of_text(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("Another document, <|endoftext|> and all. " * 50, encoding="utf-8")
    run = mypt("prepare-dataset", "other.txt", "tale.txt", "--out-dir", "set", "--val-fraction", "0", "--json")
    assert run.returncode == 0, run.stderr
    events = [json.loads(line)["event"] for line in run.stdout.splitlines()]
    assert events[-1] == "dataset_written"
    ids = np.fromfile(tmp_path / "set/train/shard-00000.bin", dtype="<u2")
    ends = np.fromfile(tmp_path / "set/train/shard-00000.idx", dtype="<u8")
    assert np.flatnonzero(ids == 50_256).tolist() == (ends - 1).tolist()
    assert len(ends) == 2


def test_an_existing_dataset_is_not_touched(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    mypt("prepare-dataset", text_file, "--out-dir", "set")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    refused = mypt("prepare-dataset", text_file, "--out-dir", "set")
    assert refused.returncode == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")} == before


def test_missing_options_are_exit_2_with_an_example(mypt: Mypt, text_file: Path) -> None:
    refused = mypt("prepare-dataset", text_file)
    assert refused.returncode == 2
    assert "--out-dir" in refused.stderr


def test_a_damaged_shard_is_named_before_training(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    mypt("prepare-dataset", text_file, "--out-dir", "set")
    shard = tmp_path / "set/train/shard-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    refused = mypt("train", "--dataset-dir", "set", "--config-file", "tiny")
    assert refused.returncode == 3
    assert "shard-00000.bin" in refused.stderr
