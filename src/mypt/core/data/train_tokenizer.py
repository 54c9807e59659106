"""Text files -> a tokenizer of their own, written as tokenizer.json.

files -> blocks -> a sample chosen by content -> merges (library `tokenizers`) -> ranks -> proof -> file

Which blocks are the sample depends on their text and the seed alone, so the order of files and the
number of threads change nothing.
"""

import hashlib
import heapq
import json
import time
from collections.abc import Generator, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from mypt.core.data.text.documents import read_documents
from mypt.core.data.text.sources import find_sources, with_parts
from mypt.core.data.text.spans import Tally
from mypt.core.data.text.units import cut_units, unit_bytes_for
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.char import char_spec_of
from mypt.core.tokens.hugging_face import parse_hugging_face
from mypt.core.tokens.imported import plain_library
from mypt.core.tokens.patterns import GPT2_PATTERN
from mypt.core.tokens.proofs import require_merges, require_same_ids
from mypt.core.tokens.write import require_free, write_tokenizer
from mypt.errors import DataError, MissingExtraError
from mypt.events import Event, Noted, TextSampled, TokenizerWritten
from mypt.records.plan import STDIN
from mypt.records.text import TextConfig
from mypt.records.tokenizer import END_OF_TEXT, BpeSpec, TokenizerConfig, TokenizerSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer as LibraryTokenizer

_BLOCK_CHARS = 2**16
_LEAST_BLOCKS = 32
_PROGRESS_S = 0.2
_PROOF_TEXTS = 64
_PROOF_CHARS = 4096
# The library's time grows with the square of a word's length; a longer one teaches nothing more.
_LONGEST_WORD_CHARS = 2**10
# What occurs once teaches no merge.
_LEAST_COUNT = 2
_TEXT_FIELDS = ("text_format", "text_field", "encoding_errors")


def train_tokenizer(config: TokenizerConfig, out: Path) -> Iterator[Event]:
    """Make a tokenizer of text files.

    Args:
        config: the text, the kind and its size.
        out: the file to write; must not exist.

    Raises:
        MissingExtraError: when the library `tokenizers` is not installed.
        DataError: when the text is unfit, does not yield so many pieces, or `out` is taken.
    """
    started_s = time.monotonic()
    require_free(out)
    if config.kind == "bpe" and find_spec("tokenizers") is None:
        raise MissingExtraError(
            "training a tokenizer needs the package tokenizers", hint="Install it: pip install 'mypt[tokenizer]'"
        )
    sample = _Sample(config)
    if sample.is_empty:
        raise DataError("the text is empty: nothing to learn a tokenizer from")
    spec = (yield from _learn(config, sample)) if config.kind == "bpe" else char_spec_of(sample.pieces())
    tokenizer = build_tokenizer(spec)
    texts = sample.proof_texts()
    write_tokenizer(spec, out)
    yield TokenizerWritten(
        path=str(out),
        kind=spec.kind,
        vocab_size=spec.vocab_size,
        sample_bytes=sample.taken_bytes,
        bytes_per_token=_bytes_per_token(tokenizer, texts),
        elapsed_s=time.monotonic() - started_s,
    )


class _Sample:
    """Blocks of the text, each taken or left by the hash of its content."""

    def __init__(self, config: TokenizerConfig) -> None:
        self._sources = [with_parts(source) for source in find_sources(config.input_files, config.text_format)]
        self.total_bytes = sum(source.size_bytes for source in self._sources)
        self.done_bytes = self.taken_bytes = 0
        self.is_read = False
        self._text = TextConfig(**{name: getattr(config, name) for name in _TEXT_FIELDS})
        # A stream's size is not known, so no share of it either: then its beginning is the sample.
        has_stream = any(source.path == STDIN or source.format == "hf" for source in self._sources)
        self._most_bytes = config.sample_bytes if has_stream else None
        self.is_empty = not (self.total_bytes or has_stream)
        self._key = config.seed.to_bytes(8, "little")
        self._block_chars = min(_BLOCK_CHARS, max(256, config.sample_bytes // _LEAST_BLOCKS))
        self._below = 2**64 if has_stream else 2**64 * config.sample_bytes // max(self.total_bytes, 1)
        self._proof: list[tuple[int, str]] = []

    def pieces(self) -> Iterator[str]:
        """The whole text."""
        for piece in self._all_pieces():
            self.taken_bytes += len(piece.encode("utf-8"))
            self._keep_for_proof(self.taken_bytes, piece)
            yield piece

    def blocks(self) -> Iterator[str]:
        """The blocks that are the sample."""
        for piece in self._all_pieces():
            for block in _cut(piece, self._block_chars):
                content = block.encode("utf-8")
                digest = hashlib.blake2b(content, digest_size=8, key=self._key).digest()
                number = int.from_bytes(digest, "little")
                if number < self._below:
                    self.taken_bytes += len(content)
                    self._keep_for_proof(number, block)
                    yield block
                if self._most_bytes is not None and self.taken_bytes >= self._most_bytes:
                    self.is_read = True
                    return

    def _all_pieces(self) -> Iterator[str]:
        tally = Tally()
        for unit in cut_units(self._sources, unit_bytes_for(self._sources)):
            for piece in read_documents(unit, self._sources, self._text, tally):
                self.done_bytes = tally.read_bytes
                yield piece.text
        self.done_bytes = self.total_bytes
        self.is_read = True

    def proof_texts(self) -> list[str]:
        """A few texts out of what was taken, the same ones in whatever order it came."""
        return [text for _, text in sorted(self._proof)]

    def _keep_for_proof(self, number: int, text: str) -> None:
        entry = (-number, text[:_PROOF_CHARS])
        if len(self._proof) < _PROOF_TEXTS:
            heapq.heappush(self._proof, entry)
        else:
            heapq.heappushpop(self._proof, entry)


def _cut(piece: str, block_chars: int) -> Iterator[str]:
    """Cut before spaces, into blocks of about this size."""
    start = 0
    while start < len(piece):
        end = start + block_chars
        if end < len(piece):
            end = max(piece.rfind(" ", start + 1, end), piece.rfind("\n", start + 1, end))
            end = end if end > start else start + block_chars
        yield piece[start:end]
        start = end


def _with_short_words(blocks: Iterator[str]) -> Iterator[str]:
    """Cut runs without a space, and of nothing but spaces, that are longer than any word."""
    for block in blocks:
        start = position = 0
        while len(block) - position > _LONGEST_WORD_CHARS:
            window = block[position : position + _LONGEST_WORD_CHARS]
            space = max(window.rfind(" "), window.rfind("\n"))
            if space > 0 and not window.isspace():
                position += space
            else:
                position += _LONGEST_WORD_CHARS
                yield block[start:position]
                start = position
        yield block[start:]


def _learn(config: TokenizerConfig, sample: _Sample) -> Generator[Event, None, TokenizerSpec]:
    """Learn merges from the sample; the ids of tiktoken on the table are proven to be the library's.

    Raises:
        DataError: when the sample does not yield so many pieces.
    """
    library = yield from _trained_library(config.vocab_size - 1, sample)
    content = json.loads(library.to_str())
    _, _, table = parse_hugging_face(content)
    end_id = len(table.pieces)
    if end_id + 1 < config.vocab_size:
        raise DataError(
            f"the text yields only {end_id + 1:,} ids, not {config.vocab_size:,}: no other pair occurs twice",
            hint=f"Use more text, or --vocab-size {end_id + 1}.",
        )
    require_merges(table.pieces, table.merges or {})
    spec = BpeSpec.of(GPT2_PATTERN, table.pieces, {END_OF_TEXT: end_id}, END_OF_TEXT)
    require_same_ids(build_tokenizer(spec), plain_library(content), sample.proof_texts())
    return spec


def _trained_library(pieces: int, sample: _Sample) -> Generator[Event, None, "LibraryTokenizer"]:
    """Let the library learn, in a thread of its own so that progress can be told meanwhile."""
    from tokenizers import Tokenizer as LibraryTokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    library = LibraryTokenizer(BPE())
    library.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=pieces,
        min_frequency=_LEAST_COUNT,
        initial_alphabet=ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    problems: list[Exception] = []

    def learn() -> None:
        try:
            library.train_from_iterator(_with_short_words(sample.blocks()), trainer)
        except Exception as problem:  # noqa: BLE001 - raised again below, in the caller's thread
            problems.append(problem)

    # A daemon: a user who stops the program does not wait for the library.
    worker = Thread(target=learn, name="learn-merges", daemon=True)
    worker.start()
    yield from _progress(sample, worker)
    if problems:
        raise problems[0]
    if not sample.taken_bytes:
        raise DataError("the sample is empty", hint="Give a larger --sample-bytes, or another --seed.")
    return library


def _progress(sample: _Sample, worker: Thread) -> Iterator[Event]:
    """Tell how far the reading is until the library is done."""
    started_s = time.monotonic()
    is_told = False
    while worker.is_alive():
        worker.join(_PROGRESS_S)
        done_bytes = min(sample.done_bytes, sample.total_bytes)
        yield TextSampled(done_bytes, sample.total_bytes, sample.taken_bytes, time.monotonic() - started_s)
        if worker.is_alive() and sample.is_read and not is_told:
            is_told = True
            yield Noted("all text is read; learning merges …")


def _bytes_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    ids, _ = tokenizer.encode_batch(texts)
    return sum(len(text.encode("utf-8")) for text in texts) / max(ids.size, 1)
