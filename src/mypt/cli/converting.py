"""How conversions look."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mypt.cli.consoles import prose_console, write
from mypt.errors import MyptError
from mypt.events import Converted, Event, Noted


def draw_conversion(jobs: Iterable[tuple[Path, Iterator[Event]]], *, as_json: bool, go_on: bool) -> int:
    """Draw each conversion; with `go_on` a failed one does not end the others.

    Returns:
        The number of failures.
    """
    prose = prose_console()
    failures = 0
    for _, events in jobs:
        try:
            for event in events:
                if as_json:
                    write(event.as_json() + "\n")
                elif isinstance(event, Converted):
                    _show_converted(prose, event)
                elif isinstance(event, Noted):
                    prose.print(event.message, soft_wrap=True)
        except MyptError as problem:
            if not go_on:
                raise
            failures += 1
            prose.print(Text.assemble(("Error: ", "red"), problem.message), soft_wrap=True)
    return failures


def _show_converted(prose: Console, event: Converted) -> None:
    verb = "would convert" if event.dry_run else "converted"
    optimizer = "with optimizer state" if event.has_optimizer else "without optimizer state"
    prose.print(
        f"{verb} {event.source} -> {event.target}: step {event.step:,}, {event.parameters:,} parameters, "
        f"{event.tokenizer} tokens, {optimizer}",
        soft_wrap=True,
    )
