"""Signals -> a polite request to stop. The engine saves; the exit code names the signal."""

import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = ("SIGINT", "SIGTERM")


class StopRequest:
    """Whether, and by which signal, the run was asked to stop.

    Until `arm` is called there is nothing to save, and a signal ends the program as usual.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._armed = False

    def arm(self) -> None:
        """From now on a signal is a request: the step is finished and saved first."""
        self._armed = True

    def __call__(self) -> bool:
        """Asked by the engine after every step."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM; 0 when nothing was asked."""
        return 0 if self.signal is None else 128 + self.signal

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        again = self.signal is not None and number == signal.SIGINT
        if again or not self._armed:
            self.signal = number
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(self.exit_code)
        self.signal = number
        if sys.stderr is not None:  # closed by the caller: its number may be another file's by now
            # Past Python's buffers, since a handler may interrupt a print; and never in the way of the
            # save: under `| tee` the reader may be gone already.
            with suppress(OSError):
                os.write(2, b"\nFinishing this step, then saving. Ctrl-C again leaves without waiting.\n")


@contextmanager
def stop_on_signals() -> Generator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a StopRequest; a second Ctrl-C leaves at once."""
    request = StopRequest()
    known = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, request._receive) for number in known}  # noqa: SLF001 - its own handler
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
