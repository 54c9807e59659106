"""Jobs on this machine: here, or in worker processes that may die at any moment.

A worker is `python -m mypt.core.data.prepare.worker WORKSPACE`: one job a line on its input, one
JSON message a line on its output. No text and no tokens pass between processes, only the names of
jobs. A worker that dies is replaced and its job done again.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import mypt
from mypt.core.data.prepare.jobs import Job, JobProgress, run_job
from mypt.core.data.prepare.workspace import Workspace
from mypt.errors import DataError, retold
from mypt.events import Warned

_MOST_DEATHS = 3


def run_here(workspace: Workspace, jobs: Sequence[Job]) -> Iterator[JobProgress]:
    """Do jobs one after another in this process."""
    for job in jobs:
        yield from run_job(workspace, job)


def run_in_processes(workspace: Workspace, jobs: Sequence[Job], workers: int) -> Iterator[JobProgress | Warned]:
    """Do jobs in `workers` processes; closing the iterator ends them.

    Raises:
        MyptError: the first error of any job.
        DataError: when a job killed its worker three times.
    """
    todo, deaths = deque(jobs), Counter[Job]()
    inbox: SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = SimpleQueue()
    crew: list[_Worker] = []
    try:
        while todo or crew:
            while todo and len(crew) < workers:
                crew.append(_Worker(workspace.path, inbox))
                crew[-1].give(todo.popleft())
            worker, message = inbox.get()
            if worker not in crew:
                continue  # dismissed: its last word is that it ended
            if message is None:
                crew.remove(worker)
                yield from _mourn(worker, todo, deaths)
            elif "error" in message:
                raise retold(message)
            else:
                yield JobProgress(worker.job, message["read_bytes"], message["tokens"], done=message["done"])
                if message["done"] and todo:
                    worker.give(todo.popleft())
                elif message["done"]:
                    worker.dismiss()
                    crew.remove(worker)
    finally:
        for worker in crew:
            worker.kill()


def _mourn(worker: "_Worker", todo: deque[Job], deaths: Counter[Job]) -> Iterator[Warned]:
    """Put the job of a dead worker back, first in line.

    Raises:
        DataError: when it was the third death for this job.
    """
    code = worker.ended()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    deaths[worker.job] += 1
    if deaths[worker.job] >= _MOST_DEATHS:
        raise DataError(
            f"a worker died {_MOST_DEATHS} times at the same work, {worker.job} (last: {how})",
            hint="Out of memory? The same command with fewer --workers goes on where this one was.",
        )
    todo.appendleft(worker.job)
    yield Warned(f"a worker died ({how}); another one does its work again")


@contextmanager
def _deaf_to_interrupts() -> Generator[None]:
    """Start a process that a Ctrl-C does not reach, not even before its first line of ours."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """One process and the job it has."""

    job: Job

    def __init__(self, path: Path, inbox: "SimpleQueue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        home = str(Path(mypt.__file__).parent.parent)
        search = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        # Encoders with threads of their own would only fight over the cores.
        threads = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with _deaf_to_interrupts():
            self.process = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-P", "-m", "mypt.core.data.prepare.worker", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env=os.environ | threads | {"PYTHONPATH": search},
            )
        Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def give(self, job: Job) -> None:
        """Hand over a job; a worker that is dead already is noticed by its silence."""
        self.job = job
        assert self.process.stdin is not None, "made with a pipe"
        with suppress(OSError):
            self.process.stdin.write(f"{job.kind} {job.number}\n")
            self.process.stdin.flush()

    def dismiss(self) -> None:
        """Let it end: there is no more work."""
        self.ended()

    def kill(self) -> None:
        """End it at once; what it was writing stays under a name of its own."""
        self.process.kill()
        self.ended()

    def ended(self) -> int:
        """Close our end of its input, which ends it, and wait for that; gives its exit code."""
        assert self.process.stdin is not None, "made with a pipe"
        with suppress(OSError):
            self.process.stdin.close()
        return self.process.wait()

    def _listen(self, inbox: "SimpleQueue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        assert self.process.stdout is not None, "made with a pipe"
        with self.process.stdout as messages:
            for line in messages:
                if not line.endswith("\n"):
                    break  # it died while it spoke
                inbox.put((self, json.loads(line)))
        inbox.put((self, None))
