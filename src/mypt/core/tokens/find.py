"""The word behind --tokenization -> TokenizerSpec: a name, a tokenizer file, or a folder that holds one."""

from difflib import get_close_matches
from pathlib import Path

from mypt.errors import UsageError
from mypt.records.tokenizer import TOKENIZER_FILE, ByteSpec, Gpt2Spec, TokenizerSpec

NAMES = ("gpt2", "char", "byte")


def find_tokenizer(wanted: str) -> TokenizerSpec:
    """The tokenizer of a name or path that needs no text to be made.

    Args:
        wanted: gpt2, byte, a tokenizer file of ours or of others, a dataset, a model or one of its states.

    Raises:
        UsageError: when it is no known name and no path.
        DataError: when the file is no tokenizer we can use.
    """
    if wanted == "gpt2":
        return Gpt2Spec()
    if wanted == "byte":
        return ByteSpec()
    if wanted == "char":
        raise UsageError("char takes its characters from a text", hint="Name the tokenizer.json of a model or dataset.")
    from mypt.core.tokens.imported import import_tokenizer

    path = tokenizer_file(at_home(wanted))
    if path is None:
        raise _not_found(wanted)
    return import_tokenizer(path)


def at_home(written: str) -> Path:
    """The path with ~ resolved; that of a user who is not there stays as it is written."""
    try:
        return Path(written).expanduser()
    except RuntimeError:
        return Path(written)


def tokenizer_file(path: Path) -> Path | None:
    """The file itself, or the tokenizer.json of a dataset, of a saved state, or of a model's newest state."""
    if path.is_file():
        return path
    states = sorted(path.glob("step-*"), reverse=True)
    found = [folder / TOKENIZER_FILE for folder in (path, *states)]
    return next((file for file in found if file.is_file()), None)


def _not_found(wanted: str) -> UsageError:
    path = at_home(wanted)
    try:
        siblings = [str(each) for each in path.parent.iterdir()]
    except OSError:
        siblings = list[str]()
    near = get_close_matches(wanted, [*NAMES, *siblings], n=1)
    suggestion = f"Did you mean {near[0]}? " if near else ""
    what = f"no {TOKENIZER_FILE} in this folder" if path.is_dir() else "no such tokenizer"
    return UsageError(
        f"tokenization = {wanted}: {what} (allowed: {', '.join(NAMES)}, or the path of a tokenizer file)",
        hint=f"{suggestion}Train one: mypt tokenizer train TEXT --vocab-size 8000 --out my.json",
    )
