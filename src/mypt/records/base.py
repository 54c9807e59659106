"""Record: what all JSON shapes of MyPT share. Strict, frozen, closed, and clear when wrong."""

import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from mypt.durable import write_text
from mypt.errors import MyptError, UsageError
from mypt.records.faults import explain, short

MOST_BYTES = 2**30
"""No JSON file of ours comes near: a plan of a million inputs has a fifth of it."""

# Python refuses to read longer whole numbers, and no field is that large.
_MOST_DIGITS = 4000


class Record(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False):
    """One JSON object. Unknown keys, wrong types and NaN are refused."""

    @classmethod
    def parse(cls, data: Mapping[str, Any] | str | bytes, *, where: str, error: type[MyptError] = UsageError) -> Self:
        """Validate `data` (JSON text or its decoded form); `where` names its origin in errors.

        Raises:
            error: with every wrong key, its value, what is allowed and the nearest valid key.
        """
        try:
            text = data if isinstance(data, str | bytes) else json.dumps(data)
            return cls.model_validate_json(text)
        except ValidationError as problem:
            raise error(f"{where}:{explain(cls, data, problem)}") from None
        except RecursionError:
            raise error(f"{where}: nested too deeply") from None
        except (TypeError, ValueError) as problem:
            raise error(f"{where}: not valid JSON ({problem})") from None

    @classmethod
    def read(cls, path: Path, *, error: type[MyptError] = UsageError) -> Self:
        """Read the record from a JSON file.

        Raises:
            error: when the file is missing, unreadable or not this record.
        """
        return cls.parse(read_json_bytes(path, error=error), where=str(path), error=error)

    def write(self, path: Path) -> None:
        """Write the record as readable JSON, atomically and durably."""
        write_text(path, self.as_file())

    def as_file(self) -> str:
        """Give the record as the text of its file."""
        return self.as_json() + "\n"

    def as_json(self) -> str:
        """Give the record as indented JSON."""
        return self.model_dump_json(indent=2)


def read_json_bytes(path: Path, *, error: type[MyptError], most_bytes: int = MOST_BYTES) -> bytes:
    """Read a file that should hold JSON, or a table as small; a byte order mark is accepted and dropped.

    Raises:
        error: when it cannot be read, is no regular file (a device may never end), or is too large.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            what = "a folder" if stat.S_ISDIR(about.st_mode) else "no regular file"
            raise error(f"{path}: cannot read it (it is {what})")
        if about.st_size > most_bytes:
            raise error(f"{path}: too large ({about.st_size:,} bytes; allowed: at most {most_bytes:,})")
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as problem:
        raise error(f"{path}: cannot read it ({problem.strerror or problem})") from None
    except ValueError as problem:  # a name with a NUL
        raise error(f"{path}: cannot read it ({problem})") from None


def decode_json(text: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """Decode JSON; a key that comes twice is refused, and no whole number is too long.

    Raises:
        ValueError: when it is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_key_once, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk a nested mapping as ('a.b.c', value) pairs."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def _each_key_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {short(twice)} is there twice")
    return found


def _whole_number(digits: str) -> float:
    """A number too long to read is as good as infinite: refused like it, with its key."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)
