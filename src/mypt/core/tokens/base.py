"""What every tokenizer can do. Text in, flat arrays of ids out; never Python lists of a corpus."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mypt.errors import DataError
from mypt.records.dataset import TokenType
from mypt.records.tokenizer import TokenizerSpec

Ids = NDArray[np.uint16 | np.uint32]
Batch = tuple[Ids, NDArray[np.int64]]
"""Ids of several texts end to end, and the number of ids of each text, shape (texts,)."""


class Tokenizer(Protocol):
    """Text <-> ids. Special tokens are never taken from text; only `end_of_text_id` is special."""

    @property
    def spec(self) -> TokenizerSpec:
        """What to store so that the same tokenizer can be built again."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids, end-of-text included, padding excluded."""
        ...

    @property
    def end_of_text_id(self) -> int | None:
        """The id after each document, if this tokenizer has one."""
        ...

    @property
    def encoder(self) -> str:
        """What turns text into ids, with its version: 'tiktoken 0.14.0', 'char'."""
        ...

    @property
    def bytes_per_id(self) -> NDArray[np.int64]:
        """UTF-8 bytes each id stands for; 0 for special ones. Shape (vocab_size,)."""
        ...

    def encode(self, text: str) -> Ids:
        """Encode text as a flat array of the smallest unsigned type that holds the vocabulary.

        Raises:
            DataError: for characters the tokenizer does not know.
        """
        ...

    def encode_batch(self, texts: Sequence[str]) -> Batch:
        """Encode texts end to end: the ids of all, and how many belong to each.

        Raises:
            DataError: for characters the tokenizer does not know.
        """
        ...

    def encode_known(self, text: str) -> Ids:
        """Encode text, leaving out characters the tokenizer does not know."""
        ...

    def decode_bytes(self, token_id: int) -> bytes:
        """Give the UTF-8 bytes of one id; a character may be spread over several ids."""
        ...


def decode(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Decode ids to text; broken characters become U+FFFD."""
    return b"".join(tokenizer.decode_bytes(token_id) for token_id in ids).decode("utf-8", errors="replace")


def batch_of(arrays: Sequence[Ids], dtype: np.dtype[np.uint16 | np.uint32]) -> Batch:
    """Lay the ids of several texts end to end."""
    lengths = np.fromiter((ids.size for ids in arrays), dtype=np.int64, count=len(arrays))
    return (np.concatenate(arrays) if arrays else np.empty(0, dtype=dtype)), lengths


def as_utf8(text: str) -> bytes:
    """Encode text as UTF-8.

    Raises:
        DataError: for half a surrogate pair, which is no text.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise DataError(f"not valid Unicode text (half a surrogate pair at character {problem.start:,})") from None


def token_type(vocab_size: int) -> TokenType:
    """What ids are stored as: two bytes while the vocabulary allows it."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


def stored_dtype(kind: TokenType) -> np.dtype[np.uint16 | np.uint32]:
    """The type of ids in memory and on disk, little-endian."""
    return np.dtype("<u2") if kind == "uint16" else np.dtype("<u4")


def id_dtype(vocab_size: int) -> np.dtype[np.uint16 | np.uint32]:
    """The type ids of this vocabulary are stored in."""
    return stored_dtype(token_type(vocab_size))
