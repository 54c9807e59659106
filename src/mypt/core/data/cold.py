"""Cold storage: shards as .bin.zst, a third to two thirds of the size, unpacked at first use.

A .bin.zst file is made of frames of a megabyte that can be read one by one, with a table of them
at its end (the seekable format of the zstd project); any zstd program unpacks it whole.
"""

import hashlib
import struct
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mypt.durable import own_name, sync_directory, sync_file
from mypt.errors import DataError, MissingExtraError
from mypt.events import DatasetCompressed, Event, Noted, ShardWritten
from mypt.records.dataset import DATASET_FILE, ShardInfo, read_dataset_manifest

_FRAME_BYTES = 2**20
_LEVEL = 3
_SKIPPABLE_MAGIC, _SEEKABLE_MAGIC = 0x184D2A5E, 0x8F92EAB1


def cold_path(path: Path) -> Path:
    """Where a shard lies when it is packed."""
    return path.with_name(f"{path.name}.zst")


def compress_dataset(directory: Path) -> Iterator[Event]:
    """Pack every shard of a dataset; each raw one goes when its packed form has proven to be it.

    Raises:
        DataError: when a shard is not what the manifest says; it stays as it is.
        MissingExtraError: without the package zstandard.
    """
    started_s = time.monotonic()
    manifest = read_dataset_manifest(directory)
    if manifest.split_by == "given":
        raise DataError(f"{directory}: its shards belong to another program, and stay as they are")
    raw_bytes = packed_bytes = 0
    shards = [(_own_path(directory, shard), shard) for shard in (*manifest.train, *manifest.val)]
    for path, shard in shards:
        raw_bytes += shard.byte_offset + shard.tokens * shard.item_bytes
        if path.is_file():
            with _writing(cold_path(path)) as file:
                _pack(path, file)
            _require_hash(_unpacked(cold_path(path)), cold_path(path), shard, path)
            path.unlink()
            sync_directory(path.parent)
        if not cold_path(path).is_file():
            raise DataError(f"{path}: this shard is missing")
        packed = cold_path(path).stat().st_size
        packed_bytes += packed
        yield ShardWritten(path=f"{shard.path}.zst", tokens=shard.tokens, size_bytes=packed)
    yield DatasetCompressed(str(directory), raw_bytes, packed_bytes, time.monotonic() - started_s)


def unpack_dataset(directory: Path) -> Iterator[Noted]:
    """Unpack what is packed and not there raw; nothing happens to a dataset that was never packed.

    Raises:
        DataError: when a packed shard is damaged, or there is no room.
        MissingExtraError: without the package zstandard.
    """
    if not (directory / DATASET_FILE).is_file():
        return
    manifest = read_dataset_manifest(directory)
    shards = [(directory / shard.path, shard) for shard in (*manifest.train, *manifest.val)]
    packed = [(path, shard) for path, shard in shards if not path.is_file() and cold_path(path).is_file()]
    if packed:
        yield Noted(f"{directory}: unpacking {len(packed)} shards, once")
    for path, shard in packed:
        with _writing(_own_path(directory, shard)) as file:
            _require_hash(_copied(_unpacked(cold_path(path)), file), cold_path(path), shard, None)


def packed_content(path: Path) -> Iterator[bytes]:
    """The content of a packed shard, chunk by chunk.

    Raises:
        DataError: when it is damaged.
    """
    return _unpacked(cold_path(path))


def _own_path(directory: Path, shard: ShardInfo) -> Path:
    """Where a shard lies, inside of its dataset: a manifest of a stranger may name any file.

    Raises:
        DataError: for a path that leads out of it.
    """
    path = directory / shard.path
    if not path.resolve().is_relative_to(directory.resolve()):
        raise DataError(f"{path}: this shard lies outside of its dataset, and stays as it is")
    return path


@contextmanager
def _writing(path: Path) -> Generator[BinaryIO]:
    """Write a file beside its name and publish it, or nothing."""
    temporary = own_name(path)
    try:
        with temporary.open("wb") as file:
            yield file
        sync_file(temporary)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as problem:
        raise DataError(f"{path}: cannot write it ({problem.strerror or problem})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _pack(path: Path, out: BinaryIO) -> None:
    compressor = _zstandard().ZstdCompressor(level=_LEVEL, write_checksum=True)
    table = b""
    with path.open("rb") as file:
        while chunk := file.read(_FRAME_BYTES):
            frame = compressor.compress(chunk)
            out.write(frame)
            table += struct.pack("<II", len(frame), len(chunk))
    footer = struct.pack("<IBI", len(table) // 8, 0, _SEEKABLE_MAGIC)
    out.write(struct.pack("<II", _SKIPPABLE_MAGIC, len(table) + len(footer)) + table + footer)


def _unpacked(path: Path) -> Iterator[bytes]:
    zstandard = _zstandard()
    try:
        with zstandard.open(path, "rb") as file:
            while chunk := file.read(_FRAME_BYTES):
                yield chunk
    except (OSError, zstandard.ZstdError) as problem:
        raise DataError(f"{path}: cannot unpack it ({problem})") from None


def _copied(chunks: Iterator[bytes], file: BinaryIO) -> Iterator[bytes]:
    for chunk in chunks:
        file.write(chunk)
        yield chunk


def _require_hash(chunks: Iterator[bytes], path: Path, shard: ShardInfo, spoilt_by: Path | None) -> None:
    """Read chunks to their end and compare their hash with the manifest's.

    Raises:
        DataError: when they differ; a packed form that was just made of `spoilt_by` goes again.
    """
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    if shard.sha256 is not None and digest.hexdigest() != shard.sha256:
        if spoilt_by is not None:
            path.unlink()
            path = spoilt_by
        raise DataError(f"{path}: is damaged, its sha256 is not the manifest's")


def _zstandard() -> Any:  # noqa: ANN401 - the module
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError(
            "packed shards (.bin.zst) need the package zstandard", hint="pip install 'mypt[data]'"
        ) from None
    return zstandard
