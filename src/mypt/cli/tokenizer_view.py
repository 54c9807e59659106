"""How tokenizers look: while they are learned, and what is in them."""

from collections.abc import Iterator

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from mypt.cli.consoles import data_console, prose_console, write
from mypt.events import Event, Noted, TextSampled, TokenizerWritten
from mypt.records.reports import PieceEntry, TokenizerReport, TokenizerTest
from mypt.units import human_bytes, human_duration

_SHOWN_CHARS = 32


def draw_tokenizer_training(events: Iterator[Event], *, as_json: bool) -> None:
    """Draw the making of a tokenizer: a bar on a terminal, plain lines elsewhere."""
    console = prose_console()
    columns = (TextColumn("reading"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=as_json or not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        for event in events:
            if as_json:
                write(event.as_json() + "\n")
                continue
            match event:
                case TextSampled():
                    taken = f"{human_bytes(event.sample_bytes)} taken"
                    bar.update(task, completed=event.done_bytes, total=event.total_bytes, description=taken)
                case Noted():
                    console.print(event.message, style="dim")
                case TokenizerWritten():
                    console.print(
                        f"Tokenizer {event.path}: {event.kind}, {event.vocab_size:,} ids, learned from "
                        f"{human_bytes(event.sample_bytes)} in {human_duration(event.elapsed_s)}; "
                        f"{event.bytes_per_token:.2f} bytes per token of this text",
                        soft_wrap=True,
                    )
                    console.print(f"Use it:  mypt train TEXT --tokenization {event.path}", style="dim", soft_wrap=True)
                case _:
                    pass


def show_tokenizer(report: TokenizerReport) -> None:
    """Draw what is in a tokenizer."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    grid.add_row("tokenizer", report.name)
    grid.add_row("kind", report.kind)
    grid.add_row("vocabulary", f"{report.vocab_size:,} ids")
    if report.pattern is not None:
        grid.add_row("pattern", report.pattern)
    specials = ", ".join(f"{name} = {token_id}" for name, token_id in report.special_tokens.items())
    end_of_text = "none" if report.end_of_text_id is None else str(report.end_of_text_id)
    grid.add_row("special tokens", specials or "none")
    grid.add_row("end of text", end_of_text)
    grid.add_row("file sha256", report.file_sha256)
    if report.table_sha256 is not None:
        grid.add_row("table sha256", report.table_sha256)
    grid.add_row("longest", _listed(report.longest_pieces))
    grid.add_row("some", _listed(report.sample_pieces))
    data_console().print(grid)


def show_test(result: TokenizerTest) -> None:
    """Print the ids as data; the pieces and whether they decode to the text as prose."""
    write(" ".join(map(str, result.ids)) + "\n")
    prose = prose_console()
    prose.print("|".join(map(_visible, result.pieces)), soft_wrap=True)
    verdict = "they decode to the text" if result.round_trip else "they do NOT decode to the text"
    prose.print(f"{len(result.ids):,} ids by {result.encoder}; {verdict}", style="dim")


def _listed(pieces: tuple[PieceEntry, ...]) -> str:
    shown = ((piece.id, _visible(piece.text)) for piece in pieces)
    return "  ".join(f"{number}:'{text[:_SHOWN_CHARS]}{'…' * (len(text) > _SHOWN_CHARS)}'" for number, text in shown)


def _visible(text: str) -> str:
    """Escape what a terminal would act on."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
