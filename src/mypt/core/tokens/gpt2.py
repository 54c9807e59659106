"""GPT-2's byte-pair encoding through tiktoken, with a table found without the network."""

from functools import cached_property

import numpy as np
import tiktoken
from numpy.typing import NDArray
from tiktoken_ext.openai_public import r50k_pat_str

from mypt.core.tokens.base import Ids, as_utf8, id_dtype
from mypt.core.tokens.gpt2_table import load_ranks
from mypt.errors import DataError
from mypt.records.tokenizer import Gpt2Spec


class Gpt2Tokenizer:
    """50,257 ids. Text such as '<|endoftext|>' is encoded as plain text, never as the special id."""

    spec = Gpt2Spec()
    end_of_text_id = 50_256
    vocab_size = 50_257

    def __init__(self) -> None:
        self._encoding = tiktoken.Encoding(
            "gpt2",
            pat_str=r50k_pat_str,
            mergeable_ranks=load_ranks(),
            special_tokens={"<|endoftext|>": self.end_of_text_id},
        )

    @cached_property
    def bytes_per_id(self) -> NDArray[np.int64]:
        """Bytes of each of the 50,256 pieces; end-of-text stands for none."""
        return np.array([len(self.decode_bytes(token_id)) for token_id in range(self.vocab_size)], dtype=np.int64)

    def encode(self, text: str) -> Ids:
        """Encode text; special tokens in it are plain text.

        Raises:
            DataError: for half a surrogate pair, and a million spaces in a row.
        """
        as_utf8(text)
        try:
            ids = self._encoding.encode_to_numpy(text, disallowed_special=())
        except ValueError as problem:
            raise DataError(f"GPT-2's pre-tokenizer cannot split this text ({problem})") from None
        return ids.astype(id_dtype(self.vocab_size))

    def encode_known(self, text: str) -> Ids:
        """The same: every text is known."""
        return self.encode(text)

    def decode_bytes(self, token_id: int) -> bytes:
        """The bytes of one piece."""
        return b"" if token_id == self.end_of_text_id else self._encoding.decode_single_token_bytes(token_id)
