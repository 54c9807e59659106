"""How much memory is left: before a text takes the last of it, and the system ends the process without a word."""

from pathlib import Path

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


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """What this process may still take, by the kernel and by its container; None where nobody tells."""
    told = [_of_machine(root / "proc/meminfo"), _of_container(root / "sys/fs/cgroup")]
    return min((number for number in told if number is not None), default=None)


def _of_machine(path: Path) -> int | None:
    return _field(path, "MemAvailable:", 1024)


def _of_container(folder: Path) -> int | None:
    """The limit of a container less what it uses; files in its page cache go when they must."""
    limit, used = (_field(folder / name, "", 1) for name in ("memory.max", "memory.current"))
    cached = _field(folder / "memory.stat", "inactive_file ", 1)
    return None if limit is None or used is None else max(0, limit - used + (cached or 0))


def _field(path: Path, name: str, unit_bytes: int) -> int | None:
    """The number after a name; None where there is none, as in a container without a limit."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        found = next(line.removeprefix(name) for line in lines if line.startswith(name))
        return int(found.split()[0]) * unit_bytes
    except (OSError, ValueError, StopIteration):
        return None
