"""How reading text, and the making of a dataset, look. Prose and progress on stderr."""

import shlex
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from mypt.cli.consoles import prose_console, write
from mypt.cli.stopping import stop_on_signals
from mypt.events import (
    DatasetCompressed,
    DatasetWritten,
    Event,
    Noted,
    PreparationPlanned,
    RankFinished,
    ShardsChecked,
    ShardWritten,
    TextRead,
    Warned,
)
from mypt.units import human_bytes, human_count, human_duration, several

_PLAIN_LINE_S = 15.0
# More shards than this are counted, not listed.
_LISTED_SHARDS = 20


def draw_preparation(events: Iterator[Event], *, as_json: bool) -> None:
    """Draw the making of a dataset."""
    if as_json:
        for event in events:
            write(event.as_json() + "\n")
        return
    view = _PreparationView()
    try:
        for event in events:
            view.draw(event)
    finally:
        view.close()


@contextmanager
def stoppable(events: Iterator[Event], *, go_on: str) -> Generator[None]:
    """End the work at Ctrl-C and SIGTERM, and say how it goes on.

    Args:
        events: the work.
        go_on: the command that continues it.
    """
    with stop_on_signals():
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            if isinstance(events, Generator):
                events.close()
            prose_console().print(f"\nStopped. What is finished is kept; this goes on:\n  {go_on}", soft_wrap=True)
            raise


class _PreparationView:
    def __init__(self) -> None:
        self._console = prose_console()
        self._reading = ReadingView(self._console)
        self._shards = 0
        self._goes_on = False

    def draw(self, event: Event) -> None:
        match event:
            case TextRead() | ShardsChecked():
                self._reading.update(event)
            case PreparationPlanned():
                self._planned(event)
            case ShardWritten():
                self._shard(event)
            case RankFinished():
                self._rank_finished(event)
            case DatasetWritten():
                self._written(event)
            case DatasetCompressed():
                self._compressed(event)
            case Warned() | Noted():
                prefix = ("Warning: ", "yellow") if isinstance(event, Warned) else ""
                self._console.print(Text.assemble(prefix, event.message), soft_wrap=True)
            case _:
                pass

    def close(self) -> None:
        self._reading.close()

    def _planned(self, event: PreparationPlanned) -> None:
        self._console.print(_plan_line(event), soft_wrap=True)
        self._goes_on = event.finished_units > 0
        if self._goes_on:
            self._console.print(f"going on: {event.finished_units:,} of {event.units:,} units are finished")

    def _shard(self, event: ShardWritten) -> None:
        self._shards += 1
        if self._shards <= _LISTED_SHARDS:
            self._console.print(f"  {event.path}  {event.tokens:,} tokens, {human_bytes(event.size_bytes)}")
        elif self._shards == _LISTED_SHARDS + 1:
            self._console.print("  …")

    def _compressed(self, event: DatasetCompressed) -> None:
        sizes = f"{human_bytes(event.raw_bytes)} to {human_bytes(event.packed_bytes)}"
        self._console.print(f"{event.path}: {sizes} in {human_duration(event.elapsed_s)}", soft_wrap=True)

    def _rank_finished(self, event: RankFinished) -> None:
        self._console.print(f"rank {event.rank} of {event.world}: all its {several(event.units, 'unit')} done")
        self._console.print(
            f"When all ranks are:  mypt prepare-dataset --out-dir {shlex.quote(event.path)} --finish",
            style="dim",
            soft_wrap=True,
        )

    def _written(self, event: DatasetWritten) -> None:
        self.close()
        told = f"{human_bytes(event.source_bytes)} in {human_duration(event.elapsed_s)}"
        if self._goes_on:
            told = f"the rest in {human_duration(event.elapsed_s)}"
        documents = "" if event.documents is None else f", {several(event.documents, 'document')}"
        shards = several(event.shards, "shard")
        self._console.print(
            f"Dataset {event.path}: {event.train_tokens:,} training + {event.val_tokens:,} validation tokens "
            f"in {shards}{documents} ({told})",
            soft_wrap=True,
        )
        self._console.print(f"Train on it:  mypt train --dataset-dir {event.path}", style="dim", soft_wrap=True)


class ReadingView:
    """The progress of reading text or shards: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._line_s = time.monotonic()

    def update(self, event: TextRead | ShardsChecked) -> None:
        """Show how far it is."""
        if event.total_bytes and event.done_bytes >= event.total_bytes:
            self.close()
            done = "checked {} of shards" if isinstance(event, ShardsChecked) else "read {} of text"
            self._console.print(
                f"{done.format(human_bytes(event.total_bytes))}: {event.tokens:,} tokens "
                f"in {human_duration(event.elapsed_s)}"
            )
        elif self._console.is_terminal:
            self._show_bar(event)
        elif time.monotonic() - self._line_s >= _PLAIN_LINE_S:
            self._line_s = time.monotonic()
            self._console.print(f"{human_bytes(event.done_bytes)}: {_speed(event)}")

    def _show_bar(self, event: TextRead | ShardsChecked) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("reading"),
                BarColumn(),
                TextColumn("{task.description}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=event.total_bytes or None)
            self._bar.start()
        if self._task is not None:
            self._bar.update(self._task, completed=event.done_bytes, description=_speed(event))

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _plan_line(event: PreparationPlanned) -> str:
    files, units = several(event.sources, "file"), several(event.units, "unit")
    workers = "1 process" if event.workers == 1 else f"{event.workers} processes"
    estimate = ""
    if event.estimated_tokens:
        tokens, size = human_count(event.estimated_tokens), human_bytes(event.estimated_bytes)
        estimate = f", about {tokens} tokens, {size} ({human_bytes(event.free_bytes)} free)"
    size = f", {human_bytes(event.source_bytes)}" if event.source_bytes else ""
    return f"{files}{size} in {units}, {workers}, {event.encoder}{estimate}"


def _speed(event: TextRead | ShardsChecked) -> str:
    rate = event.done_bytes / event.elapsed_s if event.elapsed_s > 0 else 0
    told = f"{human_count(event.tokens)} tokens, {human_count(event.tokens / max(event.elapsed_s, 1e-9))} tokens/s"
    if rate and event.total_bytes:
        told += f", ETA {human_duration((event.total_bytes - event.done_bytes) / rate)}"
    return told
