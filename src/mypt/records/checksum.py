"""A record that vouches for itself: the sha256 of its own content, stored in `checksum`."""

import hashlib
import json
from pathlib import Path
from typing import Self

from pydantic import Field

from mypt.errors import MyptError
from mypt.records.base import Record


class SealedRecord(Record, frozen=True):
    """A record whose last field is the hash of all others."""

    checksum: str = Field("", description="sha256 of this record without this field.")

    def sealed(self) -> Self:
        """A copy that carries its own checksum."""
        return self.model_copy(update={"checksum": self._hash()})

    def require_seal(self, path: Path, error: type[MyptError]) -> None:
        """Refuse a record whose stored checksum is not its own.

        Raises:
            error: naming the file, when they differ.
        """
        if self.checksum != self._hash():
            raise error(f"{path}: the file does not match its own checksum (it was changed or damaged)")

    def _hash(self) -> str:
        """Hash the canonical JSON: sorted keys, no spaces, ASCII, without `checksum`."""
        content = self.model_dump(mode="json", exclude={"checksum"})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
