"""TokenizerSpec -> the tokenizer.json of Hugging Face: the same ids for every text."""

from typing import Any

from mypt.core.tokens.bpe import ids_of_ranks
from mypt.core.tokens.build import bpe_table
from mypt.core.tokens.formats import written
from mypt.core.tokens.patterns import GPT2_PATTERN
from mypt.core.tokens.proofs import last_merges
from mypt.errors import DataError
from mypt.records.hugging_face import AddedToken, BpeModel, TokenizerFile
from mypt.records.tokenizer import BpeSpec, ByteSpec, CharSpec, Gpt2Spec, TokenizerSpec

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def as_hugging_face(spec: TokenizerSpec) -> TokenizerFile:
    """Describe a tokenizer as a byte-pair encoding, which each of ours is: characters and bytes have no merges.

    Raises:
        DataError: when GPT-2's table cannot be found, or a special token is called as a piece is written.
    """
    added = [AddedToken(id=token_id, content=name) for name, token_id in spec.special_tokens.items()]
    added_tokens = tuple(sorted(added, key=lambda token: token.id))
    if isinstance(spec, CharSpec):
        # A character that it does not know is left out, as --unknown skip does.
        vocab = {char: token_id for token_id, char in enumerate(spec.chars)}
        model = BpeModel(ignore_merges=False, vocab=vocab, merges=())
        return TokenizerFile(added_tokens=added_tokens, pre_tokenizer=None, decoder={"type": "Fuse"}, model=model)
    return TokenizerFile(
        added_tokens=added_tokens, pre_tokenizer=_cuts(spec), decoder=_BYTES | {"use_regex": True}, model=_table(spec)
    )


def _cuts(spec: Gpt2Spec | ByteSpec | BpeSpec) -> dict[str, Any]:
    """How text becomes words, and words bytes."""
    if isinstance(spec, ByteSpec):
        return _BYTES | {"use_regex": False}
    pattern = GPT2_PATTERN if isinstance(spec, Gpt2Spec) else spec.pattern
    if pattern == GPT2_PATTERN:
        return _BYTES | {"use_regex": True}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _BYTES | {"use_regex": False}]}


def _table(spec: Gpt2Spec | ByteSpec | BpeSpec) -> BpeModel:
    """Pieces and merges. Special tokens are in the vocabulary too: else others number them after the last piece.

    Raises:
        DataError: when a special token is called as a piece is written.
    """
    if isinstance(spec, ByteSpec):
        vocab = {written(bytes([byte])): byte for byte in range(256)} | spec.special_tokens
        return BpeModel(ignore_merges=False, vocab=vocab, merges=())
    pieces = bpe_table(spec).pieces
    ids = ids_of_ranks(spec, len(pieces)).tolist()
    vocab = {written(piece): token_id for piece, token_id in zip(pieces, ids, strict=True)}
    if doubled := vocab.keys() & spec.special_tokens.keys():
        raise DataError(f"{min(doubled)!r} is a piece and a special token; others tell them apart by their names")
    vocab |= spec.special_tokens
    merges, is_closed = list[tuple[str, str]](), True
    for _, parts in last_merges(pieces):
        if len(parts) == 2:  # noqa: PLR2004 - a pair
            merges.append((written(parts[0]), written(parts[1])))
        else:
            is_closed = False  # a word that is this piece is taken as it is, and nothing else becomes it
    return BpeModel(ignore_merges=not is_closed, vocab=vocab, merges=tuple(merges))
