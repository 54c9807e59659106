"""Files that survive a crash: write beside, flush, rename. Standard library only.

A name either holds the old content or the whole new content, also after a power cut. Whatever
changes the disk goes through `os`, one call each, so that a test can stop after any of them.
"""

import errno
import hashlib
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TEMPORARY_SUFFIX = ".tmp"
# Process numbers repeat between machines, and between containers that share a disk.
_PROCESS = secrets.token_hex(4)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
# Large enough for the disk, small enough to be hashed from the processor's cache.
_PIECE_BYTES = 2**20


class Written(NamedTuple):
    """What a file was given: known from memory, so a disk that keeps something else is found out."""

    size_bytes: int
    sha256: str


def own_name(path: Path) -> Path:
    """A name beside `path` for writing, of this process alone."""
    return path.with_name(f"{path.name}.{os.getpid()}-{_PROCESS}{TEMPORARY_SUFFIX}")


def write_new(path: Path, chunks: Iterable[bytes | memoryview]) -> Written:
    """Write a file that is not there yet, and force it to the disk. Its name is the caller's to secure."""
    digest, size_bytes = hashlib.sha256(), 0
    handle = os.open(path, _NEW_FILE, 0o666)
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            size_bytes += len(rest)
            while rest:
                piece = rest[:_PIECE_BYTES]
                digest.update(piece)
                _write_all(handle, piece)
                rest = rest[_PIECE_BYTES:]
        flush(handle)
    finally:
        os.close(handle)
    return Written(size_bytes, digest.hexdigest())


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` in one atomic and durable step."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of `path` in one atomic and durable step."""
    temporary = own_name(path)
    temporary.unlink(missing_ok=True)  # ours alone: what a failed attempt could not clear away
    try:
        write_new(temporary, [data])
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Force the content of a written file to the disk."""
    with path.open("rb+") as file:
        flush(file.fileno())


def sync_directory(path: Path) -> None:
    """Force renames inside a directory to the disk (where the platform can)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        flush(handle)
    except OSError as problem:
        if problem.errno not in {errno.EINVAL, errno.ENOTSUP}:  # file systems that know no such thing
            raise
    finally:
        os.close(handle)


def make_directory(path: Path) -> None:
    """Make a directory and its missing parents, durably."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_directory(each.parent)


def rename(old: Path, new: Path) -> None:
    """Give a file or directory another name in the same folder, durably."""
    os.rename(old, new)
    sync_directory(new.parent)


def publish_directory(temporary: Path, final: Path) -> None:
    """Give a complete, synced directory its final name, durably."""
    sync_directory(temporary)
    rename(temporary, final)


def remove_directory(path: Path) -> None:
    """Delete a directory and all that is in it; links are deleted, not followed."""
    if path.is_symlink():
        path.unlink()
        return
    for entry in list(os.scandir(path)):
        if entry.is_dir(follow_symlinks=False):
            remove_directory(Path(entry.path))
        else:
            os.unlink(entry.path)
    os.rmdir(path)


def set_aside(path: Path, label: str) -> Path:
    """Rename `path` to a free sibling `NAME.label-DATE[-N]`. Nothing is deleted."""
    target = name_aside(path, label)
    rename(path, target)
    return target


def name_aside(path: Path, label: str) -> Path:
    """The free sibling `NAME.label-DATE[-N]` under which `path` would be set aside."""
    stem = f"{path.name}.{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    target = path.with_name(stem)
    number = 2
    while target.exists():
        target = path.with_name(f"{stem}-{number}")
        number += 1
    return target


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a directory; what vanishes meanwhile counts nothing."""
    try:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            return found.st_size
        return sum(size_on_disk(each) for each in path.iterdir())
    except FileNotFoundError:
        return 0


def sha256_of(path: Path) -> str:
    """Hash a file of any size in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_all(handle: int, piece: memoryview) -> None:
    """Write until all is taken: a system call may take a part only."""
    while piece:
        piece = piece[os.write(handle, piece) :]


def flush(handle: int) -> None:
    """Force a file to the disk itself; macOS has a command of its own for that."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # volumes that do not have it
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)
