"""Tokenizer files of others -> TokenizerSpec.

tokenizer.json of Hugging Face, vocab.bpe, merges.txt, .tiktoken; and our own tokenizer.json.
A table is taken only when its ids are certain: checked by proof, and by the library `tokenizers` where installed.
"""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.exported import as_hugging_face
from mypt.core.tokens.formats import MergeTable, parse_table
from mypt.core.tokens.hugging_face import characters_of, parse_hugging_face
from mypt.core.tokens.patterns import CL100K_PATTERN, GPT2_PATTERN, O200K_PATTERN
from mypt.core.tokens.proofs import require_merges, require_same_ids, require_sound_pattern
from mypt.errors import DataError, UsageError
from mypt.records.base import read_json_bytes
from mypt.records.tokenizer import (
    END_OF_TEXT,
    GPT2_TABLE_SHA256,
    BpeSpec,
    ByteSpec,
    CharSpec,
    Gpt2Spec,
    TokenizerSpec,
    read_tokenizer_spec,
    table_sha256,
)

_END_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")


@dataclass(frozen=True, slots=True)
class _KnownTable:
    """A published table: a .tiktoken file holds neither its pattern nor its special tokens."""

    pattern: str
    special_tokens: Mapping[str, int]


_FIM = {"<|fim_prefix|>": 100_258, "<|fim_middle|>": 100_259, "<|fim_suffix|>": 100_260}
# cl100k_base and o200k_base, by the hash of the file.
_KNOWN_TABLES = {
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": _KnownTable(
        CL100K_PATTERN, {END_OF_TEXT: 100_257} | _FIM | {"<|endofprompt|>": 100_276}
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": _KnownTable(
        O200K_PATTERN, {END_OF_TEXT: 199_999, "<|endofprompt|>": 200_018}
    ),
}


def import_tokenizer(path: Path, pattern: str | None = None) -> TokenizerSpec:
    """Read a tokenizer file of any known format.

    Args:
        path: the file.
        pattern: pre-tokenizer pattern of a bare table; GPT-2's if not given and the table is not a published one.

    Raises:
        UsageError: when a pattern is given for a file that has its own.
        DataError: when the file is no byte-level BPE, or its ids would not be certain.
    """
    data = read_json_bytes(path, error=DataError)
    if not data.lstrip().startswith((b"{", b"[")):
        with _naming(path):
            return _from_table(data, pattern)
    if pattern is not None:
        raise UsageError(f"{path}: has its own pattern", hint="Leave --pattern out.")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{path}: not valid JSON ({problem})") from None
    if isinstance(content, dict) and "model" in content:
        with _naming(path):
            return _from_hugging_face(content)
    return read_tokenizer_spec(path)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Let errors begin with the file they are about."""
    try:
        yield
    except DataError as problem:
        raise DataError(f"{path}: {problem.message}", hint=problem.hint) from None


def _from_table(data: bytes, pattern: str | None) -> TokenizerSpec:
    try:
        table = parse_table(data)
    except ValueError as problem:
        raise DataError(
            f"no tokenizer we know ({problem})", hint="Known: tokenizer.json, vocab.bpe, merges.txt, .tiktoken."
        ) from None
    digest = table_sha256(table.pieces)
    known = _KNOWN_TABLES.get(digest) or _KnownTable(GPT2_PATTERN, {END_OF_TEXT: len(table.pieces)})
    pattern = pattern or known.pattern
    if digest == GPT2_TABLE_SHA256 and pattern == GPT2_PATTERN:
        return Gpt2Spec()
    return _proven(pattern, table, known.special_tokens)[0]


def _from_hugging_face(content: dict[str, Any]) -> TokenizerSpec:
    try:
        chars = characters_of(content)
        for plain in (ByteSpec(), *([CharSpec(chars=chars)] if chars else [])):
            # Of these only what is written as we write it: all else may read texts in another way.
            if content == json.loads(as_hugging_face(plain).as_json()):
                return plain
        pattern, special_tokens, table = parse_hugging_face(content)
    except ValueError as problem:
        raise DataError(f"cannot be used: {problem}") from None
    except (KeyError, TypeError, AttributeError) as problem:
        raise DataError(f"not a tokenizer.json of Hugging Face ({type(problem).__name__}: {problem})") from None
    is_gpt2s = (pattern, special_tokens) == (GPT2_PATTERN, Gpt2Spec().special_tokens)
    if is_gpt2s and table_sha256(table.pieces) == GPT2_TABLE_SHA256:
        return Gpt2Spec()
    spec, tokenizer = _proven(pattern, table, special_tokens)
    if find_spec("tokenizers") is not None:
        require_same_ids(tokenizer, plain_library(content), ())
    return spec


def _proven(pattern: str, table: MergeTable, special_tokens: Mapping[str, int]) -> tuple[BpeSpec, Tokenizer]:
    """The spec of a table whose ids are certain, and its tokenizer."""
    end_of_text = next((name for name in _END_NAMES if name in special_tokens), None)
    try:
        spec = BpeSpec.of(pattern, table.pieces, special_tokens, end_of_text)
    except ValueError as problem:
        raise DataError(f"cannot be used: {problem}") from None
    if table.merges is not None:
        require_merges(table.pieces, table.merges)
    tokenizer = build_tokenizer(spec)
    require_sound_pattern(pattern)
    return spec, tokenizer


def plain_library(content: Mapping[str, Any]) -> Callable[[str], list[int]]:
    """Text -> ids by the library `tokenizers`, which takes no special tokens from the text here.

    Raises:
        DataError: when the library cannot read the content of the file.
    """
    from tokenizers import Tokenizer as LibraryTokenizer

    try:
        library = LibraryTokenizer.from_str(json.dumps({**content, "added_tokens": [], "post_processor": None}))
    except Exception as problem:  # noqa: BLE001 - the library raises nothing narrower
        raise DataError(f"its own library cannot read it ({problem})") from None
    return lambda text: library.encode(text, add_special_tokens=False).ids
