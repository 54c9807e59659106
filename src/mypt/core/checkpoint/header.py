"""Names, types and shapes in a safetensors file, read from its header alone.

Format: 8 bytes of header length (little-endian), the header as JSON, then the raw tensors.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from mypt.errors import CheckpointError

_LARGEST_HEADER_BYTES = 100 * 2**20


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header describes it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read the tensor table of a safetensors file.

    Raises:
        CheckpointError: when the file is missing or is not safetensors.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LARGEST_HEADER_BYTES:
                raise CheckpointError(f"{path}: not a safetensors file (header of {length:,} bytes)")
            table = json.loads(file.read(length))
        table.pop("__metadata__", None)
        return {name: TensorInfo(entry["dtype"], tuple(entry["shape"])) for name, entry in table.items()}
    except OSError as problem:
        raise CheckpointError(f"{path}: cannot read it ({problem.strerror or problem})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{path}: not a safetensors file") from None
