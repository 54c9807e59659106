"""How checking looks: file by file, then the steps that are done again."""

from collections.abc import Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from mypt.cli.consoles import data_console, prose_console, write
from mypt.events import Event, FileVerified, Replayed, Replaying, Verified, Warned
from mypt.units import human_bytes, human_duration


def draw_verification(events: Iterator[Event], *, as_json: bool) -> Iterator[Event]:
    """Draw what is found, and pass it on."""
    data, prose = data_console(), prose_console()
    columns = (TextColumn("steps done again"), BarColumn(bar_width=48), MofNCompleteColumn())
    with Progress(*columns, console=prose, transient=True, disable=as_json or not prose.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)
        for event in events:
            match event:
                case _ if as_json:
                    write(event.as_json() + "\n")
                case FileVerified() | Verified() | Replayed():
                    data.print(_line(event), soft_wrap=True)
                case Warned():
                    prose.print(Text.assemble(("Warning: ", "yellow"), event.message), soft_wrap=True)
                case Replaying():
                    bar.update(task, completed=event.done_steps, total=event.total_steps, visible=True)
                case _:
                    pass
            yield event


def _line(event: FileVerified | Verified | Replayed) -> Text:
    if isinstance(event, FileVerified):
        word = Text.assemble((event.problem, "red")) if event.problem else Text("ok", style="green")
        size = f"  {human_bytes(event.size_bytes)}" if not event.problem else ""
        return Text.assemble(event.path, "  ", word, (size, "dim"))
    if isinstance(event, Verified):
        whole = "all as written" if not event.damaged else f"{len(event.damaged)} damaged"
        told = f"{event.files} files, {human_bytes(event.size_bytes)} in {human_duration(event.elapsed_s)}: "
        return Text.assemble(told, (whole, "bold"))
    same = "the same bits" if not event.differing else f"{len(event.differing)} differ"
    steps = f"steps {event.first_step + 1:,} to {event.last_step:,} done again in {human_duration(event.elapsed_s)}"
    return Text.assemble(f"{steps}, {event.compared} tensors and numbers compared: ", (same, "bold"))
