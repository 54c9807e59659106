"""Where a command runs: without a home, a terminal, open streams, room, or a folder to stand in.

The work is done, or one message says why not.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.events import Finished, StepDone
from mypt.records.run import RunConfig

TRAIN = (
    "train text.txt --model-name new --config-file tiny --tokenization char --max-iters 1 --eval-iters 1 --n-layer 1"
)
TRAIN += " --n-embd 16 --block-size 16 --batch-size 2"
COMMANDS = {
    "train": TRAIN,
    "generate": "generate model --max-new-tokens 3",
    "inspect": "inspect model",
    "configs": "configs",
    "prepare-dataset": "prepare-dataset text.txt --out-dir prepared --tokenization byte --workers 1",
}
NOTHING = {"HOME": None, "LANG": None, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
NOTHING |= {"PYTHONCOERCECLOCALE": "0", "TERM": None, "COLUMNS": "0", "TMPDIR": "/nonexistent/tmp", "PATH": None}
PLACES: dict[str, dict[str, str | None]] = {
    "a home that is not there": {"HOME": "/nonexistent/home", "XDG_CACHE_HOME": None},
    "dumb terminal, one column": {"LANG": None, "LC_ALL": None, "TERM": "dumb", "COLUMNS": "1"},
    "sizes that are words": {"COLUMNS": "wide", "LINES": "-1"},
}
# These wake no torch, and so are quick to start.
LIGHT = ("inspect", "configs", "prepare-dataset")


@pytest.fixture
def house(tmp_path: Path, tiny_run: RunConfig) -> Path:
    """A folder with a text and a trained model."""
    (tmp_path / "text.txt").write_text("Words — naïve words, and more of them. " * 40, encoding="utf-8")
    short = tiny_run.training.model_copy(update={"max_iters": 1, "eval_iters": 1})
    for _ in train(tiny_run.model_copy(update={"training": short}), ModelDirectory(tmp_path / "checkpoints", "model")):
        pass
    return tmp_path


def start(
    house: Path,
    line: str,
    *,
    env: dict[str, str | None] | None = None,
    shell: str = "",
    before: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a line in the house; `shell` is added behind it, such as '>&-'."""
    wanted = dict(os.environ) | {
        "PYTHONUNBUFFERED": "",
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "MYPT_OFFLINE": "1",
        "MYPT_DEVICE": "cpu",
    }
    for name, value in (env or {}).items():
        wanted.pop(name, None)
        if value is not None:
            wanted[name] = value
    return subprocess.run(
        ["/bin/bash", "-c", f"exec {sys.executable} -m mypt {line} {shell}"],
        cwd=house, env=wanted, capture_output=True, encoding="utf-8", errors="replace",
        timeout=100, check=False, preexec_fn=before, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def require_no_traceback(run: subprocess.CompletedProcess[str]) -> None:
    for stream in (run.stdout, run.stderr):
        assert "Traceback" not in stream, stream
        assert "This is a bug" not in stream, stream
        assert "Exception ignored" not in stream, stream


@pytest.mark.parametrize("command", COMMANDS)
def test_the_work_is_done_where_nothing_is_set(house: Path, command: str) -> None:
    run = start(house, COMMANDS[command], env=NOTHING)
    require_no_traceback(run)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("command", LIGHT)
@pytest.mark.parametrize("place", PLACES)
def test_the_work_is_done_in_odd_surroundings(house: Path, place: str, command: str) -> None:
    run = start(house, COMMANDS[command], env=PLACES[place])
    require_no_traceback(run)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "2>/dev/full"])
def test_streams_that_are_closed_or_full_end_no_training(house: Path, streams: str) -> None:
    run = start(house, TRAIN, shell=streams, before=os.setsid)
    require_no_traceback(run)
    assert run.returncode == 0
    state = ModelDirectory(house / "checkpoints", "new").states()[0]
    assert state.step == 1
    state.verify()


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- 2>&- >out.txt"])
@pytest.mark.parametrize("command", LIGHT)
def test_closed_streams_end_no_command(house: Path, command: str, streams: str) -> None:
    run = start(house, COMMANDS[command], shell=streams)
    require_no_traceback(run)
    assert run.returncode == 0


@pytest.mark.parametrize("unbuffered", [None, "1"])
@pytest.mark.parametrize(
    "line", [COMMANDS["inspect"], f"{COMMANDS['inspect']} --json", COMMANDS["configs"], f"{TRAIN} --json"]
)
def test_an_answer_that_cannot_be_written_is_one_message(house: Path, line: str, unbuffered: str | None) -> None:
    run = start(house, line, shell=">/dev/full", env={"PYTHONUNBUFFERED": unbuffered})
    require_no_traceback(run)
    assert run.returncode == 1
    assert run.stderr == "Error: standard output: cannot write (No space left on device)\n"


@pytest.mark.parametrize("unbuffered", [None, "1"])
def test_an_answer_for_which_there_is_half_the_room_is_one_message(house: Path, unbuffered: str | None) -> None:
    whole = len(start(house, "configs --json").stdout.encode())

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole // 2, whole // 2))

    run = start(house, "configs --json", shell=">out.txt", env={"PYTHONUNBUFFERED": unbuffered}, before=limit)
    assert run.returncode == 1
    assert run.stderr == "Error: standard output: cannot write (File too large)\n"


def test_nothing_is_written_into_a_file_that_took_the_number_of_a_closed_stream(house: Path) -> None:
    assert start(house, COMMANDS["prepare-dataset"], shell=">&- 2>&- <&-").returncode == 0
    assert start(house, "verify prepared").returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_in_a_deleted_folder_every_command_says_so(house: Path, command: str) -> None:
    (house / "gone").mkdir()
    shell = f"cd {house}/gone && rmdir {house}/gone && exec {sys.executable} -m mypt {COMMANDS[command]}"
    run = subprocess.run(["bash", "-c", shell], cwd=house, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 2
    assert run.stderr == "Error: the working directory was deleted\n  Change to a folder that is there.\n"


def tight() -> None:
    """Few files, few processes (the superuser is not bound by that), and files for the owner alone."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    os.umask(0o077)


@pytest.mark.parametrize("command", ["train", "prepare-dataset"])
def test_under_tight_limits_the_work_is_done_or_one_message_says_why_not(house: Path, command: str) -> None:
    run = start(house, COMMANDS[command], before=tight)
    require_no_traceback(run)
    assert run.returncode == 0 or (run.stderr.count("Error: ") == 1 and run.returncode in {1, 3, 4, 5}), run.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_message(house: Path) -> None:
    house.chmod(0o555)
    try:
        run = start(house, TRAIN)
    finally:
        house.chmod(0o755)
    require_no_traceback(run)
    assert run.returncode == 4


def test_a_clock_that_jumps_changes_no_step(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tiny_run.training.model_copy(update={"max_iters": 12, "eval_interval": 4, "save_interval": 3})
    config = tiny_run.model_copy(update={"training": short})
    steady = [event.loss for event in train(config, ModelDirectory(tmp_path, "steady")) if isinstance(event, StepDone)]
    real, jumps = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(jumps) * 1e9)
    directory, losses = ModelDirectory(tmp_path, "jumping"), list[float]()
    for event in train(config, directory):
        losses += [event.loss] if isinstance(event, StepDone) else []
        # Only of what is published: a state that is being written may go meanwhile.
        for path in directory.path.glob("step-*/*"):
            with suppress(FileNotFoundError):
                os.utime(path, (4e9, 4e9))
    assert losses == steady
    assert isinstance(event, Finished)
    for state in directory.states():
        state.verify()


@pytest.mark.parametrize("limit_mib", [300, 500])
def test_where_not_even_torch_can_be_loaded_memory_is_named(house: Path, limit_mib: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mib * 2**20, limit_mib * 2**20))

    run = start(house, COMMANDS["train"], before=limit)
    assert run.returncode == 5, run.stderr
    assert "Error: out of memory" in run.stderr
    require_no_traceback(run)
