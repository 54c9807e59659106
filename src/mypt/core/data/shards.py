"""Shards in files: windows of tokens and document ends, read where they are wanted."""

from collections import OrderedDict
from io import FileIO
from pathlib import Path
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.stream import no_documents
from mypt.core.tokens.base import Ids, stored_dtype
from mypt.errors import DataError
from mypt.records.dataset import ShardInfo

_OPEN_FILES = 128
_INDEX_BYTES = 8
# A search in an .idx file ends with one read of this many entries (4 KiB).
_INDEX_ENTRIES = 512


class OpenFiles:
    """Files kept open for reading, the least recently used one closed first. For one thread."""

    def __init__(self, limit: int = _OPEN_FILES) -> None:
        self._limit = limit
        self._files: OrderedDict[Path, FileIO] = OrderedDict()
        finalize(self, _close_all, self._files)

    def read(self, path: Path, offset_bytes: int, into: NDArray[np.unsignedinteger]) -> None:
        """Fill an array with a file's bytes from `offset_bytes` on.

        Raises:
            DataError: naming the file, when it is missing, unreadable or shorter than that.
        """
        try:
            file = self._open(path)
            file.seek(offset_bytes)
            got_bytes = file.readinto(into.data)
        except OSError as problem:
            raise DataError(f"{path}: cannot read it ({problem.strerror or problem})") from None
        if got_bytes != into.nbytes:
            raise DataError(f"{path}: this shard ends before byte {offset_bytes + into.nbytes:,}")

    def _open(self, path: Path) -> FileIO:
        file = self._files.get(path)
        if file is not None:
            self._files.move_to_end(path)
            return file
        file = self._files[path] = FileIO(path)
        if len(self._files) > self._limit:
            self._files.popitem(last=False)[1].close()
        return file


class FileShard:
    """Tokens in a file: opening costs nothing, and nothing that was read stays."""

    def __init__(self, path: Path, info: ShardInfo, files: OpenFiles) -> None:
        self.path = path
        self.info = info
        self.tokens = info.tokens
        self._files = files
        self._dtype = stored_dtype(info.dtype)

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    def read(self, offset: int, count: int) -> Ids:
        """Read tokens offset .. offset + count - 1.

        Raises:
            DataError: when the file has become shorter, or is gone.
        """
        ids: Ids = np.empty(count, dtype=self._dtype)
        self._files.read(self.path, self.info.byte_offset + offset * self.info.item_bytes, ids)
        return ids

    def require_documents(self) -> None:
        """Make sure that the .idx file lists as many ends as the manifest says.

        Raises:
            DataError: when there is none, or it has another size.
        """
        if self.info.documents is None:
            raise no_documents(self.name)
        found = self._index.stat().st_size if self._index.is_file() else None
        expected = self.info.documents * _INDEX_BYTES
        if found != expected:
            state = "is missing" if found is None else f"has {found:,} bytes, the manifest says {expected:,}"
            raise DataError(
                f"{self._index}: this list of document ends {state}",
                hint="Make the dataset again: mypt prepare-dataset",
            )

    def ends_between(self, low: int, high: int) -> NDArray[np.int64]:
        """Where documents end, in low <= end <= high: a binary search in the .idx file.

        Raises:
            DataError: when the file has become shorter, or is gone.
        """
        assert self.info.documents is not None, "the caller requires documents first"
        first, last = 0, self.info.documents
        while last - first > _INDEX_ENTRIES:
            middle = (first + last) // 2
            if self._ends(middle, 1)[0] >= low:
                last = middle
            else:
                first = middle + 1
        found = [np.empty(0, dtype=np.int64)]
        while first < self.info.documents:
            ends = self._ends(first, min(_INDEX_ENTRIES, self.info.documents - first))
            found.append(ends[(ends >= low) & (ends <= high)])
            first += ends.size
            if ends[-1] > high:
                break
        return np.concatenate(found)

    @property
    def _index(self) -> Path:
        return self.path.with_suffix(".idx")

    def _ends(self, first: int, count: int) -> NDArray[np.int64]:
        ends = np.empty(count, dtype="<u8")
        self._files.read(self._index, first * _INDEX_BYTES, ends)
        return ends.astype(np.int64)


def _close_all(files: OrderedDict[Path, FileIO]) -> None:
    while files:
        files.popitem()[1].close()
