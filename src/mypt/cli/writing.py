"""How generated text looks."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rich.text import Text

from mypt.cli.consoles import prose_console, write
from mypt.events import Event, Generated, SampleStarted, Token, Warned
from mypt.records.checkpoint import TrainingState
from mypt.records.model import ModelConfig
from mypt.records.sampling import SamplingConfig
from mypt.units import human_count, human_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How the user wants to see it."""

    quiet: bool
    as_json: bool
    raw: bool
    """Whether a terminal is sent control characters too."""


def draw_generation(events: Iterator[Event], config: SamplingConfig, look: Look, device: str, *, load_s: float) -> None:
    """Stream text to stdout as it is made; say the rest on stderr."""
    done, began_s = list[Generated](), time.monotonic()
    is_in_line = False
    try:
        for event in events:
            is_in_line = isinstance(event, SampleStarted | Token) and not look.as_json
            _draw(event, config, look, load_s)
            if isinstance(event, Generated):
                done.append(event)
    except KeyboardInterrupt:
        write("\n" if is_in_line else "")  # the shell's own line begins after the text
        raise
    if not look.quiet:
        _show_speed(done, device, load_s, time.monotonic() - began_s)


def _draw(event: Event, config: SamplingConfig, look: Look, load_s: float) -> None:
    prose, is_prose = prose_console(), not (look.as_json or look.quiet)
    match event:
        case Warned():
            prose.print(Text.assemble(("Warning: ", "yellow"), event.message), soft_wrap=True)
        case Generated() if look.as_json:
            write(as_json_line(event, load_s))
        case SampleStarted() if is_prose:
            if config.num_samples > 1:
                prose.print(f"── sample {event.sample + 1} of {config.num_samples}", style="dim")
            # A question is not part of its answer; a beginning is part of its continuation.
            write(event.prompt if config.mode == "basic" else "", raw=look.raw)
        case Token() if not look.as_json:
            write(event.text, raw=look.raw)
        case Generated():
            write("\n")
        case _:
            pass


def say_what_it_is(name: str, more: str = "") -> None:
    """Whoever asks a model something should know that it was trained to go on."""
    words = f"{name} completes text: it goes on from what you write, and is no assistant.{more}"
    prose_console().print(words, style="dim", soft_wrap=True)


def show_model_line(name: str, state: TrainingState, config: ModelConfig, tokenizer: str) -> None:
    """Say in one line what model is about to write."""
    prose_console().print(
        f"{name}: {human_count(config.parameters)} parameters, step {state.step:,}, "
        f"{tokenizer} tokens, context {config.block_size}"
        + (f", val loss {state.val_loss:.4f}" if state.val_loss is not None else ""),
    )


def _show_speed(done: list[Generated], device: str, load_s: float, seconds: float) -> None:
    """One line about all samples; of one alone, also why it ended."""
    if not done:
        return
    tokens = sum(len(event.token_ids) for event in done)
    if len(done) == 1:
        speed, ended = done[0].tokens_per_s, f"; ended by {done[0].stopped_by}"
    else:
        speed, ended = tokens / seconds, ""
    count = f"{tokens:,} tokens" + (f" in {len(done):,} samples" if len(done) > 1 else "")
    prose_console().print(
        f"[{count}{f', {speed:,.0f} tokens/s' if speed else ''}, {device}; loading {human_duration(load_s)}, "
        f"first token {human_duration(done[0].first_token_s)}{ended}]",
        style="dim",
        soft_wrap=True,
    )


def as_json_line(event: Generated, load_s: float) -> str:
    """A sample as one line of JSON."""
    fields = {"schema": 1} | asdict(event) | {"load_s": load_s}
    # What was not asked for is not there.
    return json.dumps({key: value for key, value in fields.items() if value is not None}, ensure_ascii=False) + "\n"
