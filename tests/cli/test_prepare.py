"""mypt prepare-dataset, as a user drives it."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from conftest import clean_environment
from mypt.core.tokens.build import build_tokenizer
from mypt.records.tokenizer import Gpt2Spec
from preparation import fingerprints, write_jsonl
from support import Mypt, tale


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


# Standard input.


def piped(folder: Path, data: bytes, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mypt", "prepare-dataset", "-", "--tokenization", "byte", *map(str, arguments)],
        cwd=folder, env=clean_environment(), input=data, capture_output=True, timeout=120, check=False,
    )  # fmt: skip


def test_standard_input_gives_the_dataset_of_a_file(mypt: Mypt, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [tale(3, seed=number) for number in range(50)])
    assert mypt("prepare-dataset", path, "--tokenization", "byte", "--out-dir", "file").returncode == 0
    run = piped(tmp_path, path.read_bytes(), "--text-format", "jsonl", "--out-dir", "pipe")
    assert run.returncode == 0, run.stderr
    assert fingerprints(tmp_path / "pipe") == fingerprints(tmp_path / "file")


def test_standard_input_may_be_one_document_or_be_separated(tmp_path: Path) -> None:
    for name, more, documents in (("one", (), 1), ("many", ("--document-separator", r"\n\n"), 129)):
        run = piped(tmp_path, tale(900).encode(), "--out-dir", name, *more)
        assert run.returncode == 0, run.stderr
        assert json.loads((tmp_path / name / "dataset.json").read_text())["counts"]["documents"] == documents


def test_standard_input_that_is_no_text_is_refused_with_its_place(tmp_path: Path) -> None:
    run = piped(tmp_path, b"fine \xff", "--out-dir", "data")
    assert run.returncode == 3
    assert b"standard input: not valid UTF-8 at byte 5 (0xff)" in run.stderr
    assert list(tmp_path.iterdir()) == []


# Many machines.


@pytest.mark.parametrize(
    "tasks",
    [
        [{"SLURM_ARRAY_TASK_ID": str(number)} for number in (0, 1)],
        [{"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_MIN": "5"} for number in (5, 6)],
        [{"JOB_COMPLETION_INDEX": str(number)} for number in (1, 0)],
    ],
)
def test_job_arrays_tell_the_rank(mypt: Mypt, tmp_path: Path, tasks: list[dict[str, str]]) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt.gz").write_bytes(gzip.compress(tale(50, seed=ord(name)).encode()))
    files = ["a.txt.gz", "b.txt.gz", "c.txt.gz", "--tokenization", "byte"]
    for env in tasks:
        run = mypt("prepare-dataset", *files, "--out-dir", "far", "--world", 2, env=env)
        assert run.returncode == 0, run.stderr
        assert "mypt prepare-dataset --out-dir far --finish" in run.stderr
    assert mypt("prepare-dataset", "--out-dir", "far", "--finish").returncode == 0
    assert mypt("prepare-dataset", *files, "--out-dir", "near").returncode == 0
    assert fingerprints(tmp_path / "far") == fingerprints(tmp_path / "near")


def test_a_rank_without_a_number_is_a_usage_error(mypt: Mypt, text_file: Path) -> None:
    refused = mypt("prepare-dataset", text_file, "--out-dir", "far", "--world", 2)
    assert refused.returncode == 2
    assert "--rank" in refused.stderr


# What goes wrong is one message.


def test_a_second_command_on_the_same_dataset_is_exit_75(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".data.partial.lock"):
        refused = mypt("prepare-dataset", text_file, "--out-dir", "data")
    assert refused.returncode == 75
    assert "another command is working on this dataset" in refused.stderr


MISTAKES = {
    "none.txt": (3, "none.txt: no such file"),
    "empty": (3, "empty: no text file in this folder"),
    "bad.jsonl": (3, "bad.jsonl: line 2: not valid JSON"),
    "field.jsonl": (3, "field.jsonl: line 1: no field 'text' (there: id, body)"),
    "cut.txt.gz": (3, "cut.txt.gz: cannot read it"),
    "no.parquet": (3, "no.parquet: cannot read it"),
    "hf://owner/name": (3, "hf://owner/name: needs the network"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_bad_input_is_one_message_and_leaves_nothing(mypt: Mypt, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    write_jsonl(tmp_path / "field.jsonl", ["a"], field="body")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(tale(900).encode())[:500])
    (tmp_path / "no.parquet").write_text("words")
    before = set(tmp_path.iterdir())
    refused = mypt("prepare-dataset", name, "--out-dir", "data")
    code, told = MISTAKES[name]
    assert refused.returncode == code, refused.stderr
    assert told in refused.stderr
    assert len(refused.stderr.strip().splitlines()) <= 2
    assert refused.stdout == ""
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--normalize", "nfd", "'nfc', 'nfkc', 'lowercase' or 'spaces'"),
        ("--text-format", "json", "jsonl"),
        ("--val-fraction", "1.5", "val_fraction"),
        ("--max-line-chars", "0", "max_line_chars"),
        ("--engine", "spark", "local, ray"),
        ("--tokens-per-shard", "0", "tokens_per_shard"),
        ("--workers", "-1", "workers"),
    ],
)
def test_a_value_that_cannot_be_meant_is_exit_2(
    mypt: Mypt, text_file: Path, option: str, value: str, told: str
) -> None:
    refused = mypt("prepare-dataset", text_file, "--out-dir", "data", option, value)
    assert refused.returncode == 2
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_switches_of_the_original_change_nothing(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    plain = ["prepare_dataset", "--input_files", "tale.txt", "--tokenization", "byte", "--out_dir"]
    assert mypt(*plain, "one").returncode == 0
    assert mypt(*plain, "two", "--no_normalize", "--no_filter", "--no_dedup").returncode == 0
    assert fingerprints(tmp_path / "one") == fingerprints(tmp_path / "two")
