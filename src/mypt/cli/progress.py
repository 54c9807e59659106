"""How long work looks: training and preparation, live on a terminal, as plain lines elsewhere."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from mypt.cli.consoles import data_console, prose_console, write
from mypt.cli.preparing import ReadingView
from mypt.cli.stopping import StopRequest
from mypt.cli.tables import config_table
from mypt.events import (
    Evaluated,
    Event,
    Finished,
    Generated,
    Noted,
    RunPlanned,
    SampleStarted,
    Saved,
    ShardsChecked,
    Skipped,
    StepDone,
    TextRead,
    Token,
    Warned,
)
from mypt.records.resolve import Resolved
from mypt.units import human_bytes, human_count, human_duration, sparkline

_PLAIN_LINE_S = 1.0
_KEPT_LOSSES = 4096
_BAR_WIDTH = 48
_SMALLEST_SHARE = 0.0005
_PARTS = {
    "steps": "steps",
    "batches": "waiting for batches",
    "evaluation": "evaluation",
    "saving": "saving",
    "logging": "logging",
}
_ENDS = {"completed": "Done", "no improvement": "Ended early, for want of better evaluations,"}


def show_config(resolved: Resolved, *, quiet: bool, to_stdout: bool) -> None:
    """Print every setting with its source: as data in a dry run, as prose before a run."""
    if to_stdout or not quiet:
        console = data_console() if to_stdout else prose_console()
        console.print(config_table(resolved.config, resolved.sources))


def draw_training(events: Generator[Event], stop: StopRequest, *, as_json: bool, go_on: str) -> None:
    """Draw a run until it ends, by itself or by a stop.

    Args:
        events: the run.
        stop: whether the user asked to stop.
        as_json: print events as JSON lines instead.
        go_on: the command that continues a stopped run.
    """
    view = None if as_json else TrainingView()
    draw = view.draw if view is not None else _print_as_json
    reason = ""
    with closing(events):
        try:
            for event in events:
                if isinstance(event, RunPlanned):
                    stop.arm()
                if isinstance(event, Finished):
                    reason = event.reason
                    stop.disarm()
                try:
                    with stop.telling(events.close):
                        draw(event)
                except OSError:
                    if as_json:
                        raise  # whoever wanted these lines is gone
                    # The terminal is; the training is worth more than its picture.
                    stop.nobody_reads, draw = True, _pass_over
        finally:
            if view is not None:
                with suppress(OSError), stop.telling(events.close):
                    view.close()
    if reason == "stopped" and view is not None:
        with suppress(OSError), stop.telling(events.close):
            view.say(f"Stopped. Go on with:  {go_on}")


def _print_as_json(event: Event) -> None:
    write(event.as_json() + "\n")


def _pass_over(_event: Event) -> None:
    """Tell nothing."""


class TrainingView:
    """How each event of a run looks. Prose and progress on stderr, generated text on stdout."""

    def __init__(self) -> None:
        self._console = prose_console()
        self._reading = ReadingView(self._console)
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("step"),
            BarColumn(bar_width=_BAR_WIDTH),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
        )
        self._task: TaskID | None = None
        self._plan: RunPlanned | None = None
        self._losses: list[float] = []
        self._last_step: StepDone | None = None
        self._last_line_s = -_PLAIN_LINE_S
        self._drawers: dict[type[Event], Callable[[Any], None]] = {
            Warned: lambda event: self.say(("Warning: ", "yellow"), event.message),
            Noted: lambda event: self.say(event.message),
            TextRead: self._reading.update,
            ShardsChecked: self._reading.update,
            RunPlanned: self._begin,
            StepDone: self._step,
            Evaluated: self._evaluated,
            Skipped: self._skipped,
            Saved: self._saved,
            Finished: self._finish,
            SampleStarted: self._sample,
            Token: lambda event: write(event.text),
            Generated: lambda _: write("\n"),
        }

    def draw(self, event: Event) -> None:
        """Show one event; kinds without a look are passed over."""
        drawer = self._drawers.get(type(event))
        if drawer is not None:
            drawer(event)

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Print one line of prose; a part is text, or text with its style."""
        self._console.print(Text.assemble(*parts), soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._reading.close()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _sample(self, event: SampleStarted) -> None:
        self.say(("\nIt writes:", "bold"))
        write(event.prompt)

    def _begin(self, plan: RunPlanned) -> None:
        self._plan = plan
        self._console.print(header(plan))
        if self._console.is_terminal:
            self._task = self._bar.add_task("", total=plan.max_iters, completed=plan.start_step)
            self._live = Live(get_renderable=self._frame, console=self._console, refresh_per_second=8)
            self._live.start()

    def _step(self, event: StepDone) -> None:
        self._losses.append(event.loss)
        if len(self._losses) > _KEPT_LOSSES:
            # The curve stays whole and coarse, however long the run.
            self._losses = [(a + b) / 2 for a, b in zip(self._losses[::2], self._losses[1::2], strict=False)]
        self._last_step = event
        if self._live is not None and self._task is not None:
            self._bar.update(self._task, completed=event.step, description=f"ETA {human_duration(event.eta_s)}")
        elif time.monotonic() - self._last_line_s >= _PLAIN_LINE_S:
            self._last_line_s = time.monotonic()
            self.say(f"{self._label(event.step)}  {_metrics(event)}, ETA {human_duration(event.eta_s)}")

    def _skipped(self, event: Skipped) -> None:
        first = f", {event.texts[0]}" if event.texts else ""
        self.say(
            ("Warning: ", "yellow"),
            f"step {event.step:,} is left out: {event.problem} (samples "
            f"{event.samples[0]:,} to {event.samples[1]:,}{first}); metrics.jsonl names its texts",
        )

    def _evaluated(self, event: Evaluated) -> None:
        newest = self._last_step
        train = f"  train {newest.loss:.4f}" if newest is not None and newest.step == event.step else ""
        val = (f"val {event.val_loss:.4f}", "bold")
        self.say(f"{self._label(event.step)}{train}  ", val, f"  {event.bits_per_byte:.3f} bits/byte")

    def _saved(self, event: Saved) -> None:
        saved = f"saved {human_bytes(event.size_bytes)} in {human_duration(event.elapsed_s)}"
        self.say((f"{self._label(event.step)}  {saved}", "dim"))

    def _finish(self, event: Finished) -> None:
        if self._live is not None and event.reason == "stopped":
            self._live.transient = True  # a bar that stands still would look like a run that hangs
        self.close()
        if event.reason == "already complete":
            self.say(f"{event.path} is complete at step {event.step:,}. To go on, give a larger --max-iters.")
            return
        losses = f"loss {event.loss:.4f}" if event.loss is not None else ""
        if event.val_loss is not None and event.bits_per_byte is not None:
            losses += f", val {event.val_loss:.4f} ({event.bits_per_byte:.3f} bits/byte)"
        verb = _ENDS.get(event.reason, "Saved")
        speed = f"{human_count(event.tokens_per_s)} tokens/s{_mfu(event.mfu)}, {human_duration(event.elapsed_s)}"
        self.say((verb, "bold"), f" at step {event.step:,}: {losses}, {speed}. Model: {event.path}")
        self.say((f"Time: {_shares(event.spent_s)}", "dim"))

    def _label(self, step: int) -> str:
        total = self._plan.max_iters if self._plan else step
        return f"step {step:>{len(str(total))}}/{total}"

    def _frame(self) -> Group:
        lines = [Text(_metrics(self._last_step))] if self._last_step else []
        if self._losses:
            curve = Text("loss ", style="dim")
            curve.append(sparkline(self._losses, _BAR_WIDTH), style="cyan")
            first, last = self._losses[0], self._losses[-1]
            curve.append(f" {first:.2f} → {last:.2f}", style="dim")
            lines.append(curve)
        return Group(self._bar, *lines)


def header(plan: RunPlanned) -> Table:
    """What is about to happen."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    how = plan.precision + ", compiled" * plan.compiled + ", own kernels" * plan.kernels
    grid.add_row("model", f"{plan.model_name}: {plan.parameters:,} parameters on {plan.device}, {how}")
    tokens = f"{plan.train_tokens:,} training + {plan.val_tokens:,} validation tokens"
    grid.add_row("text", f"{tokens} ({plan.tokenizer}, {plan.vocab_size:,} ids)")
    start = f"from step {plan.start_step:,} to {plan.max_iters:,}" if plan.start_step else f"{plan.max_iters:,} steps"
    if plan.start_step >= plan.max_iters:
        start = f"complete at step {plan.start_step:,}: no steps"
    passes = f"{plan.epochs:.2f} epochs: " if plan.epochs < 10 else f"{plan.epochs:,.0f} epochs: "  # noqa: PLR2004
    seen = "all of the text" if plan.epochs >= 1 else f"{plan.coverage:.1%} of the text"
    grid.add_row("plan", f"{start} of {plan.tokens_per_step:,} tokens, {passes}{seen} is seen")
    grid.add_row("batch", _batch(plan))
    grid.add_row("memory", f"about {human_bytes(plan.memory_bytes)}")
    grid.add_row("saves", plan.path)
    return grid


def _shares(spent_s: Mapping[str, float]) -> str:
    """What the run's time went to, steps first; parts too small to show are with the other ones."""
    total_s = sum(spent_s.values()) or 1.0
    shares = {_PARTS[part]: seconds / total_s for part, seconds in spent_s.items() if part in _PARTS}
    shown = [f"{share:.1%} {name}" for name, share in shares.items() if share >= _SMALLEST_SHARE]
    rest = 1 - sum(share for share in shares.values() if share >= _SMALLEST_SHARE)
    return ", ".join([*shown, f"{max(rest, 0.0):.1%} other"])


def _batch(plan: RunPlanned) -> str:
    """What a step learns from, and in how many pieces: the last one of them may be smaller."""
    context = plan.tokens_per_step // plan.batch_size
    if plan.micro_batch_size * plan.micro_steps == plan.batch_size:
        made_of = f"{plan.micro_steps} x {plan.micro_batch_size} sequences of {context:,}"
    else:
        made_of = f"{plan.batch_size} sequences of {context:,}, up to {plan.micro_batch_size} at once"
    return f"global batch {plan.tokens_per_step:,} tokens = {made_of}"


def _metrics(event: StepDone) -> str:
    speed = f"{human_count(event.tokens_per_s)} tokens/s{_mfu(event.mfu)}"
    return f"loss {event.loss:.4f}  lr {event.learning_rate:.2e}  {speed}"


def _mfu(share: float | None) -> str:
    return "" if share is None else f" ({share:.1%} MFU)"
