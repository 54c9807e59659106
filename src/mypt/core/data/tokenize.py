"""Parts of text files -> chunks of ids with document ends. Shared by memory and shards."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mypt.core.data.sources import Part, read_pieces
from mypt.core.tokens.base import Ids, Tokenizer, id_dtype
from mypt.core.tokens.char import char_spec_of
from mypt.core.tokens.find import find_tokenizer
from mypt.errors import DataError
from mypt.events import TextRead
from mypt.records.dataset import Split
from mypt.records.text import EncodingErrors
from mypt.records.tokenizer import TokenizerSpec

_PROGRESS_S = 0.2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some ids of one split; `ends_document` when a document ends with them."""

    split: Split
    ids: Ids
    ends_document: bool


def spec_for(tokenization: str, parts: Sequence[Part], errors: EncodingErrors) -> TokenizerSpec:
    """The tokenizer a new model or dataset gets; `char` reads the whole text for its vocabulary.

    Raises:
        UsageError: when the tokenization is neither a name nor a path we know.
        DataError: when there is no text to take characters from, or the file is no tokenizer.
    """
    if tokenization != "char":
        return find_tokenizer(tokenization)
    if not any(part.size_bytes for part in parts):
        raise DataError("the text is empty: no characters to make a vocabulary of")
    return char_spec_of(piece for part in parts for piece in read_pieces(part, errors))


def tokenize(parts: Sequence[Part], tokenizer: Tokenizer, errors: EncodingErrors) -> Iterator[Chunk | TextRead]:
    """Encode parts in order, with end-of-text after every document, telling progress now and then.

    Raises:
        DataError: for bytes that are not UTF-8 and characters the tokenizer does not know.
    """
    started_s = told_s = time.monotonic()
    total_bytes = sum(part.size_bytes for part in parts)
    done_bytes = tokens = 0
    for part in parts:
        for piece in read_pieces(part, errors):
            ids = _encode(tokenizer, piece, part)
            done_bytes += len(piece.encode("utf-8"))
            tokens += ids.size
            yield Chunk(part.split, ids, ends_document=False)
            now_s = time.monotonic()
            if now_s - told_s >= _PROGRESS_S:
                told_s = now_s
                yield TextRead(min(done_bytes, total_bytes), total_bytes, tokens, now_s - started_s)
        if part.ends_document:
            end_id = tokenizer.end_of_text_id
            end = np.array([] if end_id is None else [end_id], dtype=id_dtype(tokenizer.vocab_size))
            tokens += end.size
            yield Chunk(part.split, end, ends_document=True)
    yield TextRead(total_bytes, total_bytes, tokens, time.monotonic() - started_s)


def _encode(tokenizer: Tokenizer, piece: str, part: Part) -> Ids:
    try:
        return tokenizer.encode(piece)
    except DataError as problem:
        raise DataError(
            f"{part.path}: {problem.message}", hint="The model keeps the tokenizer it was made with; train a new one."
        ) from None
