"""Signals -> a polite request to stop. The engine saves; the exit code names the signal."""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

# Ctrl-C, the system's own request, a closed terminal, and what clusters send before time is up.
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_ONE_REQUEST_S = 0.5
"""Ctrl-C again within this time is the same one: launchers pass on what the terminal sent us already."""
_PATIENCE_S = 1.0
"""A reader that takes nothing for so long has stopped reading."""
_SHOW_CURSOR = b"\x1b[?25h\n"


class StopRequest:
    """Whether, and by which signal, the run was asked to stop.

    Until `arm` is called there is nothing to save, and a signal ends the program as usual.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.nobody_reads = False
        """What we tell goes nowhere, and what Python still holds of it would spoil the exit code."""
        self._armed = False
        self._save: Callable[[], None] | None = None
        self._first_s = 0.0

    def arm(self) -> None:
        """From now on a signal is a request: the step is finished and saved first."""
        self._armed = True

    def disarm(self) -> None:
        """All is saved: a signal ends the program as usual again."""
        self._armed = False

    def __call__(self) -> bool:
        """Asked by the engine after every step."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM; 0 when nothing was asked."""
        return 0 if self.signal is None else 128 + self.signal

    @property
    def has_cut_off(self) -> bool:
        """Whether the signal came while there was nothing to save, so that it ended the work where it was."""
        return self.signal is not None and not self._armed

    @contextmanager
    def telling(self, save: Callable[[], None]) -> Generator[None]:
        """Tell the user something. Where a stop is asked for and nobody takes it: `save` and leave instead."""
        self._save = save
        try:
            if self():
                self._leave_if_unread()
            yield
        finally:
            self._save = None

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        is_first, self.signal = self.signal is None, self.signal or number
        if is_first and self._armed:
            _tell(b"\nFinishing this step, then saving. Ctrl-C again leaves without waiting.\n")
        if self._save is not None or not self._armed:
            self._leave_if_unread()
        if is_first and not self._armed:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(self.exit_code)

    def _leave_if_unread(self) -> None:
        """Where a pipe is full, or a terminal stands still, every way out would wait for it; so take none."""
        if all(_takes(stream, _PATIENCE_S) for stream in (1, 2)):
            return
        save, self._save, code = self._save, None, 1
        try:
            if save is not None:
                save()
            code = self.exit_code
        finally:
            os._exit(code)

    def _watched(self, number: int) -> None:
        """Told of every signal at once, even while the main thread is inside of a long operation."""
        if number not in _numbers():
            return
        now_s = time.monotonic()
        if number == signal.SIGINT and self._first_s and now_s - self._first_s > _ONE_REQUEST_S:
            # Nothing is tidied up: what is on the disk is whole at every moment.
            if sys.stderr is not None and sys.stderr.isatty():
                _tell(_SHOW_CURSOR)
            os._exit(128 + signal.SIGINT)
        self._first_s = self._first_s or now_s


@contextmanager
def stop_on_signals() -> Generator[StopRequest]:
    """Turn signals into a StopRequest; a second Ctrl-C leaves at once.

    A signal that the caller has switched off (as nohup does) stays so.
    """
    request = StopRequest()
    wanted = [number for number in _numbers() if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request._receive) for number in wanted}  # noqa: SLF001 - its own handler
    with _watch(request):
        try:
            yield request
        except Exception:
            if request.has_cut_off:  # whatever a library made of it
                raise SystemExit(request.exit_code) from None
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if request.nobody_reads:
        os._exit(request.exit_code)


@contextmanager
def _watch(request: StopRequest) -> Generator[None]:
    """Hear of signals in a thread of our own, through the pipe that Python's C handler writes to."""
    if os.name == "nt":  # takes sockets only; there the handler alone has to do
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        while number := os.read(reading, 1):
            request._watched(number[0])  # noqa: SLF001 - its own thread

    listener = threading.Thread(target=listen, name="mypt-signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        listener.join()
        os.close(reading)


def _numbers() -> list[int]:
    return [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]


def _takes(stream: int, patience_s: float) -> bool:
    """Whether writing to a stream would not wait, now or in a moment."""
    try:
        return bool(select.select([], [stream], [], patience_s)[1])
    except OSError:
        return True  # closed, or this system cannot say


def _tell(text: bytes) -> None:
    # Closed by the caller, its number may be another file's by now; full, it would keep us from saving.
    if sys.stderr is not None and _takes(2, 0):
        # Past Python's buffers, since a handler may interrupt a print; and never in the way of the
        # save: under `| tee` the reader may be gone already.
        with suppress(OSError):
            os.write(2, text)
