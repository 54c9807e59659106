"""A record that vouches for itself: the sha256 of its own content, stored in `checksum`."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from mypt.errors import MyptError, UsageError
from mypt.records.base import Record


class SealedRecord(Record, frozen=True):
    """A record whose last field is the hash of all others, compared whenever it is read."""

    checksum: str = Field("", description="sha256 of this record without this field.")

    def sealed(self) -> Self:
        """A copy that carries its own checksum."""
        return self.model_copy(update={"checksum": _hash(self.model_dump(mode="json"))})

    @classmethod
    def is_sealed(cls, data: bytes) -> bool:
        """Whether a file's content is what was written, known to this version or not."""
        try:
            content = json.loads(data)
            return isinstance(content, dict) and content.get("checksum") == _hash(content)
        except (ValueError, RecursionError):
            return False

    @classmethod
    def parse(cls, data: Mapping[str, Any] | str | bytes, *, where: str, error: type[MyptError] = UsageError) -> Self:
        """Validate `data` and its checksum.

        What is hashed is what is stored: a field that a later version adds changes nothing.

        Raises:
            error: as every record does, and when the stored checksum is not that of the content.
        """
        record = super().parse(data, where=where, error=error)
        if record.checksum != _hash(data if isinstance(data, Mapping) else json.loads(data)):
            raise error(f"{where}: the file does not match its own checksum (it was changed or damaged)")
        return record


def _hash(content: Mapping[str, Any]) -> str:
    """Hash the canonical JSON: sorted keys, no spaces, ASCII, without `checksum`."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
