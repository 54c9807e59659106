"""A worker process: jobs in on stdin, messages out on stdout, one a line. Started by `crew.py`."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mypt.core.data.prepare.jobs import Job, JobKind, run_job
from mypt.core.data.prepare.workspace import Workspace
from mypt.errors import MyptError

_KINDS: dict[str, JobKind] = {
    "survey": "survey",
    "encode": "encode",
    "compact": "compact",
    "train": "train",
    "val": "val",
}


def main(path: str) -> None:
    """Do jobs until there are no more, or nobody listens."""
    # Ctrl-C reaches the whole group; the parent decides what it means for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    workspace = Workspace(Path(path))
    for line in sys.stdin:
        kind, number = line.split()
        try:
            for progress in run_job(workspace, Job(_KINDS[kind], int(number))):
                _tell({"read_bytes": progress.read_bytes, "tokens": progress.tokens, "done": progress.done})
        except MyptError as problem:
            _tell({"error": type(problem).__name__, "message": problem.message, "hint": problem.hint})
        except BrokenPipeError:
            raise
        except Exception as problem:  # noqa: BLE001 - told to the parent, which ends the work
            _tell({"error": type(problem).__name__, "message": str(problem), "hint": ""})


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except BrokenPipeError:
        # The parent is gone; whoever comes next will do this job again.
        os._exit(1)
