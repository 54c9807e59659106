"""One id per character; the vocabulary comes from the training text."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mypt.core.tokens.base import Batch, Ids, batch_of, id_dtype
from mypt.errors import DataError
from mypt.records.tokenizer import CharSpec

_CODE_POINTS = 0x110000
_UNKNOWN = 0xFFFF_FFFF


class CharTokenizer:
    """Characters <-> ids, by table look-up in both directions."""

    end_of_text_id: int | None = None
    encoder = "char"

    def __init__(self, spec: CharSpec) -> None:
        self.spec = spec
        self.vocab_size = spec.vocab_size
        self._table = np.full(_CODE_POINTS, _UNKNOWN, dtype=np.uint32)
        self._table[[ord(char) for char in spec.chars]] = np.arange(self.vocab_size, dtype=np.uint32)

    @cached_property
    def bytes_per_id(self) -> NDArray[np.int64]:
        """UTF-8 length of each character."""
        return np.array([len(char.encode("utf-8", "surrogatepass")) for char in self.spec.chars], dtype=np.int64)

    def encode(self, text: str) -> Ids:
        """Encode text.

        Raises:
            DataError: naming characters outside the vocabulary.
        """
        ids = self._look_up(text)
        unknown = np.flatnonzero(ids == _UNKNOWN)
        if unknown.size:
            missing = sorted({text[index] for index in unknown[:1000]})
            shown = " ".join(repr(char) for char in missing[:8]) + (" …" if len(missing) > 8 else "")  # noqa: PLR2004
            raise DataError(
                f"the character vocabulary does not hold {shown}",
                hint="Generation can leave them out: --unknown skip",
            )
        return ids.astype(id_dtype(self.vocab_size))

    def encode_batch(self, texts: Sequence[str]) -> Batch:
        """Encode texts end to end.

        Raises:
            DataError: naming characters outside the vocabulary.
        """
        return batch_of([self.encode(text) for text in texts], id_dtype(self.vocab_size))

    def encode_known(self, text: str) -> Ids:
        """Encode text, leaving out unknown characters."""
        ids = self._look_up(text)
        return ids[ids != _UNKNOWN].astype(id_dtype(self.vocab_size))

    def decode_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes of one character."""
        return self.spec.chars[token_id].encode("utf-8", "surrogatepass")

    def _look_up(self, text: str) -> NDArray[np.uint32]:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        return self._table[points]


def char_spec_of(pieces: Iterable[str]) -> CharSpec:
    """The vocabulary of a text: its distinct characters in code-point order.

    Raises:
        DataError: when there are none.
    """
    chars: set[str] = set()
    for piece in pieces:
        chars.update(piece)
    if not chars:
        raise DataError("the text is empty: no characters to make a vocabulary of")
    return CharSpec(chars=tuple(sorted(chars)))
