"""Pieces of documents -> chunks of ids, one split each. Shared by memory and shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.text.documents import Piece
from mypt.core.tokens.base import Ids, Tokenizer, batch_of, id_dtype
from mypt.errors import DataError
from mypt.records.dataset import Split
from mypt.records.text import Unknown

_BATCH_CHARS = 2**19
_BATCH_PIECES = 2**12


@dataclass(frozen=True, slots=True)
class Chunk:
    """Ids of one split, in order, and the documents that end among them."""

    split: Split
    ids: Ids
    ends: NDArray[np.int64]
    """Where documents end: positions after their end-of-text, shape (documents,)."""
    end_records: bytes
    """The END_RECORDs of these documents, end to end."""
    files: tuple[tuple[int, str], ...] = ()
    """Where the first id of each file stands, in order."""


def encode_documents(pieces: Iterator[Piece], tokenizer: Tokenizer, unknown: Unknown | None = None) -> Iterator[Chunk]:
    """Encode pieces in order, with end-of-text after every document.

    Args:
        pieces: the text.
        tokenizer: makes the ids.
        unknown: what is done with characters it does not know; None where nothing can be done.

    Raises:
        DataError: for characters the tokenizer does not know, naming the file.
    """
    for batch in _batches(pieces):
        yield from _encode(batch, tokenizer, unknown)


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    batch = list[Piece]()
    chars = 0
    for piece in pieces:
        batch.append(piece)
        chars += len(piece.text)
        if chars >= _BATCH_CHARS or len(batch) >= _BATCH_PIECES:
            yield batch
            batch = list[Piece]()
            chars = 0
    if batch:
        yield batch


def _encode(batch: list[Piece], tokenizer: Tokenizer, unknown: Unknown | None) -> Iterator[Chunk]:
    ids, lengths = _ids_of(batch, tokenizer, unknown)
    ends = np.array([piece.end is not None for piece in batch])
    if tokenizer.end_of_text_id is not None and ends.any():
        after = np.cumsum(lengths)[ends]
        ids = np.insert(ids, after, tokenizer.end_of_text_id).astype(id_dtype(tokenizer.vocab_size), copy=False)
        lengths = lengths + ends
    in_val = np.array([piece.split == "val" for piece in batch])
    for split, chosen in (("train", ~in_val), ("val", in_val)):
        if chosen.any():
            picked = ids if chosen.all() else ids[np.repeat(chosen, lengths)]
            own = list(compress(batch, chosen))
            end_records = b"".join(piece.end for piece in own if piece.end is not None)
            after = np.cumsum(lengths[chosen])
            yield Chunk(split, picked, after[ends[chosen]], end_records, _files_of(own, after - lengths[chosen]))


def _files_of(batch: list[Piece], firsts: NDArray[np.int64]) -> tuple[tuple[int, str], ...]:
    files = dict[str, int]()
    for piece, first in zip(batch, firsts.tolist(), strict=True):
        files.setdefault(piece.source, first)
    return tuple((first, name) for name, first in files.items())


def _ids_of(batch: list[Piece], tokenizer: Tokenizer, unknown: Unknown | None) -> tuple[Ids, NDArray[np.int64]]:
    if unknown == "skip":
        return batch_of([tokenizer.encode_known(piece.text) for piece in batch], id_dtype(tokenizer.vocab_size))
    try:
        return tokenizer.encode_batch([piece.text for piece in batch])
    except DataError:
        for piece in batch:
            try:
                tokenizer.encode(piece.text)
            except DataError as problem:
                hint = "The model keeps the tokenizer it was made with; train a new one."
                if unknown == "error":
                    hint = "Leave such characters out: --unknown skip"
                raise DataError(f"{piece.source}: {problem.message}", hint=hint) from None
        raise
