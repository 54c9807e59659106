"""Whoever is killed, and whenever: the same command again gives the same bytes, and does nothing twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from conftest import clean_environment
from mypt.core.data.prepare.verb import prepare_dataset
from mypt.errors import DataError
from mypt.events import Event, TextRead, Warned
from mypt.records.plan import PrepareConfig
from mypt.records.run import DataConfig
from preparation import fingerprints, prepared, write_jsonl
from support import tale

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")

SHARD_TOKENS = 4_000_000
ARGUMENTS = ("texts.jsonl", "--out-dir", "data", "--tokenization", "byte", "--deduplicate", "--workers", "2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six units: documents of all lengths, many of them twice."""
    texts = [tale(100, seed=seed) * (seed % 9) for seed in range(200)] + [tale(60_000)]
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "texts.jsonl", texts * 8)


@pytest.fixture(scope="module")
def truth(corpus: Path) -> dict[str, str]:
    """The dataset that one process makes without being disturbed."""
    prepared(config_of(corpus), corpus.parent / "truth", SHARD_TOKENS)
    return fingerprints(corpus.parent / "truth")


def config_of(corpus: Path) -> DataConfig:
    return DataConfig(input_files=(str(corpus),), tokenization="byte", deduplicate=True)


@pytest.fixture
def folder(tmp_path: Path, corpus: Path) -> Path:
    (tmp_path / "texts.jsonl").hardlink_to(corpus)
    return tmp_path


# Processes, without a library: /proc tells children and states.


def workers_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [child for child in children if is_worker(child)]


def is_worker(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return b"mypt.core.data.prepare.worker" in command and state != "Z"


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mypt", "prepare-dataset", *ARGUMENTS, "--tokens-per-shard", str(SHARD_TOKENS)],
        cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        start_new_session=True,
    )  # fmt: skip


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + 60
    while not reached() and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.002)


def require_gone(workers: list[int]) -> None:
    deadline_s = time.monotonic() + 20
    while any(map(is_worker, workers)) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not any(map(is_worker, workers)), "orphans"


def finished(folder: Path) -> dict[str, int]:
    """What is finished, with the time at which it was; files of it may be used up later."""
    partial = folder / "data.partial"
    units = [path for path in partial.glob("units/*") if path.name.count(".") in {1, 2} and path.suffix != ".tmp"]
    units = [path for path in units if (partial / "units" / f"{path.name.split('.')[0]}.json").exists()]
    shards = list(partial.glob("shards/*.json"))
    found: dict[str, int] = {}
    for path in [*units, *shards]:
        try:
            found[path.name] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return found


def require_untouched(before: dict[str, int], after: dict[str, int]) -> None:
    assert {name: after[name] for name in before if name in after} == {
        name: time_ns for name, time_ns in before.items() if name in after
    }


def count(folder: Path, pattern: str) -> int:
    return len(list((folder / "data.partial").glob(pattern)))


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "the plan": lambda folder: count(folder, "plan.json") > 0,
    "the tokenizer": lambda folder: count(folder, "encoder") > 0,
    "the first unit": lambda folder: count(folder, "units/*.json") >= 1,
    "half of the units": lambda folder: count(folder, "units/*.json") >= 3,
    "the layout": lambda folder: count(folder, "layout.json") > 0,
    "the first shard": lambda folder: count(folder, "shards/*.json") >= 1,
    "more shards": lambda folder: count(folder, "shards/*.json") >= 3,
    "the manifest": lambda folder: count(folder, "dataset/dataset.json") > 0,
    "the name": lambda folder: (folder / "data").exists(),
}


@pytest.mark.long
def test_a_command_killed_again_and_again_ends_with_the_same_bytes(folder: Path, truth: dict[str, str]) -> None:
    before: dict[str, int] = {}
    for reached in MOMENTS.values():
        process = start(folder)
        wait_until(lambda reached=reached: reached(folder), process)
        workers = workers_of(process.pid) if process.poll() is None else []
        process.kill()
        process.communicate()
        require_gone(workers)
        after = finished(folder)
        require_untouched(before, after)
        before = after
    if not (folder / "data").exists() or (folder / "data.partial").exists():
        last = start(folder)
        _, told = last.communicate(timeout=60)
        assert last.returncode == 0, told
    assert fingerprints(folder / "data") == truth
    assert {path.name for path in folder.iterdir()} == {"texts.jsonl", "data"}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_processes_gives_the_same_bytes(
    folder: Path, corpus: Path, truth: dict[str, str], workers: int
) -> None:
    prepared(config_of(corpus), folder / "data", SHARD_TOKENS, workers)
    assert fingerprints(folder / "data") == truth
    assert {path.name for path in folder.iterdir()} == {"texts.jsonl", "data"}


def preparing(corpus: Path, folder: Path) -> Iterator[Event]:
    return prepare_dataset(config_of(corpus), folder / "data", PrepareConfig(tokens_per_shard=SHARD_TOKENS, workers=2))


def test_killed_workers_are_replaced_and_their_work_is_done_again(
    folder: Path, corpus: Path, truth: dict[str, str]
) -> None:
    warnings: list[str] = []
    killed = 0
    for number, event in enumerate(preparing(corpus, folder)):
        warnings += [event.message] if isinstance(event, Warned) else []
        workers = workers_of(os.getpid())
        if workers and killed < 4 and number % 3 == 0:
            os.kill(workers[number % len(workers)], signal.SIGKILL)
            killed += 1
    assert killed >= 2
    assert warnings
    assert set(warnings) == {"a worker died (signal 9); another one does its work again"}
    assert fingerprints(folder / "data") == truth
    assert {path.name for path in folder.iterdir()} == {"texts.jsonl", "data"}


def test_work_that_kills_every_worker_is_given_up_and_kept_for_later(
    folder: Path, corpus: Path, truth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # No worker gets past its first line.
    monkeypatch.setenv("PYTHONPATH", str(folder))
    (folder / "sitecustomize.py").write_text("import os; os.kill(os.getpid(), 9)\n")
    with pytest.raises(
        DataError, match=r"a worker died 3 times at the same work, unit \d \(last: signal 9\)"
    ) as caught:
        list(preparing(corpus, folder))
    assert "--workers" in caught.value.hint
    require_gone(workers_of(os.getpid()))
    (folder / "sitecustomize.py").unlink()
    prepared(config_of(corpus), folder / "data", SHARD_TOKENS, 2)
    assert fingerprints(folder / "data") == truth


def test_putting_the_work_down_ends_the_workers(folder: Path, corpus: Path, truth: dict[str, str]) -> None:
    events = preparing(corpus, folder)
    assert isinstance(events, Generator)
    assert any(isinstance(event, TextRead) for event in events)
    workers = workers_of(os.getpid())
    assert len(workers) == 2
    events.close()
    require_gone(workers)
    list(preparing(corpus, folder))
    assert fingerprints(folder / "data") == truth


# Signals that ask.


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("the tokenizer", signal.SIGINT, 130),
        ("the first unit", signal.SIGTERM, 143),
        ("the first shard", signal.SIGINT, 130),
    ],
)
def test_a_stopped_command_says_how_it_goes_on(
    folder: Path, truth: dict[str, str], moment: str, number: int, code: int
) -> None:
    process = start(folder)
    wait_until(lambda: MOMENTS[moment](folder), process)
    workers = workers_of(process.pid)
    # A terminal tells the whole group; a system that shuts down tells the parent.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == code, told
    assert "Stopped." in told
    assert f"mypt prepare-dataset {' '.join(ARGUMENTS)}" in told
    assert "Traceback" not in told
    require_gone(workers)
    again = start(folder)
    _, told = again.communicate(timeout=60)
    assert again.returncode == 0, told
    assert fingerprints(folder / "data") == truth
