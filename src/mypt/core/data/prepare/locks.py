"""One command at a time works on a dataset; the ranks of one work do so together."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mypt.core.data.prepare.workspace import Workspace
from mypt.durable import make_directory
from mypt.errors import LockedError

# How long a rank waits for another one that is looking, too.
_PATIENCE_S = 5.0


@contextmanager
def hold(workspace: Workspace, rank: int | None) -> Generator[None]:
    """Keep other commands away: a rank its own number and commands without one, those everybody.

    Raises:
        LockedError: when another command is there.
    """
    make_directory(workspace.path.parent)
    with _locked(workspace.lock_path(rank), workspace, 0):
        if rank is None:
            for path in workspace.rank_locks():
                with _locked(path, workspace, 0):
                    pass  # nobody's: a killed rank left it
        else:
            with _locked(workspace.lock_path(None), workspace, _PATIENCE_S):
                pass
        yield


@contextmanager
def _locked(path: Path, workspace: Workspace, patience_s: float) -> Generator[None]:
    lock = FileLock(path, timeout=patience_s)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(
            f"{workspace.path}: another command is working on this dataset", hint="Wait for it to end."
        ) from None
    try:
        yield
    finally:
        if os.name != "nt":  # while it is ours: nobody locks a name that is gone
            path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            if os.name == "nt":
                path.unlink(missing_ok=True)
