"""The two places to print: data on stdout, prose and progress on stderr.

Markup is off: what users name (paths, prompts, presets) may hold brackets. What would act on a
terminal is shown instead: a file's name or a generated text may hold escape sequences.
"""

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mypt.cli.streams import visible

_NARROWEST = 20
"""Columns: with fewer a table would show no letter at all."""


class _SafeConsole(Console):
    """A console whose texts cannot act; its own colours and cursor moves can."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def data_console() -> Console:
    """Stdout: tables and other answers."""
    return _console(stderr=False)


def prose_console() -> Console:
    """Stderr: everything that is not the answer."""
    return _console(stderr=True)


def write(text: str, *, raw: bool = False) -> None:
    """Put data on stdout at once: generated text and JSON lines. Files and pipes get every byte, terminals if `raw`."""
    sys.stdout.write(visible(text) if sys.stdout.isatty() and not raw else text)
    sys.stdout.flush()


def _console(*, stderr: bool) -> Console:
    console = _SafeConsole(stderr=stderr, highlight=False, markup=False)
    if console.width < _NARROWEST:
        return _SafeConsole(stderr=stderr, highlight=False, markup=False, width=_NARROWEST)
    return console
