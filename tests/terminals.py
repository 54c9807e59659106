"""A terminal for commands, and what it showed."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from forking import Forks

pty = pytest.importorskip("pty")


class Terminal:
    """A terminal, and the one who looks at it."""

    def __init__(self) -> None:
        self._ours, self._theirs = pty.openpty()
        self.path = Path(os.ttyname(self._theirs))
        self.shown = b""
        self._reader = threading.Thread(target=self._look, daemon=True)
        self._reader.start()

    def begin(self, forks: Forks, folder: Path, *arguments: object) -> int:
        """Start a command on it, as its controlling terminal."""
        return forks.start(*arguments, cwd=folder, streams=(self.path, self.path), env={"TERM": "xterm"})

    def all_shown(self) -> bytes:
        """What was shown by a command that has ended."""
        os.close(self._theirs)  # the last one: now the reader comes to an end
        self._reader.join(10)
        return self.shown

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def close(self) -> None:
        """Pull the plug."""
        with suppress(OSError):
            os.close(self._ours)

    def _look(self) -> None:
        with suppress(OSError):
            while data := os.read(self._ours, 4096):
                self.shown += data
