"""TokenizerSpec -> Tokenizer. The libraries of byte-pair encoding wake only for specs that need them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.byte import ByteTokenizer
from mypt.core.tokens.char import CharTokenizer
from mypt.records.tokenizer import (
    BpeSpec,
    ByteSpec,
    CharSpec,
    EncoderChoice,
    EncoderName,
    Gpt2Spec,
    TokenizerSpec,
)

if TYPE_CHECKING:
    from mypt.core.tokens.encoders import BpeTable


def build_tokenizer(spec: TokenizerSpec, encoder: EncoderName = "tiktoken") -> Tokenizer:
    """Build the tokenizer a spec describes.

    Args:
        spec: what to build.
        encoder: the library for byte-pair tables; others need none.

    Raises:
        MissingExtraError: when the library is not installed.
        DataError: when GPT-2's table cannot be found, or the library does not know the pattern.
    """
    if isinstance(spec, CharSpec):
        return CharTokenizer(spec)
    if isinstance(spec, ByteSpec):
        return ByteTokenizer()
    from mypt.core.tokens.bpe import BpeTokenizer
    from mypt.core.tokens.encoders import build_encoder

    table = bpe_table(spec)
    return BpeTokenizer(spec, table, build_encoder(table, encoder))


def choose_encoder(spec: TokenizerSpec, samples: Sequence[str], wanted: EncoderChoice) -> EncoderName:
    """Choose the library that encodes: gigatoken only where it gives tiktoken's ids on these texts.

    Args:
        spec: the tokenizer; char and byte need no library and get 'tiktoken'.
        samples: the first documents of the text; a battery of odd texts is always compared.
        wanted: 'auto' takes gigatoken where it is installed and agrees.

    Raises:
        MissingExtraError: when gigatoken is asked for and not installed.
        DataError: when gigatoken is asked for and gives other ids.
    """
    if isinstance(spec, CharSpec | ByteSpec):
        return "tiktoken"
    from mypt.core.tokens.encoders import proven_encoder

    return proven_encoder(bpe_table(spec), samples, wanted)


def bpe_table(spec: Gpt2Spec | BpeSpec) -> "BpeTable":
    """The pattern and pieces of a byte-pair spec.

    Raises:
        DataError: when GPT-2's table cannot be found.
    """
    from mypt.core.tokens.encoders import BpeTable

    if isinstance(spec, BpeSpec):
        return BpeTable(spec.pattern, tuple(spec.decoded_pieces()))
    from mypt.core.tokens.gpt2_table import load_pieces
    from mypt.core.tokens.patterns import GPT2_PATTERN

    return BpeTable(GPT2_PATTERN, load_pieces(), is_closed=True)
