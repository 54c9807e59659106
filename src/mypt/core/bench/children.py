"""Child processes that measure: started, heard out, and never left behind.

    a job, one line of JSON -> child.py -> the answer, one line of JSON

A child of its own has peaks and caches of its own. It ends with its answer, with us, or when we are told to end.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import mypt
from mypt.core import CHOSE_WAITING, WAITING
from mypt.errors import MemoryShortageError, MyptError, retold
from mypt.records.bench import Job


def ask(job: Job) -> dict[str, Any]:
    """Let a child measure.

    Raises:
        MyptError: what went wrong there.
        MemoryShortageError: when it was killed, as systems do that are out of memory.
    """
    command = [sys.executable, "-P", "-m", "mypt.core.bench.child"]
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints, started(command, complaints) as child:
        assert child.stdin is not None, "made with pipes"
        assert child.stdout is not None, "made with pipes"
        with suppress(BrokenPipeError):  # dead already: its silence tells
            child.stdin.write(job.model_dump_json() + "\n")
            child.stdin.flush()
        told = child.stdout.read()
        code = child.wait()
        complaints.seek(0)
        last_words = complaints.read().strip().splitlines()[-1:]
    if not told.endswith("\n"):
        if os.name == "posix" and code == -signal.SIGKILL:
            raise MemoryShortageError("its process was killed: out of memory, most likely")
        raise MyptError(f"its process ended with code {code}: {' '.join(last_words) or 'without a word'}")
    answer = json.loads(told)
    if "error" in answer:
        raise retold(answer)
    return answer


@contextmanager
def started(
    command: Sequence[str], complaints: IO[str] | int = subprocess.DEVNULL, cwd: Path | None = None
) -> Generator[subprocess.Popen[str]]:
    """A child with pipes for input and output; it and its own children are gone when the block is left.

    What we set, or read, in the environment is kept from it: settings are in its job.
    """
    child = subprocess.Popen(  # noqa: S603 - this very program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        encoding="utf-8",
        cwd=cwd,
        env=_environment(),
        # A Ctrl-C is for us alone, and whoever the child started ends with it.
        process_group=0 if os.name == "posix" else None,
    )
    try:
        yield child
    finally:
        _end(child)


def _environment() -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if name == "MYPT_CACHE" or not name.startswith("MYPT_")}
    if CHOSE_WAITING:
        kept = {name: value for name, value in kept.items() if name not in WAITING}
    home = str(Path(mypt.__file__).parent.parent)
    search = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {"PYTHONPATH": search, "MYPT_OFFLINE": "1"}


def _end(child: subprocess.Popen[str]) -> None:
    with suppress(OSError):
        if os.name == "posix":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()
    child.wait()
