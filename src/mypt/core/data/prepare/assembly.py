"""Units -> shards of equal size: the second half of the work, also in jobs that anyone can do."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.prepare.duplicates import read_drops
from mypt.core.data.prepare.workspace import Workspace, publish, publish_result
from mypt.core.tokens.base import Ids, stored_dtype
from mypt.durable import own_name, write_bytes
from mypt.errors import DataError
from mypt.records.dataset import ShardInfo, Split

_COPY_TOKENS = 2**20


def assemble_shard(workspace: Workspace, split: Split, number: int) -> Iterator[tuple[int, int]]:
    """Write one shard from the units it covers, and publish it; yields (0, tokens) on the way."""
    span = workspace.layout.range_of(split)
    start = span.start + number * workspace.plan.tokens_per_shard
    end = min(span.end, start + workspace.plan.tokens_per_shard)
    path = workspace.dataset_dir / workspace.shard_name(split, number)
    dtype = stored_dtype(workspace.layout.dtype)
    digest = hashlib.sha256()
    ends = _document_ends(workspace, span.stream, start, end)
    written = 0
    with own_name(path).open("wb") as file:
        for unit, first, last in units_of_range(workspace.unit_starts[span.stream], start, end):
            for ids in _read_ids(workspace.kept_path(unit, span.stream, "bin"), dtype, first, last):
                digest.update(ids.data)
                file.write(ids.data)
                written += ids.size
                yield 0, written
    publish(path)
    index = ends.astype("<u8").tobytes()
    write_bytes(path.with_suffix(".idx"), index)
    info = ShardInfo(
        path=workspace.shard_name(split, number),
        dtype=workspace.layout.dtype,
        tokens=written,
        documents=len(index) // 8,
        sha256=digest.hexdigest(),
        index_sha256=hashlib.sha256(index).hexdigest(),
    )
    publish_result(workspace.shard_result_path(split, number), info)
    yield 0, written


def compact_unit(workspace: Workspace, unit: int) -> Iterator[tuple[int, int]]:
    """Write the unit again without the documents that are to be left out."""
    dtype = stored_dtype(workspace.layout.dtype)
    for split in ("train", "val"):
        drops_path = workspace.stream_path(unit, split, "drop")
        if not drops_path.is_file() or workspace.stream_path(unit, split, "kept.idx").is_file():
            continue
        flags, tail = read_drops(drops_path)
        bin_path, idx_path = (workspace.stream_path(unit, split, kind) for kind in ("bin", "idx"))
        tokens = bin_path.stat().st_size // dtype.itemsize
        bounds = document_bounds(np.fromfile(idx_path, dtype="<u8").astype(np.int64), tokens)
        is_kept = ~np.append(flags, tail)
        kept_path = workspace.stream_path(unit, split, "kept.bin")
        with own_name(kept_path).open("wb") as file:
            for first, last in _merged(bounds[:-1][is_kept], bounds[1:][is_kept]):
                for ids in _read_ids(bin_path, dtype, first, last):
                    file.write(ids.data)
                    yield 0, 0
        publish(kept_path)
        lengths = np.diff(bounds[:-1])[~flags]
        write_bytes(workspace.stream_path(unit, split, "kept.idx"), np.cumsum(lengths).astype("<u8").tobytes())
        for path in (bin_path, idx_path):
            path.unlink()  # the disk holds the tokens once


def document_bounds(ends: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    """Borders of a unit's documents, the unfinished one at its end included; shape (documents + 2,)."""
    return np.concatenate([[0], ends, [tokens]]).astype(np.int64)


def units_of_range(unit_starts: NDArray[np.int64], start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The units that tokens start..end of a stream touch, as (unit, first, last) inside the unit.

    A unit without tokens, or one that only begins where the range ends, may hold the end of the
    document before it: it is given too.
    """
    low = int(np.searchsorted(unit_starts[1:], start, side="right"))
    high = int(np.searchsorted(unit_starts[:-1], end, side="right"))
    for unit in range(low, high):
        begin, after = int(unit_starts[unit]), int(unit_starts[unit + 1])
        yield unit, max(start, begin) - begin, min(end, after) - begin


def _document_ends(workspace: Workspace, stream: Split, start: int, end: int) -> NDArray[np.int64]:
    """Document ends in (start, end] of a stream, counted from `start`."""
    found = [np.empty(0, dtype=np.int64)]
    unit_starts = workspace.unit_starts[stream]
    for unit, _, _ in units_of_range(unit_starts, start, end):
        path = workspace.kept_path(unit, stream, "idx")
        if path.is_file():
            ends = unit_starts[unit] + np.fromfile(path, dtype="<u8").astype(np.int64)
            low, high = np.searchsorted(ends, [start, end], side="right")
            found.append(ends[low:high] - start)
    return np.concatenate(found)


def _read_ids(path: Path, dtype: np.dtype[np.uint16 | np.uint32], first: int, last: int) -> Iterator[Ids]:
    if first >= last:
        return
    with path.open("rb") as file:
        file.seek(first * dtype.itemsize)
        while first < last:
            ids = np.fromfile(file, dtype=dtype, count=min(_COPY_TOKENS, last - first))
            if not ids.size:
                raise DataError(f"{path}: became shorter since it was written", hint="Begin anew: --fresh")
            first += ids.size
            yield ids


def _merged(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges in order, with neighbours that touch as one."""
    breaks = np.flatnonzero(starts[1:] != ends[:-1]) + 1
    for group_starts, group_ends in zip(np.split(starts, breaks), np.split(ends, breaks), strict=True):
        if group_starts.size:
            yield int(group_starts[0]), int(group_ends[-1])
