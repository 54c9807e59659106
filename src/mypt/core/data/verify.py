"""Is a dataset what its manifest says? Every byte of every file is read."""

import hashlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from mypt.core.data.cold import cold_path, packed_content
from mypt.durable import sha256_of
from mypt.errors import DataError
from mypt.events import Event, FileVerified, Verified
from mypt.records.dataset import DATASET_FILE, DatasetManifest, ShardInfo, read_dataset_manifest
from mypt.records.tokenizer import TOKENIZER_FILE

_READ_BYTES = 2**22


def verify_dataset(directory: Path) -> Iterator[Event]:
    """Check hashes, sizes, ids and document ends of a dataset; a bad file does not end the work.

    Raises:
        DataError: when the manifest itself is missing or damaged.
    """
    started_s = time.monotonic()
    manifest = read_dataset_manifest(directory)
    yield FileVerified(str(directory / DATASET_FILE), (directory / DATASET_FILE).stat().st_size, "")
    files = 1
    damaged: list[str] = []
    total_bytes = 0
    for path, size_bytes, problem in _files(directory, manifest):
        files += 1
        total_bytes += size_bytes
        if problem:
            damaged.append(str(path))
        yield FileVerified(str(path), size_bytes, problem)
    yield Verified(str(directory), files, total_bytes, tuple(damaged), time.monotonic() - started_s)


def _files(directory: Path, manifest: DatasetManifest) -> Iterator[tuple[Path, int, str]]:
    """Each file with its size as it is and what is wrong with it, if anything."""
    tokenizer = directory / TOKENIZER_FILE
    yield tokenizer, _size(tokenizer), _told(lambda: _tokenizer_problem(tokenizer, manifest))
    for shard in (*manifest.train, *manifest.val):
        path = directory / shard.path
        stored = path if path.is_file() or not cold_path(path).is_file() else cold_path(path)
        yield stored, _size(stored), _told(partial(_shard_problem, path, shard, manifest.vocab_size))
        if shard.documents is not None:
            index = path.with_suffix(".idx")
            yield index, _size(index), _told(partial(_index_problem, index, shard))


def _told(find: Callable[[], str]) -> str:
    """What is wrong with one file; that it cannot be read is a finding too."""
    try:
        return find()
    except OSError as problem:
        return f"cannot be read ({problem.strerror or problem})"
    except DataError as problem:
        return problem.message


def _tokenizer_problem(path: Path, manifest: DatasetManifest) -> str:
    return "" if sha256_of(path) == manifest.tokenizer_sha256 else "is not the tokenizer of this dataset"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _shard_problem(path: Path, shard: ShardInfo, vocab_size: int) -> str:
    expected = shard.byte_offset + shard.tokens * shard.item_bytes
    if path.is_file() and _size(path) != expected:
        return f"has {_size(path):,} bytes, the manifest says {expected:,}"
    digest, highest, position = hashlib.sha256(), 0, 0
    for chunk in _content(path):
        digest.update(chunk)
        ids = chunk[max(0, shard.byte_offset - position) :]
        position += len(chunk)
        whole = np.frombuffer(ids[: len(ids) - len(ids) % shard.item_bytes], dtype=f"<u{shard.item_bytes}")
        highest = max(highest, int(whole.max(initial=0)))
    if position != expected:
        return f"holds {position:,} bytes, the manifest says {expected:,}"
    if shard.sha256 is not None and digest.hexdigest() != shard.sha256:
        return "is damaged: its sha256 is not the manifest's"
    return f"holds the id {highest:,}, the vocabulary ends at {vocab_size - 1:,}" if highest >= vocab_size else ""


def _content(path: Path) -> Iterator[bytes]:
    """A shard's bytes, also where it is packed; in pieces that hold whole ids."""
    if path.is_file() or not cold_path(path).is_file():
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk
    else:
        yield from packed_content(path)


def _index_problem(path: Path, shard: ShardInfo) -> str:
    if shard.index_sha256 is not None and sha256_of(path) != shard.index_sha256:
        return "is damaged: its sha256 is not the manifest's"
    ends = np.fromfile(path, dtype="<u8")
    in_order = bool((ends[1:] > ends[:-1]).all()) if ends.size > 1 else True
    if ends.size != shard.documents or not in_order or (ends.size and int(ends[-1]) > shard.tokens):
        return "does not list the document ends of its shard"
    return ""
