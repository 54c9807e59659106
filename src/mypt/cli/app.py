"""The command list, the one error boundary, and `main`."""

import os
import shlex
import shutil
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from mypt import __version__
from mypt.cli import (
    compress,
    configs,
    convert,
    generate,
    import_dataset,
    inspect,
    params,
    prepare,
    quickstart,
    tokenizer,
    train,
    verify,
)
from mypt.errors import MyptError

app = typer.Typer(
    name="mypt",
    help="Train GPT models of any size on text of any size.",
    epilog="New here?  mypt quickstart",
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # The original's spelling with underscores works for every command and option.
        "token_normalize_func": lambda word: word.replace("_", "-"),
    },
)

_START, _DATA, _USE, _LOOK = "Start and train", "Data", "Use", "Look"

app.command("quickstart", rich_help_panel=_START)(quickstart.quickstart)
app.command("train", rich_help_panel=_START)(train.train)
app.command("generate", rich_help_panel=_USE)(generate.generate)
app.command("convert-legacy", rich_help_panel=_USE)(convert.convert_legacy)
app.command("prepare-dataset", rich_help_panel=_DATA)(prepare.prepare_dataset)
app.command("import-dataset", rich_help_panel=_DATA)(import_dataset.import_dataset)
app.command("compress", rich_help_panel=_DATA)(compress.compress)
app.add_typer(tokenizer.app, name="tokenizer", rich_help_panel=_DATA)
app.command("inspect", rich_help_panel=_LOOK)(inspect.inspect)
app.command("verify", rich_help_panel=_LOOK)(verify.verify)
app.command("params", rich_help_panel=_LOOK)(params.params)
app.command("configs", rich_help_panel=_LOOK)(configs.configs)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Show the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with errors.")] = False,
) -> None:
    """Train GPT models of any size on text of any size."""
    if version:
        typer.echo(f"mypt {__version__}")
        raise typer.Exit
    if debug:
        os.environ["MYPT_DEBUG"] = "1"
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line. The only place where errors become messages and exit codes."""
    for stream in (sys.stdout, sys.stderr):
        # Generated text holds any character; a terminal that cannot show one gets a '?'.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name=program_name())
    except MyptError as problem:
        _report(problem)
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): nothing to say and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as problem:
        if os.environ.get("MYPT_DEBUG"):
            raise
        sys.stderr.write(f"Error: {type(problem).__name__}: {problem}\nThis is a bug. See it whole: mypt --debug …\n")
        sys.exit(1)


def program_name() -> str:
    """What the user has to type for this program: `mypt`, or its path where it is not on PATH."""
    called = Path(sys.argv[0])
    if called.name != "mypt":
        return "python -m mypt"
    found = shutil.which("mypt")
    if found and Path(found).resolve() == called.resolve():
        return "mypt"
    return os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called)


def command_to_go_on() -> str:
    """The command line that goes on with what was stopped: the same one, without --fresh."""
    return f"{program_name()} {shlex.join(word for word in sys.argv[1:] if word != '--fresh')}"


def _report(problem: MyptError) -> None:
    if os.environ.get("MYPT_DEBUG"):
        import traceback

        traceback.print_exception(problem)
    sys.stderr.write(f"Error: {problem.message}\n")
    if problem.hint:
        sys.stderr.write(f"  {problem.hint}\n")
