"""mypt generate --mode chat: a conversation at the terminal, or line by line from a pipe."""

import json
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from mypt.cli.consoles import prose_console, write
from mypt.cli.writing import Look, as_json_line, say_what_it_is
from mypt.durable import write_text
from mypt.errors import MyptError, UnwritableError
from mypt.events import Event, Generated, Token, Warned

if TYPE_CHECKING:
    from mypt.core.generate.chat import Conversation

_NAME_AND_VALUE = 2
_HELP = """\
/reset           forget what was said
/save FILE       write all that was said to a new file
/set NAME VALUE  change a setting of the answers: /set temperature 0.5; /set alone shows all
/quit            leave (or Ctrl-D)
A line that ends in \\ goes on in the next one. Ctrl-C ends an answer.
To say something that begins with /, type //."""


def chat(conversation: "Conversation", look: Look, *, name: str, load_s: float) -> None:
    """Answer each message until there are no more."""
    prose = prose_console()
    if not look.quiet:
        say_what_it_is(name, " /help shows the commands.")
    for message in _messages():
        try:
            if message.startswith("/") and not message.startswith("//"):
                if message.strip() in {"/quit", "/exit"}:
                    return
                _command(conversation, message)
            else:
                _draw(conversation.say(message.removeprefix("/")), look, load_s)
        except KeyboardInterrupt:
            write("" if look.as_json else "\n")
        except UnwritableError:
            raise
        except MyptError as problem:
            prose.print(Text.assemble(("Error: ", "red"), problem.message), soft_wrap=True)
            if problem.hint:
                prose.print(f"  {problem.hint}", style="dim", soft_wrap=True)


def _messages() -> Iterator[str]:
    """What the user says: lines, joined where they end in a backslash. Ctrl-C while waiting drops what was begun."""
    with suppress(ImportError):
        import readline  # noqa: F401 - lines can be edited, and come back with the arrow keys
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    begun: list[str] = []
    while True:
        try:
            line = input("… " if begun else "> ") if is_terminal else _read_line()
        except EOFError:
            if is_terminal:
                write("\n")
            if begun:
                yield "\n".join(begun)
            return
        except KeyboardInterrupt:
            begun = []
            prose_console().print("\n/quit or Ctrl-D leaves", style="dim")
            continue
        if line.endswith("\\"):
            begun.append(line[:-1])
            continue
        message = "\n".join([*begun, line])
        begun = []
        # Bytes that are no UTF-8 are not told apart.
        if message := message.encode("utf-8", "surrogateescape").decode("utf-8", "replace"):
            yield message


def _read_line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n").removesuffix("\r")


def _draw(events: Generator[Event], look: Look, load_s: float) -> None:
    """Stream one answer; however it ends, its line does."""
    with closing(events):
        for event in events:
            match event:
                case Warned():
                    prose_console().print(Text.assemble(("Warning: ", "yellow"), event.message), soft_wrap=True)
                case Token() if not look.as_json:
                    write(event.text, raw=look.raw)
                case Generated():
                    write(as_json_line(event, load_s) if look.as_json else "\n")
                case _:
                    pass


def _command(conversation: "Conversation", line: str) -> None:
    """Do what a line with a slash asks for.

    Raises:
        MyptError: when that is not possible.
    """
    from mypt.errors import UsageError

    prose = prose_console()
    match line.split(maxsplit=2):
        case ["/help"]:
            prose.print(_HELP, soft_wrap=True)
        case ["/reset"]:
            conversation.reset()
            prose.print("forgotten", style="dim")
        case ["/save", name]:
            _save(conversation.history, name)
            prose.print(f"saved to {name}", style="dim")
        case ["/set", *names] if len(names) < _NAME_AND_VALUE:
            settings = conversation.config.model_dump(mode="json")
            for key in [name.replace("-", "_") for name in names] or settings:
                if key not in settings:
                    raise UsageError(f"/set {key}: no such setting", hint="/set alone shows all.")
                prose.print(f"/set {key} {json.dumps(settings[key], ensure_ascii=False)}", soft_wrap=True)
        case ["/set", name, value]:
            conversation.set(name, value)
        case _:
            raise UsageError(
                f"{line.split(maxsplit=1)[0]}: not a command, or not complete", hint="/help shows them all."
            )


def _save(text: str, name: str) -> None:
    """Write a text to a new file.

    Raises:
        UsageError: when there is one already, or the system refuses.
    """
    from mypt.errors import UsageError

    try:
        path = Path(name).expanduser()
        if path.exists():
            raise UsageError(f"{path}: is there already; nothing was written")
        write_text(path, text)
    except (OSError, ValueError, RuntimeError) as problem:  # also a NUL, or a user who has no home
        raise UsageError(f"{name}: cannot write it ({getattr(problem, 'strerror', None) or problem})") from None
