"""What is in a dataset: its manifest, the lengths of its documents, and some of them to read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.cold import cold_path
from mypt.core.data.files import OpenFiles
from mypt.core.data.foreign import find_foreign
from mypt.core.data.shards import FileShard
from mypt.core.data.stream import TokenStream
from mypt.core.tokens.base import Tokenizer, decode
from mypt.core.tokens.build import build_tokenizer
from mypt.errors import DataError
from mypt.records.dataset import DatasetManifest, ShardInfo, Split, read_dataset_manifest
from mypt.records.plan import PLAN_FILE
from mypt.records.reports import DatasetReport, DocumentSample, LengthBucket
from mypt.records.tokenizer import TOKENIZER_FILE, read_tokenizer_spec

_SAMPLES = 3
_SAMPLE_TOKENS = 60
# Document ends are 8 bytes each: more of them than this are not read to draw a histogram.
_COUNTED_DOCUMENTS = 20_000_000


def report_dataset(directory: Path) -> DatasetReport:
    """Describe a prepared dataset. Reads some documents, and where documents end.

    Raises:
        DataError: when it has no sound manifest.
    """
    manifest = read_dataset_manifest(directory)
    spec = read_tokenizer_spec(directory / TOKENIZER_FILE)
    tokens = manifest.tokens("train") + manifest.tokens("val")
    lengths = _document_lengths(directory, manifest)
    return DatasetReport(
        path=str(directory),
        tokenizer=spec.kind,
        train_tokens=manifest.tokens("train"),
        val_tokens=manifest.tokens("val"),
        documents=manifest.documents,
        source_bytes=manifest.counts.source_bytes,
        bytes_per_token=manifest.counts.text_bytes / tokens if tokens else 0.0,
        size_bytes=sum(_stored_bytes(directory / shard.path) for shard in (*manifest.train, *manifest.val)),
        lengths=_histogram(lengths),
        counted_documents=int(lengths.size),
        samples=tuple(_samples(directory, manifest, build_tokenizer(spec))),
        manifest=manifest,
    )


def require_no_folder_of_tokens(path: Path) -> None:
    """Explain a folder that is nearly a dataset.

    Raises:
        DataError: for an unfinished dataset, and for shards of other programs.
    """
    if (path / PLAN_FILE).is_file():
        raise DataError(
            f"{path}: an unfinished dataset", hint="The mypt prepare-dataset command that began it goes on with it."
        )
    foreign = find_foreign(path)
    if foreign is not None:
        raise DataError(
            f"{path}: shards of {foreign.program}, without a manifest",
            hint=f"Write one: mypt import-dataset {path} --out-dir DIR",
        )


def _document_lengths(directory: Path, manifest: DatasetManifest) -> NDArray[np.int64]:
    """Tokens of each document, end-of-text included; of the first twenty million."""
    found = [np.empty(0, dtype=np.int64)]
    counted = 0
    for split in (manifest.train, manifest.val):
        before = 0
        ends: list[NDArray[np.int64]] = []
        for shard in split:
            if shard.documents is None or counted > _COUNTED_DOCUMENTS:
                break
            ends.append(_index(directory, shard) + before)
            before += shard.tokens
            counted += shard.documents
        if ends:
            found.append(np.diff(np.concatenate(ends), prepend=0))
    return np.concatenate(found)


def _stored_bytes(path: Path) -> int:
    """What a shard takes, packed or not; 0 where it is missing."""
    return next((each.stat().st_size for each in (path, cold_path(path)) if each.is_file()), 0)


def _index(directory: Path, shard: ShardInfo) -> NDArray[np.int64]:
    path = (directory / shard.path).with_suffix(".idx")
    try:
        return np.fromfile(path, dtype="<u8").astype(np.int64)
    except OSError as problem:
        raise DataError(f"{path}: cannot read it ({problem.strerror or problem})") from None


def _histogram(lengths: NDArray[np.int64]) -> tuple[LengthBucket, ...]:
    """Documents by length, in powers of two; the last bucket holds the longest."""
    if not lengths.size:
        return ()
    powers = np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)
    counts = np.bincount(powers)
    first = int(np.flatnonzero(counts)[0])
    return tuple(
        LengthBucket(up_to_tokens=2**power, documents=int(counts[power])) for power in range(first, len(counts))
    )


def _samples(directory: Path, manifest: DatasetManifest, tokenizer: Tokenizer) -> Iterator[DocumentSample]:
    """The beginnings of a few documents, from the first to the last part of the training split."""
    split: Split = "train" if manifest.train else "val"
    files = OpenFiles()
    for shard in _spread(directory, manifest.shards(split)):
        reader = FileShard(directory / shard.path, shard, files)
        stream = TokenStream([reader], vocab_size=manifest.vocab_size)
        ends = _index(directory, shard)[:-1] if shard.documents else np.empty(0, dtype=np.int64)
        starts = ends if ends.size else np.zeros(1, dtype=np.int64)
        wanted = _SAMPLES if len(manifest.shards(split)) == 1 else 1
        for start in starts[:: max(1, starts.size // wanted)][:wanted].tolist():
            length = min(_SAMPLE_TOKENS, shard.tokens - start)
            ids = stream.gather(np.array([start]), length)[0]
            following = ends[ends > start]
            ids = ids[: int(following[0]) - start] if following.size else ids
            yield DocumentSample(shard=shard.path, token=start, text=decode(tokenizer, ids.tolist()))


def _spread(directory: Path, shards: tuple[ShardInfo, ...]) -> tuple[ShardInfo, ...]:
    filled = tuple(shard for shard in shards if shard.tokens and (directory / shard.path).is_file())
    return filled[:: max(1, len(filled) // _SAMPLES)][:_SAMPLES]
