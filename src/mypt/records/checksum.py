"""A record that vouches for itself: the sha256 of its own content, stored in `checksum`."""

import hashlib
import json
from pathlib import Path

from mypt.errors import MyptError
from mypt.records.base import Record


def checksum_of(record: Record) -> str:
    """Hash a record's canonical JSON (sorted keys, no spaces), its `checksum` left out."""
    content = record.model_dump(mode="json", exclude={"checksum"})
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def require_checksum(record: Record, found: str, path: Path, error: type[MyptError]) -> None:
    """Refuse a record whose stored checksum is not its own.

    Raises:
        error: when they differ.
    """
    if found != checksum_of(record):
        raise error(f"{path}: the file does not match its own checksum (it was changed or damaged)")
