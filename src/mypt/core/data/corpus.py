"""DataConfig -> Corpus: the tokens of both splits and the tokenizer that made them."""

import hashlib
from collections.abc import Generator

import numpy as np

from mypt.core.data.opened import open_datasets
from mypt.core.data.sources import find_files, require_text, split_by_position
from mypt.core.data.splits import Corpus
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.core.data.tokenize import Chunk, spec_for, tokenize
from mypt.core.tokens.base import Ids, id_dtype
from mypt.core.tokens.build import build_tokenizer
from mypt.events import Event, TextRead
from mypt.records.dataset import Split
from mypt.records.run import DataConfig
from mypt.records.tokenizer import TokenizerSpec

# Memory grows in blocks of this many tokens: no reallocation, at most one block to spare.
_PIECE_TOKENS = 2**22


def read_corpus(config: DataConfig, spec: TokenizerSpec | None = None) -> Generator[Event, None, Corpus]:
    """Open datasets, or read and encode text files into memory, telling progress.

    Args:
        config: the source.
        spec: the tokenizer of an existing model; a new one is made where it is None.

    Raises:
        UsageError: when no source is given.
        DataError: when the text or dataset is unfit or belongs to another tokenizer.
    """
    if config.dataset_dir:
        return (yield from open_datasets(config.dataset_dir, spec))
    require_text(config)
    return (yield from _read_into_memory(config, spec))


def _read_into_memory(config: DataConfig, spec: TokenizerSpec | None) -> Generator[TextRead, None, Corpus]:
    parts = split_by_position(find_files(config.input_files), config.val_fraction)
    spec = spec or spec_for(config.tokenization, parts, config.encoding_errors)
    tokenizer = build_tokenizer(spec)
    memory: dict[Split, TokenBuffer] = {
        split: TokenBuffer(id_dtype(tokenizer.vocab_size)) for split in ("train", "val")
    }
    for told in tokenize(parts, tokenizer, config.encoding_errors):
        if isinstance(told, Chunk):
            memory[told.split].append(told.ids)
        else:
            yield told
    digest = hashlib.sha256()
    for buffer in memory.values():
        digest.update(b"|")
        for block in buffer.blocks():
            digest.update(block.data)
    streams = {split: TokenStream([MemoryShard(b) for b in buffer.blocks()]) for split, buffer in memory.items()}
    return Corpus(tokenizer, streams["train"], streams["val"], digest.hexdigest())


class TokenBuffer:
    """A row of tokens that grows block by block: two (or four) bytes a token, nothing more."""

    def __init__(self, dtype: np.dtype[np.uint16 | np.uint32]) -> None:
        self._dtype = dtype
        self._full: list[Ids] = []
        self._open: Ids = np.empty(_PIECE_TOKENS, dtype=dtype)
        self._used = 0

    def append(self, ids: Ids) -> None:
        """Add ids at the end."""
        while ids.size:
            taken = min(ids.size, _PIECE_TOKENS - self._used)
            self._open[self._used : self._used + taken] = ids[:taken]
            self._used += taken
            ids = ids[taken:]
            if self._used == _PIECE_TOKENS:
                self._full.append(self._open)
                self._open = np.empty(_PIECE_TOKENS, dtype=self._dtype)
                self._used = 0

    def blocks(self) -> list[Ids]:
        """The tokens so far, in order."""
        return [*self._full, self._open[: self._used]]
