"""Many command lines, one after another, in one child process: the real `main`, waking torch only once."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from conftest import clean_environment

_DRIVER = """
import contextlib, functools, io, json, sys
{prelude}
import typer.main
from mypt.cli.app import main
typer.main.get_command = functools.cache(typer.main.get_command)
results = []
for words in json.load(open(sys.argv[1])):
    sys.argv = ["mypt", *words]
    told, out, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    results.append((code, told.getvalue(), out.getvalue()))
    {after}
print(json.dumps(results))
"""


class Told(NamedTuple):
    """What a command line came to."""

    line: Sequence[str]
    returncode: int
    stderr: str
    stdout: str


def run_commands(
    folder: Path,
    lines: Sequence[Sequence[object]],
    *,
    prelude: str = "",
    after: str = "",
    env: Mapping[str, str] | None = None,
) -> list[Told]:
    """Run command lines in a folder; Python may be run before the first and after each of them."""
    words = [[str(word) for word in line] for line in lines]
    todo = folder / "command-lines.json"
    todo.write_text(json.dumps(words))
    path = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    child = subprocess.run(
        [sys.executable, "-c", _DRIVER.format(prelude=prelude, after=after), str(todo)],
        cwd=folder,
        env=clean_environment() | {"PYTHONPATH": path} | dict(env or {}),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return [Told(line, *result) for line, result in zip(words, json.loads(child.stdout), strict=True)]


def without(module: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line on a machine where this package is not installed."""
    code = f"import sys; sys.modules[{module!r}] = None; sys.argv[0] = 'mypt'; from mypt.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd, env=clean_environment(), capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
