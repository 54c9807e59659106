"""Jobs on a Ray cluster: names in, progress out. Text and tokens stay on the shared disk.

Ray only places jobs, so the bytes are those of a local run; a task whose worker is killed is
started again by Ray.
"""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mypt
from mypt import errors
from mypt.core.data.prepare.jobs import Job, JobKind, JobProgress, run_job
from mypt.core.data.prepare.workspace import Workspace
from mypt.errors import DataError, MissingExtraError, MyptError

_RETRIES = 3
_PATIENCE_S = 5.0
# Tasks that wait in Ray's queue: enough for the largest cluster, few enough to begin at once.
_IN_FLIGHT = 2048


def run_on_ray(workspace: Workspace, jobs: Sequence[Job], address: str | None, workers: int) -> Iterator[JobProgress]:
    """Do all jobs on a cluster; without an address, on a cluster of this machine's own.

    Raises:
        MissingExtraError: without the package ray.
        DataError: when the cluster cannot be reached, or a job killed its worker four times.
        MyptError: the first error of any job.
    """
    if not jobs:
        return
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--engine ray needs the package ray", hint="pip install 'mypt[ray]'") from None
    _require_listener(address)
    _connect(ray, address, workers)
    try:
        task = ray.remote(max_retries=_RETRIES, num_cpus=1)(_do)
        waiting = list(reversed(jobs))
        running: dict[Any, Job] = {}
        while waiting or running:
            while waiting and len(running) < _IN_FLIGHT:
                job = waiting.pop()
                running[task.remote(str(workspace.path.absolute()), os.getcwd(), job.kind, job.number)] = job  # noqa: PTH109 - sent as text
            finished, _ = ray.wait(list(running), num_returns=1)
            job = running.pop(finished[0])
            yield _answer(ray, finished[0], job)
    finally:
        ray.shutdown()


def _require_listener(address: str | None) -> None:
    """Fail at once where Ray would try for ten minutes.

    Raises:
        DataError: when nobody answers at HOST:PORT.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
    except (OSError, OverflowError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise DataError(
            f"--ray-address {address}: nobody answers there ({reason})",
            hint="On a machine of the cluster: --ray-address auto",
        ) from None


def _connect(ray: Any, address: str | None, workers: int) -> None:  # noqa: ANN401 - ray's module
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    home = str(Path(mypt.__file__).parent.parent)
    own: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": home, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}},
            **own,
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as problem:
        raise DataError(f"--ray-address {address}: cannot reach the cluster ({problem})") from None


def _answer(ray: Any, reference: Any, job: Job) -> JobProgress:  # noqa: ANN401 - ray's module and values
    try:
        answer = ray.get(reference)
    except ray.exceptions.RayError as problem:
        raise DataError(
            f"Ray gave up on {job} ({type(problem).__name__})",
            hint="The same command goes on where this one was.",
        ) from None
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"], hint=answer["hint"])
    return JobProgress(job, answer["read_bytes"], answer["tokens"], done=True)


def _do(path: str, folder: str, kind: JobKind, number: int) -> dict[str, Any]:
    """One task: a job done where the names of the plan mean what they meant to the user."""
    os.chdir(folder)
    read_bytes = tokens = 0
    try:
        for progress in run_job(Workspace(Path(path)), Job(kind, number)):
            read_bytes, tokens = progress.read_bytes, progress.tokens
    except MyptError as problem:
        return {"error": type(problem).__name__, "message": problem.message, "hint": problem.hint}
    return {"read_bytes": read_bytes, "tokens": tokens}
