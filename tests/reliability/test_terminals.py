"""Whoever listens may leave, fall asleep, or never have been there: a stop saves all the same."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lives import Run, require_unbroken
from stopping import LONG_STEPS, TRAIN, Place
from terminals import Terminal

STOPPED = (*TRAIN, "--model-name", "stopped")
HIDE_CURSOR, SHOW_CURSOR, HOLD = b"\x1b[?25l", b"\x1b[?25h", b"\x13"


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def require_saved(place: Place, truth: Run) -> None:
    """Nobody was told, but the last step is on the disk, and the run goes on with it."""
    stopped = place.run("stopped")
    assert stopped.newest_step() == max(line["step"] for line in stopped.log())
    require_unbroken(place.train_to_the_end("stopped"), truth)


def test_ctrl_c_on_a_terminal_saves_and_leaves_it_sane(place: Place, terminal: Terminal, truth: Run) -> None:
    process = terminal.begin(place.forks, place.folder, *STOPPED)
    place.wait_until(place.logged(7), process)
    terminal.press(b"\x03")
    assert place.forks.wait(process, 60) == 130
    shown = terminal.all_shown()
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    assert b"Go on with:" in shown
    require_saved(place, truth)


def test_leaving_at_once_shows_the_cursor_again(place: Place, terminal: Terminal) -> None:
    process = terminal.begin(place.forks, place.folder, *STOPPED, *LONG_STEPS)
    place.wait_until(lambda: HIDE_CURSOR in terminal.shown, process)
    for _ in range(2):
        assert place.forks.wait(process, 0.6) is None
        terminal.press(b"\x03")
    assert place.forks.wait(process, 60) == 130
    shown = terminal.all_shown()
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)


def test_a_closed_terminal_saves(place: Place, terminal: Terminal, truth: Run) -> None:
    process = terminal.begin(place.forks, place.folder, *STOPPED)
    place.wait_until(place.logged(7), process)
    terminal.close()
    assert place.forks.wait(process, 60) == 128 + signal.SIGHUP
    require_saved(place, truth)


def test_a_terminal_on_hold_does_not_keep_a_run_from_saving(place: Place, terminal: Terminal, truth: Run) -> None:
    process = terminal.begin(place.forks, place.folder, *STOPPED, "--max-iters", "100000")
    place.wait_until(place.logged(7), process)
    terminal.press(HOLD)
    time.sleep(1)
    os.kill(process, signal.SIGTERM)
    assert place.forks.wait(process, 60) == 128 + signal.SIGTERM
    stopped = place.run("stopped")
    assert stopped.newest_step() == max(line["step"] for line in stopped.log())


@pytest.mark.parametrize("as_json", [False, True])
def test_a_full_pipe_does_not_keep_a_run_from_saving(place: Place, *, as_json: bool) -> None:
    pipe = place.folder / "pipe"
    os.mkfifo(pipe)
    streams = (pipe, None) if as_json else (None, pipe)
    command = (*STOPPED, "--max-iters", "100000", *(["--json"] if as_json else []))
    process = place.forks.start(*command, cwd=place.folder, streams=streams)
    place.wait_until(place.logged(7), process)
    fill(pipe)
    time.sleep(1.2)  # a plain line is due once a second
    before = place.run("stopped").log()
    time.sleep(0.2)
    assert place.run("stopped").log() == before, "it waits for its reader, as every program does"
    os.kill(process, signal.SIGTERM)
    assert place.forks.wait(process, 60) == 128 + signal.SIGTERM
    stopped = place.run("stopped")
    assert stopped.newest_step() == max(line["step"] for line in stopped.log())
    assert not (place.folder / "checkpoints" / ".stopped.lock-owner").exists()


def fill(pipe: Path) -> None:
    """Write until nothing more is taken."""
    handle = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                os.write(handle, b"-" * size)
    os.close(handle)


def test_a_run_without_any_stream_saves(place: Place, truth: Run) -> None:
    child = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "mypt", *STOPPED],
        cwd=place.folder,
        env=os.environ | {"MYPT_DEVICE": "cpu"},
    )
    while not place.logged(7)():
        assert child.poll() is None
        time.sleep(0.001)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 128 + signal.SIGTERM
    require_saved(place, truth)
