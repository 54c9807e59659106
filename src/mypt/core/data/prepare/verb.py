"""prepare-dataset: text files -> shards and a manifest, in bounded memory.

The whole dataset is written beside its final name and renamed at the end: a directory with
that name is a finished dataset or not there.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from mypt import __version__
from mypt.core.data.sources import Part, find_files, split_by_position
from mypt.core.data.tokenize import Chunk, spec_for, tokenize
from mypt.core.tokens.base import Ids, Tokenizer, id_dtype
from mypt.core.tokens.build import build_tokenizer
from mypt.durable import make_directory, publish_directory, sha256_of, sync_directory, sync_file
from mypt.errors import DataError
from mypt.events import DatasetWritten, Event, ShardWritten
from mypt.records.dataset import DATASET_FILE, DatasetManifest, ShardInfo, SourceInfo, Split
from mypt.records.run import DataConfig
from mypt.records.text import EncodingErrors, TextConfig
from mypt.records.tokenizer import TOKENIZER_FILE


def prepare_dataset(config: DataConfig, out_dir: Path, tokens_per_shard: int) -> Iterator[Event]:
    """Encode text files into a dataset directory.

    Args:
        config: the text files, the tokenization and the validation share.
        out_dir: the dataset; must not exist yet (an empty directory is fine).
        tokens_per_shard: tokens per file.

    Raises:
        DataError: when the text is unfit or `out_dir` is taken.
    """
    started_s = time.monotonic()
    _require_free(out_dir)
    paths = find_files(config.input_files)
    parts = split_by_position(paths, config.val_fraction)
    tokenizer = build_tokenizer(spec_for(config.tokenization, parts, config.encoding_errors))
    with _work_directory(out_dir) as work_dir:
        shards = yield from _write_shards(parts, tokenizer, config.encoding_errors, work_dir, tokens_per_shard)
        tokenizer.spec.write(work_dir / TOKENIZER_FILE)
        manifest = DatasetManifest(
            mypt_version=__version__,
            tokenizer_sha256=sha256_of(work_dir / TOKENIZER_FILE),
            vocab_size=tokenizer.vocab_size,
            end_of_text_id=tokenizer.end_of_text_id,
            split_by="tail",
            text=TextConfig(**{name: getattr(config, name) for name in TextConfig.model_fields}),
            tokens_per_shard=tokens_per_shard,
            sources=tuple(SourceInfo(path=str(path), size_bytes=path.stat().st_size) for path in paths),
            train=tuple(shards["train"]),
            val=tuple(shards["val"]),
        ).sealed()
        if not manifest.tokens("train"):
            raise DataError("the text is empty: no tokens to write")
        manifest.write(work_dir / DATASET_FILE)
        if out_dir.exists():
            out_dir.rmdir()
        publish_directory(work_dir, out_dir)
    yield DatasetWritten(
        path=str(out_dir),
        train_tokens=manifest.tokens("train"),
        val_tokens=manifest.tokens("val"),
        shards=len(manifest.train) + len(manifest.val),
        documents=manifest.documents or 0,
        source_bytes=manifest.source_bytes,
        elapsed_s=time.monotonic() - started_s,
    )


def _require_free(out_dir: Path) -> None:
    """Refuse a place that holds something, or that somebody stands in."""
    if out_dir.resolve() == Path.cwd():
        raise DataError(
            f"{out_dir}: the current folder cannot become a dataset", hint="Name a new one: --out-dir data/mine"
        )
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise DataError(
            f"{out_dir}: already there and not empty; nothing was changed",
            hint="Choose another --out-dir, or move the old one away.",
        )


@contextmanager
def _work_directory(out_dir: Path) -> Generator[Path]:
    """A folder beside the final one, gone at the end whatever happens (but for its renaming)."""
    work_dir = out_dir.with_name(f".{out_dir.name}.mypt-{os.getpid()}")
    try:
        make_directory(work_dir)
        yield work_dir
    except OSError as problem:
        raise DataError(
            f"{problem.filename or work_dir}: cannot write the dataset ({problem.strerror or problem})"
        ) from None
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def _write_shards(
    parts: Sequence[Part], tokenizer: Tokenizer, errors: EncodingErrors, work_dir: Path, tokens_per_shard: int
) -> Generator[Event, None, dict[Split, list[ShardInfo]]]:
    """Encode all parts into shards; give what was written per split."""
    with ExitStack() as open_files:
        writers: dict[Split, ShardWriter] = {
            split: ShardWriter(work_dir, split, tokens_per_shard, tokenizer.vocab_size) for split in ("train", "val")
        }
        for writer in writers.values():
            open_files.callback(writer.abandon)
        for told in tokenize(parts, tokenizer, errors):
            if isinstance(told, Chunk):
                yield from writers[told.split].append(told.ids, ends_document=told.ends_document)
            else:
                yield told
        for writer in writers.values():
            yield from writer.close()
        return {split: writer.written for split, writer in writers.items()}


class ShardWriter:
    """Appends ids to `SPLIT/shard-00000.bin`, -00001, ...; each beside its document ends (.idx)."""

    def __init__(self, directory: Path, split: Split, tokens_per_shard: int, vocab_size: int) -> None:
        self.written: list[ShardInfo] = []
        self._directory = directory / split
        self._limit = tokens_per_shard
        self._dtype = id_dtype(vocab_size)
        self._directory.mkdir()
        self._open()

    def append(self, ids: Ids, *, ends_document: bool) -> Iterator[ShardWritten]:
        """Add ids; a full shard is closed at once."""
        while self._tokens + ids.size > self._limit:
            room = self._limit - self._tokens
            self._write(ids[:room])
            ids = ids[room:]
            yield self._finish()
            self._open()
        self._write(ids)
        if ends_document:
            self._document_ends.append(self._tokens)

    def close(self) -> Iterator[ShardWritten]:
        """Close the last shard (an empty one is dropped) and make the directory durable."""
        if self._tokens:
            yield self._finish()
        else:
            self._file.close()
            self._path.unlink()
        sync_directory(self._directory)

    def abandon(self) -> None:
        """Let go of the open file; harmless after `close`."""
        self._file.close()

    def _open(self) -> None:
        self._path = self._directory / f"shard-{len(self.written):05d}.bin"
        self._file = self._path.open("wb")
        self._digest = hashlib.sha256()
        self._document_ends: list[int] = []
        self._tokens = 0

    def _write(self, ids: Ids) -> None:
        data = np.ascontiguousarray(ids, dtype=self._dtype).data
        self._digest.update(data)
        self._file.write(data)
        self._tokens += ids.size

    def _finish(self) -> ShardWritten:
        self._file.close()
        sync_file(self._path)
        index = self._path.with_suffix(".idx")
        index.write_bytes(np.array(self._document_ends, dtype="<u8").tobytes())
        sync_file(index)
        info = ShardInfo(
            path=f"{self._directory.name}/{self._path.name}",
            dtype="uint16" if self._dtype.itemsize == np.uint16().itemsize else "uint32",
            tokens=self._tokens,
            documents=len(self._document_ends),
            sha256=self._digest.hexdigest(),
        )
        self.written.append(info)
        return ShardWritten(path=info.path, tokens=info.tokens, size_bytes=info.tokens * info.item_bytes)
