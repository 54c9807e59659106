"""The command list, the one error boundary, and `main`."""

import errno
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from mypt import __version__
from mypt.cli import (
    bench,
    compress,
    configs,
    convert,
    evaluate,
    export,
    generate,
    import_dataset,
    import_model,
    inspect,
    params,
    prepare,
    quantize,
    quickstart,
    tokenizer,
    train,
    verify,
)
from mypt.cli.streams import open_streams, silence_stdout, visible
from mypt.errors import MemoryShortageError, MyptError, UsageError

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

_INTERRUPTED = 130
_MOST_SHOWN = 300
# The words of loaders and of Python itself where the address space ends.
_STARVED = ("failed to map segment", "cannot allocate memory", "error return without exception set")
# What the system says of paths that nothing can have.
_NO_PATHS = {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}

_START, _DATA, _USE, _LOOK = "Start and train", "Data", "Use", "Look"

app.command("quickstart", rich_help_panel=_START)(quickstart.quickstart)
app.command("train", rich_help_panel=_START)(train.train)
app.command("generate", rich_help_panel=_USE)(generate.generate)
app.command("evaluate", rich_help_panel=_USE)(evaluate.evaluate)
app.command("quantize", rich_help_panel=_USE)(quantize.quantize)
app.command("export", rich_help_panel=_USE)(export.export)
app.command("import", rich_help_panel=_USE)(import_model.import_model)
app.command("convert-legacy", rich_help_panel=_USE)(convert.convert_legacy)
app.command("prepare-dataset", rich_help_panel=_DATA)(prepare.prepare_dataset)
app.command("import-dataset", rich_help_panel=_DATA)(import_dataset.import_dataset)
app.command("compress", rich_help_panel=_DATA)(compress.compress)
app.add_typer(tokenizer.app, name="tokenizer", rich_help_panel=_DATA)
app.command("inspect", rich_help_panel=_LOOK)(inspect.inspect)
app.command("verify", rich_help_panel=_LOOK)(verify.verify)
app.command("params", rich_help_panel=_LOOK)(params.params)
app.command("configs", rich_help_panel=_LOOK)(configs.configs)
app.command("bench", rich_help_panel=_LOOK)(bench.bench)


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
    elif not _stands_somewhere():
        # Also libraries of torch end the whole process there, with words of their own.
        raise UsageError("the working directory was deleted", hint="Change to a folder that is there.")


def main() -> None:
    """Run the command line of this process."""
    open_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code. The only place where errors become messages."""
    try:
        code = app(list(arguments), prog_name=program_name(), standalone_mode=False)
        sys.stdout.flush()
    except MyptError as problem:
        return _report(problem)
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        silence_stdout()  # the reader of our output is gone (`| head`): nobody to say it to
        return 1
    except Exception as problem:  # noqa: BLE001 - the last door: nothing is a traceback
        return _report(_in_our_words(problem))
    return code if isinstance(code, int) else 0


def program_name() -> str:
    """What the user has to type for this program: `mypt`, or its path where it is not on PATH."""
    called = Path(sys.argv[0])
    if called.name != "mypt":
        return "python -m mypt"
    found = shutil.which("mypt")
    with suppress(OSError):  # the working directory may have been deleted
        if found and Path(found).resolve() == called.resolve():
            return "mypt"
        if called.is_relative_to(Path.cwd()):
            return os.path.relpath(called)
    return str(called)


def command_to_go_on() -> str:
    """The command line that goes on with what was stopped: the same one, without --fresh."""
    return f"{program_name()} {shlex.join(word for word in sys.argv[1:] if word != '--fresh')}"


def _stands_somewhere() -> bool:
    try:
        return bool(Path.cwd())
    except OSError:
        return False


def _in_our_words(problem: Exception) -> MyptError:
    """Name what others raised: a mistake in the command line, what the system refused, or a bug of ours."""
    # Typer brings its own copy of click: a mistake is told by what it can do.
    words = getattr(problem, "format_message", None)
    if words is not None:
        context = getattr(problem, "ctx", None)
        path = context.command_path if context else program_name()
        wanted: MyptError = UsageError(words(), hint=f"See: {path} --help")
    elif _is_starved(problem):
        wanted = MemoryShortageError(
            "out of memory", hint="Python and torch alone take almost a gigabyte of addresses; look at `ulimit -v`."
        )
    elif isinstance(problem, OSError):
        kind = UsageError if problem.errno in _NO_PATHS else MyptError
        wanted = kind(f"{str(problem.filename or 'the system')[:_MOST_SHOWN]}: {problem.strerror or problem}")
    else:
        hint = "This is a bug. See it whole: mypt --debug …"
        wanted = MyptError(f"{type(problem).__name__}: {problem}", hint=hint)
    wanted.__cause__ = problem
    return wanted


def _is_starved(problem: Exception) -> bool:
    """Whether memory ran out, also while a library was being loaded: the loader has words of its own for it."""
    if isinstance(problem, ImportError | SystemError):
        return any(words in str(problem).lower() for words in _STARVED)
    return isinstance(problem, MemoryError)


def _report(problem: MyptError) -> int:
    """Tell an error as one message; every line but its first is set in, so that no name can pass for one."""
    if os.environ.get("MYPT_DEBUG"):
        import traceback

        traceback.print_exception(problem)
    told = visible(problem.message).replace("\n", "\n  ")
    hint = visible(problem.hint).replace("\n", "\n  ")
    sys.stderr.write(f"Error: {told}\n" + (f"  {hint}\n" if hint else ""))
    return problem.exit_code
