"""metrics.jsonl: one line per logged event, appended, whole lines only.

Steps that are done again after a crash are logged again, with the same numbers.
"""

import os
from pathlib import Path

from mypt.durable import flush
from mypt.events import Event

_TAIL_BYTES = 2**16


class MetricsLog:
    """The log of one run, open for appending."""

    def __init__(self, path: Path) -> None:
        """Open the log; what a crash left of a line is cut off.

        Raises:
            OSError: when it cannot be opened.
        """
        self._path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        self._size_bytes = self._end_of_whole_lines()
        os.truncate(self._handle, self._size_bytes)

    def append(self, event: Event) -> None:
        """Add one line, whole or not at all.

        Raises:
            OSError: naming the log, when the disk refuses.
        """
        line = (event.as_json() + "\n").encode()
        try:
            written = os.write(self._handle, line)
            while written < len(line):
                # A nearly full disk takes a part; the next attempt says why.
                written += os.write(self._handle, line[written:])
        except OSError as problem:
            os.truncate(self._handle, self._size_bytes)
            problem.filename = str(self._path)
            raise
        self._size_bytes += len(line)

    def sync(self) -> None:
        """Force what was logged to the disk."""
        flush(self._handle)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _end_of_whole_lines(self) -> int:
        size_bytes = os.fstat(self._handle).st_size
        end = size_bytes
        while end > 0:
            start = max(0, end - _TAIL_BYTES)
            os.lseek(self._handle, start, os.SEEK_SET)
            newline = os.read(self._handle, end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0
