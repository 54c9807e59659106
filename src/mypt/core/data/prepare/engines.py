"""Who does the jobs: this process, worker processes, or a Ray cluster. The bytes are the same."""

from collections.abc import Iterator, Sequence

from mypt.core.data.prepare.crew import run_here, run_in_processes
from mypt.core.data.prepare.jobs import Job, JobProgress
from mypt.core.data.prepare.planning import worker_count
from mypt.core.data.prepare.workspace import Workspace
from mypt.events import Warned
from mypt.records.plan import STDIN, PrepareConfig


def place(workspace: Workspace, jobs: Sequence[Job], options: PrepareConfig) -> Iterator[JobProgress | Warned]:
    """Have all jobs done, wherever the options say."""
    # Standard input is this process's own.
    here = [job for job in jobs if _reads_stdin(workspace, job)]
    yield from run_here(workspace, here)
    jobs = [job for job in jobs if job not in here]
    workers = min(worker_count(options), len(jobs))
    if options.engine == "ray":
        from mypt.core.data.prepare.ray_engine import run_on_ray

        yield from run_on_ray(workspace, jobs, options.ray_address, worker_count(options))
    elif workers > 1:
        yield from run_in_processes(workspace, jobs, workers)
    else:
        yield from run_here(workspace, jobs)


def _reads_stdin(workspace: Workspace, job: Job) -> bool:
    sources = workspace.plan.sources
    return job.kind == "encode" and any(sources[span.source].path == STDIN for span in workspace.units[job.number])
