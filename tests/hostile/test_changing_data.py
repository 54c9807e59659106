"""Data that changes under a running training is named, and never ends it without a word."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from conftest import clean_environment
from mypt.core.data.batches import Batches
from mypt.core.data.corpus import read_corpus
from mypt.core.data.files import OpenFiles
from mypt.core.data.opened import open_dataset, open_datasets
from mypt.core.data.splits import Corpus
from mypt.core.tokens.build import build_tokenizer
from mypt.errors import DataError
from mypt.events import Event
from mypt.records.run import DataConfig
from preparation import careless_disk, prepared, write_jsonl

SIZES = "--set model.n_layer=1 --n-head 1 --n-embd 8 --block-size 16 --batch-size 4 --eval-iters 1"


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six shards for training and some for validation, of bytes."""
    careless_disk(monkeypatch)
    path = write_jsonl(tmp_path / "a.jsonl", [f"document {number} about rivers. " * 9 for number in range(50)])
    config = DataConfig(input_files=(str(path),), tokenization="byte", val_fraction=0.2)
    prepared(config, tmp_path / "data", 2000)
    return tmp_path / "data"


def shards(dataset: Path) -> list[Path]:
    return sorted((dataset / "train").glob("*.bin"))


def read_all(corpus: Corpus) -> None:
    # Every file of both splits is opened.
    for stream in (corpus.train, corpus.val):
        stream.gather(np.zeros(1, dtype=np.int64), len(stream))


def error_of(work: Callable[[], None]) -> list[str]:
    try:
        work()
    except DataError as problem:
        return [problem.message]
    return []


# What may happen to a file behind its reader's back.


def rewritten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1].replace(b"r", b"R"))


def replaced(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)


def replaced_with_the_old_time(path: Path) -> None:
    status = path.stat()
    replaced(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncated(path: Path) -> None:
    os.truncate(path, 100)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES = [rewritten, replaced, replaced_with_the_old_time, truncated, grown, Path.unlink]


@pytest.mark.parametrize("has_read", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_shard_is_named_once_and_no_other(
    dataset: Path, change: Callable[[Path], None], has_read: bool
) -> None:
    corpus = open_dataset(dataset)
    if has_read:
        read_all(corpus)
    assert corpus.change_note() == ""
    victim = shards(dataset)[1]
    change(victim)
    # Not looked at before it is wanted: a dataset may have more shards than a save has time for.
    told: list[str] = [] if has_read else error_of(lambda: read_all(corpus))
    note = corpus.change_note()
    assert any(str(victim) in message for message in [*told, note])
    assert str(shards(dataset)[0]) not in note
    assert corpus.change_note() == ""


def test_a_shard_that_changed_while_it_was_closed_is_named_when_it_is_opened_again(tmp_path: Path) -> None:
    files = OpenFiles(limit=1)
    for name in "ab":
        (tmp_path / name).write_bytes(b"0123")
    into = np.empty(2, dtype="<u2")
    for name in "aba":
        files.read(tmp_path / name, 0, into)
    rewritten(tmp_path / "b")
    assert files.changed() == []
    files.read(tmp_path / "b", 0, into)
    assert files.changed() == [str(tmp_path / "b")]


def test_a_whole_dataset_that_is_made_again_is_one_short_note(dataset: Path) -> None:
    corpus = open_dataset(dataset)
    read_all(corpus)
    for path in shards(dataset):
        rewritten(path)
    note = corpus.change_note()
    assert note.count(".bin") == 3
    assert f"and {len(shards(dataset)) - 3} more" in note


def opened(directory: Path) -> Corpus:
    return _result(open_datasets([str(directory)]))


def _result(events: Iterator[Event]) -> Corpus:
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def nanogpt(folder: Path) -> Path:
    np.arange(4000, dtype="<u2").tofile(folder / "train.bin")
    return folder / "train.bin"


def llmc(folder: Path) -> Path:
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, 4000
    path = folder / "text_train_000000.bin"
    path.write_bytes(header.tobytes() + np.arange(4000, dtype="<u2").tobytes())
    return path


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("program", [nanogpt, llmc])
def test_a_changed_shard_of_another_program_is_named(
    tmp_path: Path, program: Callable[[Path], Path], change: Callable[[Path], None]
) -> None:
    path = program(tmp_path)
    corpus = opened(tmp_path)
    read_all(corpus)
    change(path)
    assert str(path) in corpus.change_note()


def test_a_list_of_documents_that_shrinks_is_named(dataset: Path) -> None:
    corpus = open_dataset(dataset)
    corpus.require_documents()
    batches = Batches(corpus.train, 16, seed=1, documents=True)
    batches.at(0, 8)
    for path in dataset.rglob("*.idx"):
        os.truncate(path, 0)
    assert ".idx" in corpus.change_note()
    with pytest.raises(DataError, match=r"\.idx: ends before byte"):
        batches.at(8, 8)


def test_a_shard_that_becomes_a_pipe_is_not_waited_for(dataset: Path) -> None:
    corpus = open_dataset(dataset)
    path = shards(dataset)[0]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=path.name):
        read_all(corpus)


def test_text_in_memory_does_not_care(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("words and words " * 100)
    corpus = _result(read_corpus(DataConfig(input_files=(str(path),), tokenization="byte")))
    path.unlink()
    read_all(corpus)
    assert corpus.change_note() == ""


# The real command.


@contextmanager
def training(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that has done some steps and would go on for very long; what it tells is in files."""
    command = f"-m mypt train --dataset-dir data --max-iters 10000000 --json {SIZES}"
    with (
        (folder / "stdout").open("wb") as stdout,
        (folder / "stderr").open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, *command.split(), "--log-interval", "10", "--eval-interval", "1000000"],
            cwd=folder, env=clean_environment(), stdout=stdout, stderr=stderr,
        ) as child,
    ):  # fmt: skip
        try:
            while '"event": "step"' not in (folder / "stdout").read_text():
                assert child.poll() is None, (folder / "stderr").read_text()
                time.sleep(0.02)
            yield child
        finally:
            child.kill()


def test_a_shard_that_is_cut_off_under_a_running_command_is_exit_3_by_name(dataset: Path, tmp_path: Path) -> None:
    with training(tmp_path) as child:
        for path in shards(dataset):
            os.truncate(path, 0)
        assert child.wait(60) == 3
    told = (tmp_path / "stderr").read_text()
    assert "became shorter while it was in use" in told
    assert any(f"data/train/{path.name}" in told for path in shards(dataset)), told
    assert "Traceback" not in told


# Which text a batch was.


@pytest.mark.parametrize("tokenization", ["byte", "char", "gpt2"])
def test_the_place_of_a_sample_in_memory_is_its_file(tmp_path: Path, tokenization: str) -> None:
    texts: dict[str, str] = {}
    for number in range(12):
        path = tmp_path / f"{number:02}.txt"
        texts[str(path)] = f"file {number} has a word, " * (3 + number * 7)
        path.write_text(texts[str(path)])
    config = DataConfig(input_files=(str(tmp_path),), tokenization=tokenization, val_fraction=0.3)
    corpus = _result(read_corpus(config))
    tokenizer = build_tokenizer(corpus.spec)
    for place in Batches(corpus.train, 5, seed=3).places(0, 300):
        own = tokenizer.encode(texts[place.name]).tolist()
        found = place.ids.tolist()
        # A window may reach into the next file; its beginning is of the file that is named.
        inside = own[place.offset : place.offset + 5]
        assert found[: len(inside)] == inside
        assert place.offset <= len(own)


def test_the_place_of_a_sample_in_a_dataset_is_its_shard(dataset: Path) -> None:
    batches = Batches(open_dataset(dataset).train, 16, seed=3)
    batch = batches.at(40, 200)
    places = batches.places(40, 200)
    assert len({place.name for place in places}) == len(shards(dataset))
    for place, inputs in zip(places, batch.inputs_BT, strict=True):
        assert np.array_equal(place.ids, inputs)
        shard = np.fromfile(place.name, dtype="<u2")[place.offset :][:16]
        assert np.array_equal(shard, inputs[: shard.size])


def test_places_can_be_asked_for_while_another_thread_reads_batches(dataset: Path) -> None:
    corpus = open_dataset(dataset)
    batches = Batches(corpus.train, 16, seed=3)
    calm = [batches.at(position, 4).inputs_BT for position in range(0, 4 * 2048, 997)]
    wrong: list[int] = []

    def read() -> None:
        for _ in range(20):
            for expected, position in zip(calm, range(0, 4 * 2048, 997), strict=True):
                if not np.array_equal(batches.at(position, 4).inputs_BT, expected):
                    wrong.append(position)

    thread = threading.Thread(target=read)
    thread.start()
    while thread.is_alive():
        for expected, position in zip(calm, range(0, 4 * 2048, 997), strict=True):
            assert np.array_equal(np.stack([place.ids for place in batches.places(position, 4)]), expected)
            corpus.change_note()
    thread.join()
    assert not wrong
