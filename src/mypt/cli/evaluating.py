"""How an evaluation looks: its progress, and a table with a row for each model."""

import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from mypt.cli.consoles import data_console, prose_console
from mypt.cli.preparing import ReadingView
from mypt.events import Event, Noted, Scored, Scoring, ShardsChecked, TextRead, Warned
from mypt.records.evaluation import EvaluationReport, ModelScore
from mypt.units import human_count, human_duration

_PLAIN_LINE_S = 5.0
_MOST_DIGITS = 1e9
_NAMED_TEXTS = 3
_NARROWEST_NAME = 8
_WHY_APART = (
    "the end of a text is held out by tokens, of which each tokenizer makes its own. --split all takes the same text.",
    "what --unknown skip leaves out is scored by nobody.",
)
_SPLITS = {
    "val": "the part that training holds out; for a text that no training saw: --split all",
    "train": "the part that training learns from; its figures say little about other texts",
    "all": "the whole text; its figures say how well new text is predicted only if no training saw it",
}


def draw_evaluation(events: Iterator[Event]) -> list[Scored]:
    """Tell the progress on stderr; give what each model came to."""
    view = _ScoringView(prose_console())
    scored: list[Scored] = []
    try:
        for event in events:
            view.draw(event)
            if isinstance(event, Scored):
                scored.append(event)
    finally:
        view.close()
    return scored


class _ScoringView:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._reading = ReadingView(console)
        self._bar = Progress(
            TextColumn("{task.fields[model]}"),
            BarColumn(bar_width=48),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, model="")
        self._line_s = time.monotonic()

    def draw(self, event: Event) -> None:
        match event:
            case TextRead() | ShardsChecked():
                self._reading.update(event)
            case Warned() | Noted():
                prefix = ("Warning: ", "yellow") if isinstance(event, Warned) else ""
                self._console.print(Text.assemble(prefix, event.message), soft_wrap=True)
            case Scoring():
                self._scoring(event)
            case Scored():
                self._bar.stop()
                told = f"{event.predicted_tokens:,} tokens in {human_duration(event.elapsed_s)}"
                speed = f"{human_count(event.tokens_per_s)} tokens/s on {event.device}"
                self._console.print(f"{event.model_name}: {told}, {speed}", soft_wrap=True)
            case _:
                pass

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._reading.close()
        self._bar.stop()

    def _scoring(self, event: Scoring) -> None:
        told = ""
        if event.done_tokens:
            left_s = event.elapsed_s / event.done_tokens * (event.total_tokens - event.done_tokens)
            told = f"loss {event.loss:.4f}  {human_count(event.done_tokens / max(event.elapsed_s, 1e-9))} tokens/s"
            told += f"  ETA {human_duration(left_s)}"
        if self._console.is_terminal:
            self._bar.start()
            self._bar.update(
                self._task,
                completed=event.done_tokens,
                total=event.total_tokens,
                description=told,
                model=event.model_name,
            )
        elif told and time.monotonic() - self._line_s >= _PLAIN_LINE_S:
            self._line_s = time.monotonic()
            share = event.done_tokens / event.total_tokens
            self._console.print(f"{event.model_name}  {share:.0%}  {told}", soft_wrap=True)


def show_evaluation(report: EvaluationReport) -> None:
    """Draw the table, and under it what the figures are of."""
    console = data_console()
    console.print(_table(report))
    console.print()
    for line in (*_about_text(report), *_about_figures(report)):
        console.print(Text(line, style="dim"), soft_wrap=True)


def _table(report: EvaluationReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", style="bold", overflow="fold", min_width=_NARROWEST_NAME)
    for name in ("step", "tokenizer", "context", "loss  ", "perplexity  ", "bits/byte  ", "top-1  "):
        table.add_column(name, justify="right", no_wrap=True)
    models, per_token = report.models, report.compares_tokens
    best_loss = _best([model.loss for model in models], min) if per_token else None
    best_bits = _best([model.bits_per_byte for model in models], min) if report.compares_bytes else None
    best_accuracy = _best([model.accuracy for model in models], max) if per_token else None
    for model in models:
        table.add_row(
            model.name,
            f"{model.step:,}",
            model.tokenizer,
            f"{model.block_size:,}",
            _figure(f"{model.loss:.4f}", is_best=model.loss == best_loss),
            _figure(_perplexity(model), is_best=model.loss == best_loss),
            _figure(f"{model.bits_per_byte:.4f}", is_best=model.bits_per_byte == best_bits),
            _figure(f"{model.accuracy:.2%}", is_best=model.accuracy == best_accuracy),
        )
    return table


def _best(figures: Sequence[float], choose: Callable[[Sequence[float]], float]) -> float | None:
    """The best of several; of one figure, or of equal ones, none is."""
    return choose(figures) if len(set(figures)) > 1 else None


def _figure(text: str, *, is_best: bool) -> Text:
    # The sign also where there are no colours; a space in its place keeps the digits below each other.
    return Text(f"{text} *", style="bold green") if is_best else Text(f"{text}  ")


def _perplexity(model: ModelScore) -> str:
    if model.perplexity is None or model.perplexity >= _MOST_DIGITS:
        return f"e^{model.loss:.1f}"
    return f"{model.perplexity:,.2f}"


def _about_text(report: EvaluationReport) -> Iterator[str]:
    names = ", ".join(report.text[:_NAMED_TEXTS])
    more = f" and {len(report.text) - _NAMED_TEXTS:,} more" if len(report.text) > _NAMED_TEXTS else ""
    tokens = _range([model.tokens for model in report.models])
    text_bytes = _range([model.text_bytes for model in report.models])
    yield f"Split '{report.split}' of {names}{more}: {tokens} tokens, {text_bytes} bytes of text."
    yield f"That is {_SPLITS[report.split]}."
    if not report.is_same_text:
        sizes = ", ".join(f"{model.name} {model.text_bytes:,}" for model in report.models)
        yield f"Not for all models the same bytes ({sizes}): {_WHY_APART[report.split == 'all']}"


def _about_figures(report: EvaluationReport) -> Iterator[str]:
    models = report.models
    yield "Loss in nats per token; every token but the first is predicted once."
    if all(model.stride == model.block_size for model in models):
        yield "Windows of the model's context, side by side: --stride N gives each token more context."
    else:
        least = f"{min(model.block_size - model.stride for model in models) + 1:,}"
        yield f"Windows {models[0].stride:,} tokens apart: each token but the first ones has {least} or more before it."
    if len(models) > 1:
        per_token = "" if report.compares_tokens else " Per token these models do not compare, per byte they do."
        yield f"* the best.{per_token}"


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
