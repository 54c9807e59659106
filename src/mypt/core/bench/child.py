"""A child process: one job in on stdin, one answer out on stdout. Started by `children.py`."""

import json
import os
import sys
from threading import Thread
from typing import Any

from mypt.core import CHOSE_WAITING, WAITING, wait_awake
from mypt.errors import MyptError
from mypt.records.base import Record
from mypt.records.bench import Job


def main() -> None:
    """Measure what stands on the first line of the input; its end is the end of whoever asked."""
    # What a library prints must not get between our messages.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = Job.parse(sys.stdin.readline(), where="job")
    Thread(target=_end_with_parent, daemon=True).start()
    answer: dict[str, Any]
    try:
        answer = _measured(job).model_dump()
    except MyptError as problem:
        answer = {"error": type(problem).__name__, "message": problem.message, "hint": problem.hint}
    except Exception as problem:  # noqa: BLE001 - told to the parent, which goes on without this row
        words = str(problem).strip().splitlines()[:1]
        answer = {"error": "MyptError", "message": f"{type(problem).__name__}: {' '.join(words)}", "hint": ""}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _measured(job: Job) -> Record:
    if job.task == "peer":
        if CHOSE_WAITING:  # for threads of ours; it is to run as it ships
            for name in WAITING:
                del os.environ[name]
        from mypt.core.bench.peer_steps import peer_figures

        return peer_figures(job)
    if job.task == "training":
        from mypt.core.bench.training import training_figures

        return training_figures(job)
    if job.task == "generation":
        wait_awake()
        from mypt.core.bench.generation import generation_figures

        return generation_figures(job)
    from mypt.core.bench.machine import survey

    return survey(job)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
