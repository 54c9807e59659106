"""Shards in files: windows of tokens and document ends, read where they are wanted."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.files import OpenFiles
from mypt.core.data.stream import no_documents
from mypt.core.tokens.base import Ids, stored_dtype
from mypt.errors import DataError
from mypt.records.dataset import ShardInfo

_INDEX_BYTES = 8
# A search in an .idx file ends with one read of this many entries (4 KiB).
_INDEX_ENTRIES = 512


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

    def place(self, offset: int) -> tuple[str, int]:
        """Its path, and the offset itself."""
        return self.name, offset

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
        self._files.remember(self._index)
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
