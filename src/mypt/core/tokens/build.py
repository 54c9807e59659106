"""TokenizerSpec -> Tokenizer."""

from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.byte import ByteTokenizer
from mypt.core.tokens.char import CharTokenizer
from mypt.records.tokenizer import ByteSpec, CharSpec, TokenizerSpec


def build_tokenizer(spec: TokenizerSpec) -> Tokenizer:
    """Build the tokenizer a spec describes.

    Raises:
        DataError: when its table cannot be found.
    """
    if isinstance(spec, CharSpec):
        return CharTokenizer(spec)
    if isinstance(spec, ByteSpec):
        return ByteTokenizer()
    from mypt.core.tokens.gpt2 import Gpt2Tokenizer

    return Gpt2Tokenizer()
