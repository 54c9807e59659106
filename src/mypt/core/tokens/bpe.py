"""Byte-level byte-pair encoding, by tiktoken or gigatoken: for GPT-2's table and any other."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mypt.core.tokens.base import Batch, Ids, batch_of, id_dtype
from mypt.core.tokens.encoders import BpeTable, Encoder, Ranks
from mypt.records.tokenizer import BpeSpec, Gpt2Spec


class BpeTokenizer:
    """Text <-> ids. Text such as '<|endoftext|>' is encoded as plain text, never as the special id."""

    def __init__(self, spec: Gpt2Spec | BpeSpec, table: BpeTable, encoder: Encoder) -> None:
        self.spec = spec
        self.vocab_size = spec.vocab_size
        self.end_of_text_id = None if spec.end_of_text is None else spec.special_tokens[spec.end_of_text]
        self.encoder = encoder.name
        self._encoder = encoder
        self._dtype = id_dtype(self.vocab_size)
        ids = ids_of_ranks(spec, len(table.pieces))
        self._bytes_of_ids = dict(zip(ids.tolist(), table.pieces, strict=True))
        # Ranks are the ids as they are, unless special tokens stand before the end.
        is_shifted = bool(ids[-1] != len(table.pieces) - 1)
        self._ids_of_ranks = ids.astype(self._dtype) if is_shifted else None

    @cached_property
    def bytes_per_id(self) -> NDArray[np.int64]:
        """Bytes of each piece; special tokens stand for none."""
        return np.array([len(self.decode_bytes(token_id)) for token_id in range(self.vocab_size)], dtype=np.int64)

    def encode(self, text: str) -> Ids:
        """Encode text; special tokens in it are plain text.

        Raises:
            DataError: for half a surrogate pair, and a million spaces in a row.
        """
        return self._as_ids(self._encoder.encode(text))

    def encode_batch(self, texts: Sequence[str]) -> Batch:
        """Encode texts end to end.

        Raises:
            DataError: as `encode`.
        """
        return batch_of([self.encode(text) for text in texts], self._dtype)

    def encode_known(self, text: str) -> Ids:
        """The same: every text is known."""
        return self.encode(text)

    def decode_bytes(self, token_id: int) -> bytes:
        """The bytes of one piece; none for special tokens and ids that no piece has."""
        return self._bytes_of_ids.get(token_id, b"")

    def _as_ids(self, ranks: Ranks) -> Ids:
        return ranks.astype(self._dtype) if self._ids_of_ranks is None else self._ids_of_ranks[ranks]


def ids_of_ranks(spec: Gpt2Spec | BpeSpec, pieces: int) -> NDArray[np.intp]:
    """The id of each piece: in the order of their ranks, they take what special tokens leave free."""
    is_free = np.ones(spec.vocab_size, dtype=bool)
    is_free[list(spec.special_tokens.values())] = False
    return np.flatnonzero(is_free)[:pieces]
