"""Text -> tokens in memory: the same tokens, split the same way, as a dataset prepared from it has."""

import hashlib
import time
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Sequence
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.room import require_room, too_long
from mypt.core.data.splits import Corpus
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.core.data.text.documents import read_documents
from mypt.core.data.text.sides import SPLITS, split_note, split_ranges
from mypt.core.data.text.sources import find_sources, with_parts
from mypt.core.data.text.spans import Tally
from mypt.core.data.text.units import cut_units, unit_bytes_for
from mypt.core.data.tokenize import Chunk, encode_documents
from mypt.core.tokens.base import Ids, Tokenizer, id_dtype
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.char import char_spec_of
from mypt.core.tokens.find import find_tokenizer
from mypt.errors import UsageError
from mypt.events import Event, Noted, TextRead, Warned
from mypt.records.dataset import Split
from mypt.records.plan import STDIN, SourceFile
from mypt.records.run import DataConfig
from mypt.records.text import Unknown
from mypt.records.tokenizer import TokenizerSpec

# Memory grows in blocks of this many tokens: no reallocation, at most one block to spare.
_BLOCK_TOKENS = 2**22
_TOLD_EVERY_S = 0.2


def read_into_memory(
    config: DataConfig, spec: TokenizerSpec | None, unknown: Unknown | None = None
) -> Generator[Event, None, Corpus]:
    """Read and encode all text, telling progress. Arguments as of `read_corpus`.

    Raises:
        DataError: when the text is unfit.
        MemoryShortageError: when it is longer than there is memory.
        UsageError: for what only a prepared dataset can do.
    """
    if config.deduplicate:
        raise UsageError(
            "data.deduplicate: duplicates are found while a dataset is prepared",
            hint="First mypt prepare-dataset --deduplicate, then mypt train --dataset-dir",
        )
    sources = [with_parts(source) for source in find_sources(config.input_files, config.text_format)]
    tokenizer = build_tokenizer(spec or _spec_for(config, sources))
    dtype = id_dtype(tokenizer.vocab_size)
    memory: dict[Split, TokenBuffer] = {split: TokenBuffer(dtype) for split in SPLITS}
    try:
        yield from _fill(memory, config, sources, tokenizer, unknown)
    except MemoryError:
        raise too_long(sum(buffer.tokens for buffer in memory.values()), "and no memory is left") from None
    totals = {split: memory[split].tokens for split in SPLITS}
    ranges, rule = split_ranges(totals["train"], totals["val"], config.val_fraction)
    documents = sum(buffer.documents for buffer in memory.values())
    note = split_note(rule, ranges["train"].tokens, ranges["val"].tokens, documents, config.val_fraction)
    if documents and note:
        yield Noted(note)
    shards = {split: memory[ranges[split].stream].shards(ranges[split].start, ranges[split].end) for split in SPLITS}
    streams = {split: TokenStream(shards[split]) for split in SPLITS}
    return Corpus(tokenizer.spec, streams["train"], streams["val"], _fingerprint(shards["train"], shards["val"]))


def _spec_for(config: DataConfig, sources: Sequence[SourceFile]) -> TokenizerSpec:
    """The tokenizer a new model gets; `char` reads the whole text for its vocabulary.

    Raises:
        DataError: when there is no text to take characters from.
        UsageError: for a tokenization we do not know.
    """
    if config.tokenization != "char":
        return find_tokenizer(config.tokenization)
    if any(source.path == STDIN for source in sources):
        raise UsageError("char reads the text twice, standard input can be read once; save it in a file")
    units = cut_units(sources, unit_bytes_for(sources))
    return char_spec_of(piece.text for unit in units for piece in read_documents(unit, sources, config.text(), Tally()))


def _fill(
    memory: dict[Split, "TokenBuffer"],
    config: DataConfig,
    sources: Sequence[SourceFile],
    tokenizer: Tokenizer,
    unknown: Unknown | None,
) -> Generator[Event]:
    started_s = told_s = time.monotonic()
    total_bytes = sum(source.size_bytes for source in sources)
    tally, known_bytes = Tally(), 0

    def told() -> TextRead:
        tokens = sum(buffer.tokens for buffer in memory.values())
        return TextRead(min(tally.read_bytes, total_bytes), total_bytes, tokens, time.monotonic() - started_s)

    for unit in cut_units(sources, unit_bytes_for(sources)):
        for chunk in encode_documents(read_documents(unit, sources, config.text(), tally), tokenizer, unknown):
            if unknown == "skip":
                known_bytes += int(tokenizer.bytes_per_id[chunk.ids].sum())
            memory[chunk.split].append(chunk)
            if time.monotonic() - told_s >= _TOLD_EVERY_S:
                told_s = time.monotonic()
                yield told()
    yield told()
    if unknown == "skip" and known_bytes < tally.text_bytes:
        left_out = f"{tally.text_bytes - known_bytes:,} of {tally.text_bytes:,} bytes"
        yield Warned(f"characters that the vocabulary does not hold are left out: {left_out}")


def _fingerprint(train: Sequence[MemoryShard], val: Sequence[MemoryShard]) -> str:
    digest = hashlib.sha256()
    for shards in (train, val):
        digest.update(b"|")
        for shard in shards:
            digest.update(np.ascontiguousarray(shard.ids).data)
    return digest.hexdigest()


class TokenBuffer:
    """A row of tokens that grows block by block: two (or four) bytes a token, and the document ends."""

    def __init__(self, dtype: np.dtype[np.uint16 | np.uint32]) -> None:
        self._dtype = dtype
        self._full: list[Ids] = []
        self._open: Ids = np.empty(_BLOCK_TOKENS, dtype=dtype)
        self._used = 0
        self._ends: list[NDArray[np.int64]] = []
        self._files: list[tuple[int, str]] = []

    @property
    def tokens(self) -> int:
        """Tokens so far."""
        return len(self._full) * _BLOCK_TOKENS + self._used

    @property
    def documents(self) -> int:
        """Documents so far."""
        return sum(ends.size for ends in self._ends)

    def append(self, chunk: Chunk) -> None:
        """Add a chunk at the end."""
        self._ends.append(chunk.ends + self.tokens)
        for first, name in chunk.files:
            if not self._files or self._files[-1][1] != name:
                self._files.append((first + self.tokens, name))
        ids = chunk.ids
        while ids.size:
            taken = min(ids.size, _BLOCK_TOKENS - self._used)
            self._open[self._used : self._used + taken] = ids[:taken]
            self._used += taken
            ids = ids[taken:]
            if self._used == _BLOCK_TOKENS:
                require_room(self._open.nbytes, self.tokens)
                self._full.append(self._open)
                self._open = np.empty(_BLOCK_TOKENS, dtype=self._dtype)
                self._used = 0

    def shards(self, start: int, end: int) -> list[MemoryShard]:
        """Tokens start .. end - 1 as shards, in order, without copying."""
        all_ends = np.concatenate([*self._ends, np.empty(0, dtype=np.int64)])
        shards: list[MemoryShard] = []
        for number, block in enumerate([*self._full, self._open[: self._used]]):
            first = number * _BLOCK_TOKENS
            low, high = max(start, first), min(end, first + block.size)
            if low < high:
                inside = (all_ends > low) & (all_ends <= high)
                ids, ends = block[low - first : high - first], all_ends[inside] - low
                shards.append(MemoryShard(ids, ends, files=self._files_between(low, high)))
        return shards

    def _files_between(self, low: int, high: int) -> tuple[tuple[int, str], ...]:
        home = max(0, bisect_right(self._files, low, key=itemgetter(0)) - 1)
        after = bisect_left(self._files, high, key=itemgetter(0))
        return tuple((first - low, name) for first, name in self._files[home:after])
