"""Files that are read in pieces for hours: few of them open at once, and noticed when they change."""

import os
from collections import OrderedDict
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from mypt.errors import DataError

_OPEN_FILES = 128


class Identity(NamedTuple):
    """What of a file changes when its content does."""

    size_bytes: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, file: Path | int) -> "Identity":
        """As it is now, by name or by open file."""
        status = os.stat(file)  # noqa: PTH116 - of an open file too
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


class OpenFiles:
    """Files kept open for reading, the least recently used one closed first. For any threads."""

    def __init__(self, limit: int = _OPEN_FILES) -> None:
        self._limit = limit
        self._files: OrderedDict[Path, FileIO] = OrderedDict()
        self._known: dict[Path, Identity | None] = {}
        self._changed: dict[Path, None] = {}
        # Seeking and reading are two steps: nobody may come in between.
        self._lock = Lock()
        finalize(self, _close_all, self._files)

    def read(self, path: Path, offset_bytes: int, into: NDArray[np.unsignedinteger]) -> None:
        """Fill an array with a file's bytes from `offset_bytes` on.

        Raises:
            DataError: naming the file, when it is missing, unreadable or shorter than that.
        """
        try:
            with self._lock:
                file = self._open(path)
                file.seek(offset_bytes)
                got_bytes = file.readinto(into.data)
        except OSError as problem:
            raise DataError(f"{path}: cannot read it ({problem.strerror or problem})") from None
        if got_bytes != into.nbytes:
            raise DataError(
                f"{path}: ends before byte {offset_bytes + into.nbytes:,}, so it became shorter while it was in use",
                hint="Put the file back as it was; mypt verify tells which files of a dataset are damaged.",
            )

    def remember(self, path: Path) -> None:
        """Know a file as it is now; what is not remembered is known from its first opening on."""
        self._known[path] = _identity_now(path)

    def changed(self) -> list[str]:
        """Name the files that are no longer what they were; each change is told once.

        Looks at the files that are open now. The others were compared when they were opened, and
        will be when they are opened again: so every byte that was read was of a file that was compared.
        """
        with self._lock:
            for path in self._files:
                self._compare(path, _identity_now(path))
            names = [str(path) for path in self._changed]
            self._changed.clear()
        return names

    def _open(self, path: Path) -> FileIO:
        file = self._files.get(path)
        if file is not None:
            self._files.move_to_end(path)
            return file
        file = FileIO(path, opener=_without_waiting)
        self._files[path] = file
        self._compare(path, Identity.of(file.fileno()))
        if len(self._files) > self._limit:
            self._files.popitem(last=False)[1].close()
        return file

    def _compare(self, path: Path, found: Identity | None) -> None:
        if self._known.setdefault(path, found) != found:
            self._known[path] = found
            self._changed[path] = None


def _identity_now(path: Path) -> Identity | None:
    """None for a file that is gone."""
    try:
        return Identity.of(path)
    except OSError:
        return None


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that took its name would be waited for, for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _close_all(files: OrderedDict[Path, FileIO]) -> None:
    while files:
        files.popitem()[1].close()
