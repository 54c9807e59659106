"""Reports of jobs, from wherever they run -> progress of the whole."""

import time
from collections.abc import Iterator, Sequence

from mypt.core.data.prepare.jobs import Job, JobProgress
from mypt.core.data.prepare.workspace import Workspace
from mypt.events import Event, TextRead, Warned
from mypt.records.plan import UnitResult


class Progress:
    """Sums the progress of many jobs."""

    def __init__(self, workspace: Workspace, finished: Sequence[UnitResult]) -> None:
        """Begin with what is finished already."""
        self.total_bytes = sum(source.size_bytes or sum(source.part_bytes) for source in workspace.plan.sources)
        self._started_s = time.monotonic()
        self._read_bytes = sum(result.read_bytes for result in finished)
        self.tokens = sum(result.train.tokens + result.val.tokens for result in finished)
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
                self.tokens += report.tokens
                del self._running[report.job]
            read_bytes = self._read_bytes + sum(running[0] for running in self._running.values())
            tokens = self.tokens + sum(running[1] for running in self._running.values())
            yield TextRead(min(read_bytes, max(0, self.total_bytes - 1)), self.total_bytes, tokens, self._elapsed_s())

    def whole(self) -> TextRead:
        """All of it is done."""
        return TextRead(self.total_bytes, self.total_bytes, self.tokens, self._elapsed_s())

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started_s
