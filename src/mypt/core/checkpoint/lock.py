"""One training at a time per model. The system frees the lock when the process dies; a file beside says whose it is.

.NAME.lock          what the system locks; stays, and says nothing
.NAME.lock-owner    process, host: for the message to the second one
"""

import os
import re
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mypt.durable import TEMPORARY_SUFFIX, make_directory
from mypt.errors import CheckpointError, LockedError

# Between taking the lock and saying so, and between dying and being replaced, the owner is unknown.
_PATIENCE_S = 0.5
_PAUSE_S = 0.005
_OWNER = re.compile(r"process (\d+) on (\S+)")


@contextmanager
def hold(root: Path, name: str) -> Generator[None]:
    """Hold `name` until the block ends.

    Raises:
        LockedError: naming the process and host that hold it.
        CheckpointError: when no file can be made in `root`.
    """
    owner = root / f".{name}.lock-owner"
    try:
        make_directory(root)
        lock = _acquire(root, name)
    except OSError as problem:
        raise _cannot_keep(root, problem) from None
    try:
        try:
            _write_owner(owner)
        except OSError as problem:
            raise _cannot_keep(root, problem) from None
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def require_free(root: Path, name: str) -> None:
    """Refuse early what `hold` would refuse; nothing is made.

    Raises:
        LockedError: naming the process and host that hold it.
    """
    with suppress(OSError):  # what else is wrong here, `hold` will tell
        if (root / f".{name}.lock").exists():
            _acquire(root, name).release()


def _cannot_keep(root: Path, problem: OSError) -> CheckpointError:
    return CheckpointError(f"{root}: cannot keep models here ({problem.strerror or problem})")


def _acquire(root: Path, name: str) -> FileLock:
    """Take the lock, or say who has it; wait a moment while that is not known."""
    # A run may be closed by another thread than the one that began it.
    lock = FileLock(root / f".{name}.lock", timeout=0, thread_local=False)
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        with suppress(Timeout):
            lock.acquire()
            return lock
        holder = _living_owner(root / f".{name}.lock-owner")
        if holder or time.monotonic() > deadline_s:
            raise LockedError(
                f"{root / name}: in use by {holder or 'another process'}",
                hint="Wait for it to end, or train under another --model-name.",
            )
        time.sleep(_PAUSE_S)


def _write_owner(path: Path) -> None:
    """Say who holds the lock, whole or not at all."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)  # only the holder writes
    temporary.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    temporary.replace(path)


def _living_owner(path: Path) -> str:
    """What the owner's file says, unless that process is known to have died."""
    try:
        told = path.read_text(encoding="utf-8")
    except OSError:
        return ""
    match = _OWNER.fullmatch(told)
    if not match or (match[2] == socket.gethostname() and not _is_alive(int(match[1]))):
        return ""
    return told


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        return True  # there, signal 0 is a real one
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
