"""How generated text and conversions look."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mypt.cli.consoles import prose_console, write
from mypt.errors import MyptError
from mypt.events import Converted, Event, Generated, Noted, SampleStarted, Token, Warned
from mypt.records.checkpoint import TrainingState
from mypt.records.model import ModelConfig
from mypt.records.sampling import SamplingConfig
from mypt.units import human_count, human_duration


def draw_generation(
    events: Iterator[Event], config: SamplingConfig, *, load_s: float, quiet: bool, as_json: bool
) -> None:
    """Stream text to stdout as it is made; say the rest on stderr."""
    prose = prose_console()
    for event in events:
        match event:
            case Warned():
                prose.print(Text.assemble(("Warning: ", "yellow"), event.message), soft_wrap=True)
            case Generated() if as_json:
                write(_as_json(event, load_s) + "\n")
            case SampleStarted() if not (as_json or quiet):
                if config.num_samples > 1:
                    prose.print(f"── sample {event.sample + 1} of {config.num_samples}", style="dim")
                # A question is not part of its answer; a beginning is part of its continuation.
                write(event.prompt if config.mode == "basic" else "")
            case Token() if not as_json:
                write(event.text)
            case Generated():
                write("\n")
                if not quiet:
                    _show_speed(prose, event, load_s)
            case _:
                pass


def show_model_line(state: TrainingState, config: ModelConfig, tokenizer: str) -> None:
    """Say in one line what model is about to write."""
    prose_console().print(
        f"{state.model_name}: {human_count(config.parameters)} parameters, step {state.step:,}, "
        f"{tokenizer} tokens, context {config.block_size}"
        + (f", val loss {state.val_loss:.4f}" if state.val_loss is not None else ""),
    )


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


def _show_speed(prose: Console, event: Generated, load_s: float) -> None:
    speed = f", {event.tokens_per_s:,.0f} tokens/s" if event.tokens_per_s else ""
    prose.print(
        f"[{len(event.token_ids)} tokens{speed}; loading {human_duration(load_s)}, "
        f"first token {human_duration(event.first_token_s)}; ended by {event.stopped_by}]",
        style="dim",
    )


def _as_json(event: Generated, load_s: float) -> str:
    fields = {
        "schema": 1,
        "sample": event.sample,
        "prompt": event.prompt,
        "text": event.text,
        "token_ids": event.token_ids,
        "stopped_by": event.stopped_by,
        "tokens_per_s": event.tokens_per_s,
        "load_s": load_s,
        "first_token_s": event.first_token_s,
    }
    return json.dumps(fields, ensure_ascii=False)


def _show_converted(prose: Console, event: Converted) -> None:
    verb = "would convert" if event.dry_run else "converted"
    optimizer = "with optimizer state" if event.has_optimizer else "without optimizer state"
    prose.print(
        f"{verb} {event.source} -> {event.target}: step {event.step:,}, {event.parameters:,} parameters, "
        f"{event.tokenizer} tokens, {optimizer}",
        soft_wrap=True,
    )
