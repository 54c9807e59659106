"""Reports of many jobs -> the progress of the whole. Work of an earlier command does not count."""

import time
from collections.abc import Iterator

from mypt.core.data.prepare.jobs import Job, JobProgress
from mypt.events import Event, TextRead, Warned


class Progress:
    """Sums the progress of many jobs."""

    def __init__(self, total_bytes: int) -> None:
        """Begin; `total_bytes` is the input of all jobs, 0 where it cannot be known."""
        self._total_bytes = total_bytes
        self._started_s = time.monotonic()
        self._read_bytes = 0
        self._tokens = 0
        self._running: dict[Job, tuple[int, int]] = {}

    def tell(self, reports: Iterator[JobProgress | Warned]) -> Iterator[Event]:
        """Turn reports of jobs into progress of the whole."""
        for report in reports:
            if isinstance(report, Warned):
                yield report
                continue
            self._running[report.job] = (report.read_bytes, report.tokens)
            if report.done:
                self._read_bytes += report.read_bytes
                self._tokens += report.tokens
                del self._running[report.job]
            read_bytes = self._read_bytes + sum(running[0] for running in self._running.values())
            tokens = self._tokens + sum(running[1] for running in self._running.values())
            done_bytes = min(read_bytes, self._total_bytes - 1) if self._total_bytes else read_bytes
            yield TextRead(done_bytes, self._total_bytes, tokens, self._elapsed_s())

    def whole(self) -> TextRead:
        """All of it is done."""
        total_bytes = self._total_bytes or self._read_bytes
        return TextRead(total_bytes, total_bytes, self._tokens, self._elapsed_s())

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started_s
