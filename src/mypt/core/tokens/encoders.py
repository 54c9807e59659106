"""Text -> ranks of a byte-pair table, by a library: tiktoken always, gigatoken where it proves itself.

tiktoken is the truth. gigatoken is several times faster and is taken only after it gave the same
ranks on a battery of odd texts and on the first documents of the text at hand.
"""

import re
import tempfile
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tiktoken
from numpy.typing import NDArray

from mypt.core.tokens.base import as_utf8
from mypt.core.tokens.battery import BATTERY
from mypt.core.tokens.patterns import GIGATOKEN_SCHEMES, LLAMA3_PATTERN
from mypt.core.tokens.proofs import require_closed
from mypt.errors import DataError, MissingExtraError
from mypt.records.tokenizer import EncoderChoice, EncoderName

Ranks = NDArray[np.uint32]

# In longer runs of one kind tiktoken's pattern engine may give up; then it has the word, not gigatoken.
_LONG_RUN_CHARS = 500_000
_LONG_RUN = re.compile(rf"\s{{{_LONG_RUN_CHARS}}}|\S{{{_LONG_RUN_CHARS}}}")
# Under these patterns gigatoken 0.10 takes for one word what the pattern cuts: texts with it are tiktoken's.
_MISREAD = {LLAMA3_PATTERN: "\n\u00a0"}


@dataclass(frozen=True, slots=True)
class BpeTable:
    """What an encoder needs: the pattern that cuts words, and the pieces in rank order."""

    pattern: str
    pieces: tuple[bytes, ...]
    is_closed: bool = False
    """Known to have only pieces that merging by rank makes."""


class Encoder(Protocol):
    """Text -> ranks. Text is always plain: no special tokens are known here."""

    @property
    def name(self) -> str:
        """Library and version."""
        ...

    def encode(self, text: str) -> Ranks:
        """Encode one text.

        Raises:
            DataError: for half a surrogate pair, and text the pattern cannot cut.
        """
        ...


class TiktokenEncoder:
    """tiktoken: the reference."""

    def __init__(self, table: BpeTable) -> None:
        self.name = f"tiktoken {version('tiktoken')}"
        ranks = {piece: rank for rank, piece in enumerate(table.pieces)}
        try:
            # Without any special token tiktoken looks for the empty one at every character: half as fast.
            special_tokens = {"<|endoftext|>": len(ranks)}
            self._encoding = tiktoken.Encoding(
                "mypt", pat_str=table.pattern, mergeable_ranks=ranks, special_tokens=special_tokens
            )
        except ValueError as problem:
            raise DataError(f"the tokenizer's pattern is no regular expression tiktoken knows ({problem})") from None

    def encode(self, text: str) -> Ranks:
        """Encode one text."""
        as_utf8(text)
        try:
            return self._encoding.encode_to_numpy(text, disallowed_special=())
        except ValueError as problem:
            raise DataError(f"the tokenizer's pattern cannot cut this text ({problem})") from None


class GigatokenEncoder:
    """gigatoken, loaded without special tokens: with them it would find their names in the text.

    Texts go in one by one. The library's batches of awkward arrays were slower on one thread,
    and cost half a second and 55 MB for the import of awkward.
    """

    def __init__(self, table: BpeTable) -> None:
        scheme = GIGATOKEN_SCHEMES.get(table.pattern)
        if scheme is None:
            raise DataError("gigatoken does not know this tokenizer's pattern")
        from gigatoken import Tokenizer

        self.name = f"gigatoken {version('gigatoken')}"
        self._table = table
        self._misread = _MISREAD.get(table.pattern)
        # The library reads ranks from a file only.
        with tempfile.TemporaryDirectory(prefix="mypt-") as folder:
            path = Path(folder) / "table.tiktoken"
            lines = (b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(table.pieces))
            path.write_bytes(b"".join(lines))
            self._encode: Any = Tokenizer.from_tiktoken(path, scheme, {}).backend.encode

    def encode(self, text: str) -> Ranks:
        """Encode one text."""
        is_long = len(text) >= _LONG_RUN_CHARS and _LONG_RUN.search(text)
        if is_long or (self._misread is not None and self._misread in text):
            return self._reference.encode(text)
        return self._encode(as_utf8(text))

    @cached_property
    def _reference(self) -> TiktokenEncoder:
        return TiktokenEncoder(self._table)


def build_encoder(table: BpeTable, name: EncoderName) -> Encoder:
    """Load a table into a library.

    Raises:
        MissingExtraError: when gigatoken is not installed.
        DataError: when the library does not know the table's pattern.
    """
    if name == "tiktoken":
        return TiktokenEncoder(table)
    _require_gigatoken()
    return GigatokenEncoder(table)


def proven_encoder(table: BpeTable, samples: Sequence[str], wanted: EncoderChoice) -> EncoderName:
    """Choose the library for a table; gigatoken must agree with tiktoken here and now.

    Args:
        table: the byte-pair table.
        samples: texts to compare on, beside a fixed battery of odd ones.
        wanted: 'auto' takes gigatoken where it is installed and agrees.

    Raises:
        MissingExtraError: when gigatoken is asked for and not installed.
        DataError: when gigatoken is asked for and does not agree.
    """
    if wanted == "tiktoken":
        return "tiktoken"
    try:
        _require_gigatoken()
        if not table.is_closed:
            require_closed(table.pieces)  # gigatoken aborts on a table with a piece that no merge makes
        fast = build_encoder(table, "gigatoken")
        _require_same_ranks(fast, TiktokenEncoder(table), [*BATTERY, *samples])
    except (DataError, MissingExtraError):
        if wanted == "gigatoken":
            raise
        return "tiktoken"
    return "gigatoken"


def _require_gigatoken() -> None:
    try:
        import_module("gigatoken")
    except ImportError as problem:
        raise MissingExtraError(
            f"gigatoken cannot be loaded ({problem})", hint="Install it: pip install 'mypt[fast]'"
        ) from None


def _require_same_ranks(fast: Encoder, reference: Encoder, texts: Sequence[str]) -> None:
    for text in texts:
        if not np.array_equal(fast.encode(text), reference.encode(text)):
            raise DataError(
                f"{fast.name} and {reference.name} give different ids for {text[:60]!r}",
                hint="Leave the choice to MyPT (auto), or take tiktoken.",
            )
