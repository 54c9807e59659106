"""Real commands without their start: a process that has imported everything forks a child for each.

Python and torch need seconds to start, a fork milliseconds; so a test can kill a command often. The
child runs the entry point of `mypt` with its own arguments, folder, environment and streams, and
ends as every program does; or, where its end is not what is looked at, without taking down what the
server has built, which costs more than a small command. Run as a program, this file is the server:
one JSON request a line.
"""

import atexit
import contextlib
import gc
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_PAUSE_S = 0.001
_WARM_TEXT = "the quick brown fox jumps over the lazy dog. " * 60
_WARM = (
    *("train", "warm.txt", "--tokenization", "char", "--n-layer", "1", "--n-head", "1", "--n-embd", "8"),
    *("--block-size", "8", "--batch-size", "2", "--max-iters", "4", "--eval-interval", "2", "--eval-iters", "1"),
)


class Forks:
    """The server as its user sees it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**env, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        self._receive()

    def start(
        self,
        *arguments: object,
        cwd: Path,
        streams: tuple[Path | None, Path | None] = (None, None),
        env: Mapping[str, str] | None = None,
        ignored: Iterable[signal.Signals] = (),
        launched: bool = False,
        file_limit_bytes: int | None = None,
        ends_early: bool = False,
        stdin: Path | None = None,
    ) -> int:
        """Start `mypt ARGUMENTS...`, the leader of a process group of its own; gives its process number.

        Args:
            arguments: of the command.
            cwd: its folder.
            streams: its stdout and stderr, each a file, a pipe or a terminal; what goes to None is not kept.
            env: what is added to its environment.
            ignored: signals that its caller has switched off.
            launched: the process started is a launcher, which starts the command and waits for it.
            file_limit_bytes: no file may grow beyond it: what is written is refused in the middle.
            ends_early: when the command is through, its streams are flushed and nothing is taken down.
            stdin: a file that it reads as its stdin, which is empty else.
        """
        return self._ask(
            {
                "arguments": [str(each) for each in arguments],
                "cwd": str(cwd),
                "streams": [str(path or os.devnull) for path in streams],
                "env": dict(env or {}),
                "ignored": [int(each) for each in ignored],
                "launched": launched,
                "file_limit_bytes": file_limit_bytes,
                "ends_early": ends_early,
                "stdin": str(stdin or os.devnull),
            }
        )

    def wait(self, process: int, timeout_s: float = 60) -> int | None:
        """The exit code, negative for a signal; None when it still runs after `timeout_s`."""
        return self._ask({"process": process, "timeout_s": timeout_s})

    def run(
        self,
        *arguments: object,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 120,
        file_limit_bytes: int | None = None,
        stdin: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `mypt ARGUMENTS...` to its end, as `subprocess.run` would."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            process = self.start(
                *arguments,
                cwd=cwd,
                streams=(out, err),
                env=env,
                file_limit_bytes=file_limit_bytes,
                ends_early=True,
                stdin=stdin,
            )
            code = self.wait(process, timeout_s)
            if code is None:
                os.killpg(process, signal.SIGKILL)
                self.wait(process)
                raise subprocess.TimeoutExpired(["mypt", *map(str, arguments)], timeout_s)
            told = [path.read_text(encoding="utf-8") for path in (out, err)]
        return subprocess.CompletedProcess(["mypt", *map(str, arguments)], code, *told)

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)
        assert self._server.stdout is not None
        self._server.stdout.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._receive()

    def _receive(self) -> Any:
        assert self._server.stdout is not None
        answer = self._server.stdout.readline()
        assert answer, "the server has died; its stderr says why"
        return json.loads(answer)


def exit_code(code: int | None) -> int | None:
    """What a shell tells of an ending: 128 and the signal's number where a signal ended it."""
    return 128 - code if code is not None and code < 0 else code


def _serve(requests: int, answers: int) -> bool:
    """Answer until the user is gone; returns in a child that is to become a command: whether it ends early."""
    _warm_up()
    _say(answers, None)
    processes: set[int] = set()
    with os.fdopen(os.dup(requests), encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            if "process" in request:
                code = _ended(request["process"], request["timeout_s"])
                processes -= {request["process"]} if code is not None else set()
                _say(answers, code)
                continue
            process = os.fork()
            if process == 0:
                os.close(requests)
                os.close(answers)
                _become(request)
                return request["ends_early"]
            processes.add(process)
            while os.getsid(process) != process:
                time.sleep(0)  # who asked may kill its group at once
            _say(answers, process)
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # what a failed test left running
            os.killpg(process, signal.SIGKILL)
    os._exit(0)


def _warm_up() -> None:
    """Train once, so that nothing is imported or built for the first time in a child."""
    from mypt.cli.app import main

    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("warm.txt").write_text(_WARM_TEXT, encoding="utf-8")
        sys.argv = ["mypt", *_WARM, "--json"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            main()
        assert Path("checkpoints/default/step-00000004/manifest.json").is_file(), f"training fails, from {here}"
    gc.collect()
    gc.freeze()


def _become(request: dict[str, Any]) -> None:
    """Turn this child into the process that the request describes."""
    os.setsid()
    for number in ASKING:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if int(number) in request["ignored"] else usual)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if (limit_bytes := request["file_limit_bytes"]) is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    # A terminal becomes the one that controls us: we lead a session and have none yet.
    opened = {path: os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for path in dict.fromkeys(request["streams"])}
    os.dup2(os.open(request["stdin"], os.O_RDONLY), 0)
    for number, path in enumerate(request["streams"], start=1):
        os.dup2(opened[path], number)
    for handle in opened.values():
        os.close(handle)
    # As Python makes them at its start: they know whether they are files, pipes or terminals.
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = [str(Path(sys.executable).with_name("python -m mypt")), *request["arguments"]]
    if request["launched"] and (process := os.fork()):
        os.waitpid(process, 0)
        os._exit(0)


def _run_and_leave(command: Callable[[], None]) -> None:
    """Run a command to its end, and what it has left for its end."""
    code = 0
    try:
        command()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _ended(process: int, timeout_s: float) -> int | None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline_s:
            return None
        time.sleep(min(_PAUSE_S, max(0.0, deadline_s - time.monotonic())))


def _say(answers: int, answer: int | None) -> None:
    os.write(answers, (json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    server_streams = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    ends_early = _serve(*server_streams)

    from mypt.cli.app import main

    if ends_early:
        _run_and_leave(main)
    main()
