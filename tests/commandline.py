"""The command line inside this process: the same boundary as `mypt`, without the cost of a new process."""

import functools
import io
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NamedTuple
from unittest.mock import patch

import typer
import typer.main

from mypt.cli.app import app, run

# Of what typer makes from the signatures of all commands, nothing is kept from one line to the next: once is enough.
_get_command_once = functools.cache(typer.main.get_command)


class Outcome(NamedTuple):
    """What one command line did."""

    code: int
    out: str
    err: str
    cpu_s: float


class Option(NamedTuple):
    """An option of a command, or an argument (which has no name)."""

    command: tuple[str, ...]
    name: str | None
    field: str
    variable: str | None
    is_switch: bool
    place: int


def run_in_process(*arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
    """Run `mypt ARGUMENTS...` here."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _environment(env or {}),
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(typer.main, "get_command", _get_command_once),
    ):
        started_s = time.process_time()
        code = run(arguments)
        cpu_s = time.process_time() - started_s
    return Outcome(code, out.getvalue(), err.getvalue(), cpu_s)


def every_option() -> list[Option]:
    """All options and arguments of all commands, as the command line itself knows them."""
    return [option for words, command in _commands(typer.main.get_command(app)) for option in _options(words, command)]


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield words, command
    for name, child in (children or {}).items():
        yield from _commands(child, (*words, name))


def _options(words: tuple[str, ...], command: Any) -> Iterator[Option]:
    place = 0
    for each in command.params:
        is_option = each.param_type_name == "option"
        is_switch = is_option and bool(each.is_flag)
        yield Option(words, each.opts[0] if is_option else None, each.name, each.envvar, is_switch, place)
        place += not is_option


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update({"COLUMNS": "100", "NO_COLOR": "1", "MYPT_OFFLINE": "1"} | dict(more))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
