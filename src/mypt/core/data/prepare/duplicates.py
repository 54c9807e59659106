"""Which documents came before: exact, by 128-bit hashes, in bounded memory.

The hashes of all units are dealt out to files by their first bits, so that equal ones meet in one
file, and each file fits into memory. The first document in the order of the units is kept.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.prepare.workspace import Workspace
from mypt.core.data.text.documents import END_RECORD
from mypt.durable import own_name, write_bytes
from mypt.records.dataset import Split

_MEMORY_BYTES = 2**28
# A hash, its place, and what sorting them takes beside.
_BYTES_PER_DOCUMENT = 80
_ROW = np.dtype([("low", "<u8"), ("high", "<u8"), ("place", "<u8")])


@contextmanager
def duplicate_flags(workspace: Workspace, split: Split, documents: Sequence[int]) -> Generator["Flags"]:
    """Find the documents that came before.

    Args:
        workspace: all units finished.
        split: the stream to look at; equal documents are always in the same one.
        documents: of each unit.

    Yields:
        A flag for each document, on disk while the context lasts.
    """
    starts = np.concatenate([[0], np.cumsum(documents, dtype=np.int64)])
    path = own_name(workspace.path / f"{split}.duplicates")
    try:
        with path.open("wb") as file:
            file.truncate(max(1, int(starts[-1])))
        flags = np.memmap(path, dtype=np.bool_, mode="r+")
        for rows in _groups(workspace, split, starts):
            ordered = rows[np.lexsort((rows["place"], rows["low"], rows["high"]))]
            again = (ordered["low"][1:] == ordered["low"][:-1]) & (ordered["high"][1:] == ordered["high"][:-1])
            flags[ordered["place"][1:][again].astype(np.int64)] = True
        found = Flags(flags, starts)
        del flags
        yield found
        found.close()
    finally:
        path.unlink(missing_ok=True)


class Flags:
    """Which documents came before: True for each but the first of equals."""

    def __init__(self, flags: NDArray[np.bool_], starts: NDArray[np.int64]) -> None:
        self._flags: NDArray[np.bool_] | None = flags
        self._starts = starts

    def of_unit(self, unit: int) -> NDArray[np.bool_]:
        """Flags of one unit, shape (documents of the unit,)."""
        assert self._flags is not None, "used inside its context"
        return np.array(self._flags[self._starts[unit] : self._starts[unit + 1]])

    def close(self) -> None:
        """Let go of the file: Windows deletes none that is mapped."""
        self._flags = None


def write_drops(workspace: Workspace, split: Split, unit: int, flags: NDArray[np.bool_], *, tail: bool) -> None:
    """Note what is to be left out of a unit; `tail`: also the document that ends in a later one."""
    write_bytes(workspace.stream_path(unit, split, "drop"), np.append(flags, tail).tobytes())


def read_drops(path: Path) -> tuple[NDArray[np.bool_], bool]:
    """The inverse of `write_drops`."""
    flags = np.fromfile(path, dtype=np.bool_)
    return flags[:-1], bool(flags[-1])


def _groups(workspace: Workspace, split: Split, starts: NDArray[np.int64]) -> Iterator[NDArray[np.void]]:
    """All rows, in groups that hold equal hashes together."""
    groups = -(-int(starts[-1]) * _BYTES_PER_DOCUMENT // _MEMORY_BYTES)
    if groups <= 1:
        yield np.concatenate([*_rows(workspace, split, starts), np.empty(0, dtype=_ROW)])
        return
    paths = [own_name(workspace.path / f"{split}.spill-{group}") for group in range(groups)]
    try:
        for rows in _rows(workspace, split, starts):
            homes = rows["high"] % np.uint64(groups)
            for group, path in enumerate(paths):
                with path.open("ab") as file:
                    file.write(rows[homes == group].tobytes())
        for path in paths:
            yield np.fromfile(path, dtype=_ROW)
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _rows(workspace: Workspace, split: Split, starts: NDArray[np.int64]) -> Iterator[NDArray[np.void]]:
    for unit, start in enumerate(starts[:-1]):
        path = workspace.stream_path(unit, split, "docs")
        if path.is_file():
            keys = np.fromfile(path, dtype=END_RECORD)["key"]
            halves = np.ascontiguousarray(keys).view("<u8").reshape(-1, 2)
            rows = np.empty(len(keys), dtype=_ROW)
            rows["low"], rows["high"] = halves[:, 0], halves[:, 1]
            rows["place"] = np.arange(start, start + len(keys))
            yield rows
