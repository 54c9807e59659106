"""DataConfig -> Corpus: the tokens of both splits and the tokenizer that made them."""

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mypt.core.data.sources import find_files, require_text, split_by_position
from mypt.core.data.stream import FileShard, MemoryShard, TokenStream
from mypt.core.data.tokenize import Chunk, spec_for, tokenize
from mypt.core.tokens.base import Ids, Tokenizer, id_dtype
from mypt.core.tokens.build import build_tokenizer
from mypt.durable import sha256_of
from mypt.errors import DataError
from mypt.events import TextRead
from mypt.records.dataset import DatasetManifest, Split, read_dataset_manifest
from mypt.records.run import DataConfig
from mypt.records.tokenizer import TOKENIZER_FILE, TokenizerSpec, read_tokenizer_spec

# Memory grows in blocks of this many tokens: no reallocation, at most one block to spare.
_PIECE_TOKENS = 2**22


@dataclass(frozen=True, slots=True)
class Corpus:
    """What training reads."""

    tokenizer: Tokenizer
    train: TokenStream
    val: TokenStream
    fingerprint: str
    """Equal fingerprints mean equal tokens in equal order."""

    def require_blocks(self, block_size: int) -> None:
        """Refuse splits that do not hold one window of block_size + 1 tokens.

        Raises:
            DataError: with the sizes and how to fix it.
        """
        need = block_size + 1
        if len(self.train) < need:
            message = f"the training text has {len(self.train):,} tokens, one block needs {need:,}"
            fix = max(2, (len(self.train) - 1) // 2)
            raise DataError(message, hint=f"Use more text, or a shorter context: --block-size {fix}")
        if 0 < len(self.val) < need:
            message = f"the validation split has {len(self.val):,} tokens, one block needs {need:,}"
            total = len(self.train) + len(self.val)
            fraction = need / total * 1.1
            wider = f"--val-fraction {fraction:.2g}, " if fraction < 0.5 else ""  # noqa: PLR2004 - half is too much
            raise DataError(
                message,
                hint=f"Use more text, {wider}a shorter context (--block-size {max(2, len(self.val) - 1)}), "
                "or no validation: --val-fraction 0",
            )


def read_corpus(config: DataConfig, spec: TokenizerSpec | None = None) -> Generator[TextRead, None, Corpus]:
    """Open a dataset, or read and encode text files into memory, telling progress.

    Args:
        config: the source.
        spec: the tokenizer of an existing model; a new one is made where it is None.

    Raises:
        UsageError: when no source is given.
        DataError: when the text or dataset is unfit or belongs to another tokenizer.
    """
    if config.dataset_dir:
        return open_dataset(Path(config.dataset_dir[0]), spec)
    require_text(config)
    return (yield from _read_into_memory(config, spec))


def open_dataset(directory: Path, spec: TokenizerSpec | None = None) -> Corpus:
    """Open a prepared dataset by memory map. Reads its manifest, no tokens.

    Raises:
        DataError: when a shard is missing or has another size than the manifest says, or the
            dataset was made with another tokenizer than `spec`.
    """
    manifest = read_dataset_manifest(directory)
    tokenizer_path = directory / TOKENIZER_FILE
    found = read_tokenizer_spec(tokenizer_path)
    if sha256_of(tokenizer_path) != manifest.tokenizer_sha256:
        raise DataError(f"{tokenizer_path}: changed since the dataset was made")
    if spec is not None and found != spec:
        raise DataError(
            f"{directory}: its tokens are '{found.kind}' tokens of another table than the model's '{spec.kind}'",
            hint="Prepare the text again with the model's tokenizer, or train a new model.",
        )
    splits: dict[Split, TokenStream] = {
        split: TokenStream(_open_shards(directory, manifest, split)) for split in ("train", "val")
    }
    return Corpus(build_tokenizer(found), splits["train"], splits["val"], manifest.checksum)


def _open_shards(directory: Path, manifest: DatasetManifest, split: Split) -> list[FileShard]:
    shards = []
    for info in manifest.shards(split):
        path = directory / info.path
        expected = info.byte_offset + info.tokens * info.item_bytes
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            state = "is missing" if found is None else f"has {found:,} bytes, the manifest says {expected:,}"
            raise DataError(f"{path}: this shard {state}", hint="Make the dataset again: mypt prepare-dataset")
        shards.append(FileShard(path, info))
    return shards


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
