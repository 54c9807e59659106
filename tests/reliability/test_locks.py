"""One training per model: the second is refused at once and told by whom; nobody who died is in the way."""

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from disks import in_child, start_child
from mypt.core.checkpoint.store import ModelDirectory
from mypt.errors import CheckpointError, LockedError
from support import Mypt, a_second

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are copied with fork")

RACES = 20
RACERS = 6


def owner_of(directory: ModelDirectory) -> Path:
    return directory.path.parent / ".model.lock-owner"


def refusal(directory: ModelDirectory) -> str:
    """What another process is told."""
    reader, writer = os.pipe()

    def contend() -> None:
        try:
            with directory.lock():
                os.write(writer, b"taken")
        except LockedError as problem:
            os.write(writer, problem.message.encode())

    assert in_child(contend) == 0
    os.close(writer)
    with os.fdopen(reader) as told:
        return told.read()


def me() -> str:
    return f"in use by process {os.getpid()} on {socket.gethostname()}"


def test_the_second_is_told_process_and_host_of_the_first(directory: ModelDirectory) -> None:
    with directory.lock():
        assert me() in refusal(directory)
    assert refusal(directory) == "taken"


def test_the_second_command_ends_at_once_and_loads_nothing_heavy(
    directory: ModelDirectory, text_file: Path, cold_mypt: Mypt
) -> None:
    import resource

    arguments = ("train", text_file, "--model-name", "model", "--checkpoint-dir", directory.path.parent)
    with directory.lock():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        refused = cold_mypt(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        watched = cold_mypt(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert refused.returncode == watched.returncode == 75
    assert me() in " ".join(refused.stderr.split())
    # Its own work: what the machine does beside is not its fault.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2 * a_second()
    loaded = set(re.findall(r"\| +([\w.]+)$", watched.stderr, flags=re.MULTILINE))
    assert "mypt.core.checkpoint.lock" in loaded
    assert not loaded & {"torch", "numpy", "tiktoken", "safetensors"}


def test_a_dry_run_needs_no_lock(directory: ModelDirectory, text_file: Path, mypt: Mypt) -> None:
    with directory.lock():
        shown = mypt(
            "train", text_file, "--dry-run", "--model-name", "model", "--checkpoint-dir", directory.path.parent
        )
    assert shown.returncode == 0, shown.stderr


def test_asking_early_takes_nothing_and_makes_nothing(directory: ModelDirectory) -> None:
    directory.require_unlocked()
    assert not directory.path.parent.exists()
    with directory.lock():
        told = in_child(directory.require_unlocked)
    assert told == 1
    directory.require_unlocked()
    with directory.lock():
        pass


def race(directory: ModelDirectory) -> tuple[list[int], list[str]]:
    """Several processes want the lock at one moment: the numbers of those who got it, what the others were told."""
    results, write_result = os.pipe()
    gate, open_gate = os.pipe()
    start_s = time.monotonic() + 0.05

    def run() -> None:
        os.close(open_gate)
        while time.monotonic() < start_s:
            pass
        try:
            with directory.lock():
                os.write(write_result, f"won {os.getpid()}\n".encode())
                os.read(gate, 1)  # until the others are through
        except LockedError as problem:
            os.write(write_result, f"{problem.message}\n".encode())

    racers = [start_child(run) for _ in range(RACERS)]
    os.close(write_result)
    with os.fdopen(results) as lines:
        told = [lines.readline().strip() for _ in racers]
    os.close(open_gate)
    os.close(gate)
    assert [os.waitpid(racer, 0)[1] for racer in racers] == [0] * RACERS
    return [int(line[4:]) for line in told if line.startswith("won")], [line for line in told if line[:3] != "won"]


def test_of_many_that_start_at_one_moment_exactly_one_wins_and_all_others_are_told_which(
    directory: ModelDirectory,
) -> None:
    for _ in range(RACES):
        winners, losers = race(directory)
        assert len(winners) == 1
        assert len(losers) == RACERS - 1
        assert all(f"in use by process {winners[0]} on " in line for line in losers), (winners, losers)


def held_by_a_child(directory: ModelDirectory) -> int:
    reader, writer = os.pipe()

    def hold() -> None:
        with directory.lock():
            os.write(writer, b"1")
            time.sleep(60)

    holder = start_child(hold)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    os.close(writer)
    return holder


def test_nobody_who_was_killed_is_in_the_way_or_named(directory: ModelDirectory) -> None:
    for _ in range(5):
        dead = held_by_a_child(directory)
        os.kill(dead, signal.SIGKILL)
        os.waitpid(dead, 0)
        assert owner_of(directory).exists()
        winners, losers = race(directory)
        assert len(winners) == 1
        assert all(f"in use by process {winners[0]} on " in line for line in losers), (dead, winners, losers)


@pytest.mark.parametrize("content", ["", "process", "process 99999999 on ", "\0\0\0", "naïve"])
def test_an_owners_file_that_says_nothing_is_not_believed(directory: ModelDirectory, content: str) -> None:
    with directory.lock():
        owner_of(directory).write_text(content, encoding="utf-8")
        assert "in use by another process" in refusal(directory)


def test_a_dead_owner_of_this_machine_is_not_believed(directory: ModelDirectory) -> None:
    dead = start_child(lambda: None)
    os.waitpid(dead, 0)
    with directory.lock():
        owner_of(directory).write_text(f"process {dead} on {socket.gethostname()}", encoding="utf-8")
        assert "in use by another process" in refusal(directory)


def test_an_owner_on_another_machine_is_believed(directory: ModelDirectory) -> None:
    with directory.lock():
        owner_of(directory).write_text("process 1 on elsewhere", encoding="utf-8")
        assert "in use by process 1 on elsewhere" in refusal(directory)


def test_where_no_file_can_be_made_the_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    directory = ModelDirectory(tmp_path / "file", "model")
    with pytest.raises(CheckpointError, match="file: cannot keep models here"), directory.lock():
        pass


def test_the_lock_leaves_no_word_of_its_owner(directory: ModelDirectory) -> None:
    with directory.lock():
        assert owner_of(directory).read_text(encoding="utf-8") in me()
    assert [path.name for path in directory.path.parent.iterdir()] == [".model.lock"]
