"""How exports and imports look."""

from collections.abc import Iterable

from rich.text import Text

from mypt.cli.consoles import prose_console, write
from mypt.events import Event, Exported, Imported, Warned
from mypt.units import human_bytes, human_count


def draw_exchange(events: Iterable[Event], *, as_json: bool) -> None:
    """Draw a model's way to another program, or from it: what came of it, and who has confirmed it."""
    prose = prose_console()
    for event in events:
        if as_json:
            write(event.as_json() + "\n")
        elif isinstance(event, Warned):
            prose.print(Text.assemble(("Warning: ", "yellow"), event.message), soft_wrap=True)
        elif isinstance(event, Exported | Imported):
            prose.print(f"{event.source} -> {event.target}: {_content(event)}", soft_wrap=True)
            nearness = f" to {event.largest_difference:.1g}" if event.largest_difference else ""
            agreement = f"the same tokens, and the same numbers{nearness}"
            prose.print(f"Checked by {event.checked_by}: {agreement}.", soft_wrap=True)


def _content(event: Exported | Imported) -> str:
    if isinstance(event, Imported):
        return f"family {event.family}, {human_count(event.parameters)} parameters"
    return f"step {event.step:,}, {event.precision}, {human_bytes(event.size_bytes)}"
