"""What is in a tokenizer, and what it makes of a text."""

import hashlib

from mypt.core.tokens.base import Tokenizer, as_utf8, decode
from mypt.core.tokens.build import bpe_table, build_tokenizer
from mypt.records.reports import PieceEntry, TokenizerReport, TokenizerTest
from mypt.records.tokenizer import BpeSpec, Gpt2Spec, TokenizerSpec, table_sha256

_LONGEST = 12
_SAMPLES = 24


def report_tokenizer(name: str, spec: TokenizerSpec) -> TokenizerReport:
    """Describe a tokenizer.

    Args:
        name: what the user called it.
        spec: the tokenizer.

    Raises:
        DataError: when GPT-2's table cannot be found.
    """
    tokenizer = build_tokenizer(spec)
    table = bpe_table(spec) if isinstance(spec, Gpt2Spec | BpeSpec) else None
    lengths = tokenizer.bytes_per_id
    longest = sorted(range(tokenizer.vocab_size), key=lambda token_id: (-int(lengths[token_id]), token_id))[:_LONGEST]
    spread = range(0, tokenizer.vocab_size, max(1, tokenizer.vocab_size // _SAMPLES))
    return TokenizerReport(
        name=name,
        kind=spec.kind,
        vocab_size=spec.vocab_size,
        pattern=table.pattern if table else None,
        special_tokens=spec.special_tokens,
        end_of_text_id=tokenizer.end_of_text_id,
        file_sha256=hashlib.sha256(spec.as_file().encode()).hexdigest(),
        table_sha256=table_sha256(table.pieces) if table else None,
        longest_pieces=tuple(PieceEntry(id=i, text=_shown(tokenizer, i)) for i in longest),
        sample_pieces=tuple(PieceEntry(id=i, text=_shown(tokenizer, i)) for i in spread if lengths[i]),
    )


def try_tokenizer(spec: TokenizerSpec, text: str) -> TokenizerTest:
    """Encode a text and decode it again.

    Raises:
        DataError: for text the tokenizer does not know, or when GPT-2's table cannot be found.
    """
    as_utf8(text)
    tokenizer = build_tokenizer(spec)
    ids = tuple(tokenizer.encode(text).tolist())
    return TokenizerTest(
        kind=spec.kind,
        encoder=tokenizer.encoder,
        text=text,
        ids=ids,
        pieces=tuple(_shown(tokenizer, token_id) for token_id in ids),
        round_trip=decode(tokenizer, list(ids)) == text,
    )


def _shown(tokenizer: Tokenizer, token_id: int) -> str:
    return tokenizer.decode_bytes(token_id).decode("utf-8", "backslashreplace")
