"""One id per byte of UTF-8, and id 256 for end-of-text. Needs no table, knows every text."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mypt.core.tokens.base import Batch, Ids, as_utf8, batch_of, id_dtype
from mypt.records.tokenizer import ByteSpec


class ByteTokenizer:
    """Bytes <-> ids."""

    spec = ByteSpec()
    end_of_text_id = 256
    vocab_size = spec.vocab_size
    encoder = "byte"

    @cached_property
    def bytes_per_id(self) -> NDArray[np.int64]:
        """One each; end-of-text stands for none."""
        return np.append(np.ones(256, dtype=np.int64), 0)

    def encode(self, text: str) -> Ids:
        """The UTF-8 bytes of the text."""
        return np.frombuffer(as_utf8(text), dtype=np.uint8).astype(id_dtype(self.vocab_size))

    def encode_batch(self, texts: Sequence[str]) -> Batch:
        """The UTF-8 bytes of all texts."""
        return batch_of([self.encode(text) for text in texts], id_dtype(self.vocab_size))

    def encode_known(self, text: str) -> Ids:
        """The same: every text is known."""
        return self.encode(text)

    def decode_bytes(self, token_id: int) -> bytes:
        """The byte itself."""
        return b"" if token_id == self.end_of_text_id else bytes([token_id])
