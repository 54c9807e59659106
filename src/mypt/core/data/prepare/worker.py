"""A worker process: jobs in on stdin, messages out on stdout, one a line. Started by `crew.py`."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO, cast

from mypt.core.data.prepare.jobs import Job, JobKind, run_job
from mypt.core.data.prepare.workspace import Workspace
from mypt.errors import MyptError


def main(path: str, channel: TextIO) -> None:
    """Do jobs until there are no more, or nobody listens."""

    def tell(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    # Ctrl-C reaches the whole group; the parent decides what it means for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    workspace = Workspace(Path(path))
    for line in sys.stdin:
        kind, number = line.split()
        try:
            for progress in run_job(workspace, Job(cast("JobKind", kind), int(number))):
                tell({"read_bytes": progress.read_bytes, "tokens": progress.tokens, "done": progress.done})
        except MyptError as problem:
            tell({"error": type(problem).__name__, "message": problem.message, "hint": problem.hint})
        except BrokenPipeError:
            raise
        except Exception as problem:  # noqa: BLE001 - told to the parent, which ends the work
            tell({"error": type(problem).__name__, "message": str(problem), "hint": ""})


if __name__ == "__main__":
    # What a library prints must not get between our messages.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        main(sys.argv[1], messages)
    except BrokenPipeError:
        # The parent is gone; whoever comes next will do this job again.
        os._exit(1)
