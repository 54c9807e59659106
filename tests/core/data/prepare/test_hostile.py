"""What may go wrong around a preparation is said in one message, and nobody's files are touched."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import clean_environment
from mypt.core.data.prepare.verb import prepare_dataset
from mypt.core.data.verify import verify_dataset
from mypt.errors import DataError, LockedError
from mypt.events import Event, PreparationPlanned, Verified
from mypt.records.plan import PrepareConfig
from mypt.records.run import DataConfig
from preparation import prepared, small_units

ONE = PrepareConfig(workers=1)
MYPT = [sys.executable, "-m", "mypt", "prepare-dataset"]


@pytest.fixture
def text(tmp_path: Path) -> DataConfig:
    path = tmp_path / "a.txt"
    path.write_text("words of a text, " * 500)
    return DataConfig(input_files=(str(path),), tokenization="byte")


@pytest.mark.parametrize("name", ["plan.json", "units/notes.md", "thesis.docx"])
def test_a_folder_of_somebody_else_is_refused_and_kept(tmp_path: Path, text: DataConfig, name: str) -> None:
    own = tmp_path / "data.partial" / name
    own.parent.mkdir(parents=True)
    own.write_text('{"my": "own"}')
    with pytest.raises(DataError, match=r"data\.partial: this folder is needed for the work"):
        list(prepare_dataset(text, tmp_path / "data", ONE))
    assert own.read_text() == '{"my": "own"}'


def test_a_dataset_with_a_stray_folder_beside_it_is_still_taken(tmp_path: Path, text: DataConfig) -> None:
    prepared(text, tmp_path / "data")
    (tmp_path / "data.partial").mkdir()
    other = tmp_path / "b.txt"
    other.write_text("another text")
    config = text.model_copy(update={"input_files": (str(other),)})
    with pytest.raises(DataError, match="already there and not empty"):
        list(prepare_dataset(config, tmp_path / "data", ONE))


def begun(events: Iterator[Event]) -> Iterator[Event]:
    # Go on until the work itself begins.
    for event in events:
        if isinstance(event, PreparationPlanned):
            break
    return events


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (PrepareConfig(workers=1), PrepareConfig(workers=1, fresh=True)),
        (PrepareConfig(workers=1, rank=0, world=2), PrepareConfig(workers=1)),
        (PrepareConfig(workers=1), PrepareConfig(workers=1, rank=1, world=2)),
        (PrepareConfig(workers=1, rank=1, world=2), PrepareConfig(workers=1, rank=1, world=2)),
    ],
)
def test_one_command_at_a_time(
    tmp_path: Path, text: DataConfig, first: PrepareConfig, second: PrepareConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mypt.core.data.prepare.locks._PATIENCE_S", 0.1)
    running = begun(prepare_dataset(text, tmp_path / "data", first))
    with pytest.raises(LockedError):
        list(prepare_dataset(text, tmp_path / "data", second))
    list(running)
    assert (tmp_path / "data/dataset.json").is_file() == (first.rank is None)


def test_ranks_work_side_by_side_and_a_killed_one_locks_nothing(tmp_path: Path, text: DataConfig) -> None:
    ranks = [begun(prepare_dataset(text, tmp_path / "data", ONE.model_copy(update=_rank(n)))) for n in range(2)]
    for events in ranks:
        list(events)
    (tmp_path / ".data.partial-7.lock").touch()
    list(prepare_dataset(text, tmp_path / "data", PrepareConfig(workers=1, finish=True)))
    assert not list(tmp_path.glob(".*"))


def _rank(number: int) -> dict[str, int]:
    return {"rank": number, "world": 2}


def test_finishing_with_other_options_than_the_ranks_had_is_refused(tmp_path: Path, text: DataConfig) -> None:
    list(prepare_dataset(text, tmp_path / "data", PrepareConfig(workers=1, rank=0, world=1)))
    other = text.model_copy(update={"val_fraction": 0.5})
    with pytest.raises(DataError, match="was begun with another val_fraction"):
        list(prepare_dataset(other, tmp_path / "data", PrepareConfig(workers=1, finish=True)))
    list(prepare_dataset(text, tmp_path / "data", PrepareConfig(workers=1, finish=True)))


def test_a_file_that_changes_while_it_is_read_is_named(
    tmp_path: Path, text: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_units(monkeypatch, 1000)
    running = begun(prepare_dataset(text, tmp_path / "data", ONE))
    (tmp_path / "a.txt").write_text("other words of it, " * 500)
    with pytest.raises(DataError, match=r"a\.txt: changed while it was read"):
        list(running)


def test_a_document_whose_last_unit_has_no_token_is_deduplicated_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last character lies across the border of the units.
    small_units(monkeypatch, 1000)
    for name in ("p.txt", "q.txt"):
        (tmp_path / name).write_text("x" * 999 + "é")
    config = DataConfig(input_files=(str(tmp_path / "*.txt"),), tokenization="char", deduplicate=True)
    manifest = prepared(config, tmp_path / "data")
    assert manifest.counts.documents == manifest.documents == 1
    last = list(verify_dataset(tmp_path / "data"))[-1]
    assert isinstance(last, Verified)
    assert not last.damaged


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_exit_3_wherever_the_work_is_done(tmp_path: Path, workers: int) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("words and words " * 300_000)
    command = [
        sys.executable,
        "-m",
        "mypt",
        "prepare-dataset",
        "a.txt",
        "b.txt",
        "--out-dir",
        "d",
        "--workers",
        workers,
    ]
    run = subprocess.run(
        ["bash", "-c", 'ulimit -f 1000; exec "$@"', "bash", *map(str, command), "--tokenization", "byte"],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 3, run.stderr
    assert "cannot write the dataset (File too large)" in run.stderr
    assert "bug" not in run.stderr


def test_invalid_text_on_standard_input_is_named_by_byte(tmp_path: Path) -> None:
    command = [*MYPT, "-", "--out-dir", "d", "--tokenization", "byte"]
    for data, words in ((b"abc \xff def", "not valid UTF-8 at byte 4"), (b"\xff\xfea\x00", "looks like UTF-16")):
        run = subprocess.run(
            command, cwd=tmp_path, env=clean_environment(), input=data, capture_output=True, check=False
        )
        assert run.returncode == 3
        assert words in run.stderr.decode()
        assert "standard input" in run.stderr.decode()


@pytest.mark.skipif(os.name == "nt", reason="names are always Unicode there")
def test_a_name_that_is_no_utf_8_is_shown_as_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.txt")).write_text("text")
    config = DataConfig(input_files=(str(folder),), tokenization="byte")
    with pytest.raises(DataError, match=r"bad\\xff\.txt': a file name that is not UTF-8"):
        list(prepare_dataset(config, tmp_path / "data", ONE))


def test_a_table_with_invalid_text_is_named(tmp_path: Path) -> None:
    column = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"bad\xff")])
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    config = DataConfig(input_files=(str(tmp_path / "a.parquet"),), tokenization="byte")
    with pytest.raises(DataError, match=r"a\.parquet: row group 0: cannot read it"):
        list(prepare_dataset(config, tmp_path / "data", ONE))
