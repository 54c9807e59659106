"""Jobs: what a process can be asked to do for a dataset. Each can be done anywhere, and twice."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mypt.core.data.prepare.assembly import assemble_shard, compact_unit
from mypt.core.data.prepare.unit import encode_unit, survey_unit
from mypt.core.data.prepare.workspace import Workspace
from mypt.errors import DataError, MemoryShortageError

JobKind = Literal["survey", "encode", "compact", "train", "val"]

_TOLD_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """`train` and `val` make shard `number` of that split; the others work on unit `number`."""

    kind: JobKind
    number: int

    def __str__(self) -> str:
        return f"{self.kind} shard {self.number}" if self.kind in {"train", "val"} else f"unit {self.number}"


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is: bytes of input read and tokens written so far."""

    job: Job
    read_bytes: int
    tokens: int
    done: bool


Work = Iterator[tuple[int, int]]


def run_job(workspace: Workspace, job: Job) -> Iterator[JobProgress]:
    """Do one job, telling now and then how far it is; its result is on the disk when it says done.

    Raises:
        MyptError: for text that is unfit, and a disk or a memory that is too small.
    """
    told_s = time.monotonic()
    read_bytes = tokens = 0
    try:
        for read_bytes, tokens in _work(workspace, job):
            now_s = time.monotonic()
            if now_s - told_s >= _TOLD_EVERY_S:
                told_s = now_s
                yield JobProgress(job, read_bytes, tokens, done=False)
    except OSError as problem:
        raise cannot_write(problem, workspace.path) from None
    except MemoryError:
        raise MemoryShortageError(
            f"{workspace.path}: out of memory", hint="The same command with fewer --workers goes on where this one was."
        ) from None
    yield JobProgress(job, read_bytes, tokens, done=True)


def cannot_write(problem: OSError, place: Path) -> DataError:
    """What the system says of a file that cannot be written, in our words."""
    return DataError(
        f"{problem.filename or place}: cannot write the dataset ({problem.strerror or problem})",
        hint="The same command goes on where this one was.",
    )


def _work(workspace: Workspace, job: Job) -> Work:
    if job.kind in {"train", "val"}:
        return assemble_shard(workspace, "train" if job.kind == "train" else "val", job.number)
    by_unit: dict[str, Callable[[Workspace, int], Work]] = {
        "survey": survey_unit,
        "encode": encode_unit,
        "compact": compact_unit,
    }
    return by_unit[job.kind](workspace, job.number)
