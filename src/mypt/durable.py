"""Files that survive a crash: write beside, flush, rename. Standard library only.

A name either holds the old content or the whole new content, also after a power cut.
"""

import hashlib
import os
import secrets
import sys
import time
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
# Process numbers repeat between machines, and between containers that share a disk.
_PROCESS = secrets.token_hex(4)


def own_name(path: Path) -> Path:
    """A name beside `path` for writing, of this process alone."""
    return path.with_name(f"{path.name}.{os.getpid()}-{_PROCESS}{TEMPORARY_SUFFIX}")


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` in one atomic and durable step."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of `path` in one atomic and durable step."""
    temporary = own_name(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            _flush(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Force the content of a written file to the disk."""
    with path.open("rb+") as file:
        _flush(file.fileno())


def sync_directory(path: Path) -> None:
    """Force renames inside a directory to the disk (where the platform can)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        _flush(handle)
    finally:
        os.close(handle)


def make_directory(path: Path) -> None:
    """Make a directory and its missing parents, durably."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_directory(each.parent)


def publish_directory(temporary: Path, final: Path) -> None:
    """Give a complete, synced directory its final name, durably."""
    sync_directory(temporary)
    temporary.rename(final)
    sync_directory(final.parent)


def set_aside(path: Path, label: str) -> Path:
    """Rename `path` to a free sibling `NAME.label-DATE[-N]`. Nothing is deleted."""
    stem = f"{path.name}.{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    target = path.with_name(stem)
    number = 2
    while target.exists():
        target = path.with_name(f"{stem}-{number}")
        number += 1
    path.rename(target)
    sync_directory(path.parent)
    return target


def sha256_of(path: Path) -> str:
    """Hash a file of any size in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(handle: int) -> None:
    """Force a file to the disk itself; macOS has a command of its own for that."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fsync(handle)
