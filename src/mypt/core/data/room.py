"""How much memory is left: before a text takes the last of it, and the system ends the process without a word."""

from mypt.core.limits import free_memory_bytes
from mypt.errors import MemoryShortageError
from mypt.units import human_bytes

_KEPT_BYTES = 2**28
"""Left for the model and for everybody else."""


def require_room(wanted_bytes: int, tokens: int) -> None:
    """Refuse to hold more of a text than there is memory.

    Raises:
        MemoryShortageError: with what is left.
    """
    free_bytes = free_memory_bytes()
    if free_bytes is not None and wanted_bytes + _KEPT_BYTES > free_bytes:
        raise too_long(tokens, f"{human_bytes(free_bytes)} free")


def too_long(tokens: int, state: str) -> MemoryShortageError:
    """The error for a text that does not fit."""
    return MemoryShortageError(
        f"the text does not fit into memory: {tokens:,} tokens are read, {state}",
        hint="Prepare it on disk: mypt prepare-dataset TEXT --out-dir DIR, then mypt train --dataset-dir DIR",
    )
