"""TokenizerSpec -> a new tokenizer file. What is there already is never touched."""

import os
from pathlib import Path

from mypt.durable import make_directory
from mypt.errors import DataError
from mypt.records.tokenizer import TokenizerSpec


def require_free(out: Path) -> None:
    """Refuse a name that is taken.

    Raises:
        DataError: when something is there.
    """
    if os.path.lexists(out):
        raise DataError(f"{out}: already there; nothing was changed", hint="Choose another --out.")


def write_tokenizer(spec: TokenizerSpec, out: Path) -> None:
    """Write a tokenizer, atomically and durably.

    Raises:
        DataError: when the name is taken or cannot be written.
    """
    require_free(out)
    try:
        make_directory(out.absolute().parent)
        spec.write(out)
    except OSError as problem:
        raise DataError(f"{out}: cannot write it ({problem.strerror or problem})") from None
