"""How much memory there is: the machine's, the container's, and what `ulimit -v` leaves. No torch."""

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
_STRICT = 2
"""Of Linux's overcommit_memory: addresses count as memory."""


def memory_limit_bytes(root: Path = _ROOT) -> int | None:
    """What this process may have at most; None where nobody tells."""
    told = [_field(root / "proc/meminfo", "MemTotal:", 1024), _address_space_bytes()]
    told += [_field(path, "", 1) for path, _, _, _ in _groups(root)]
    return _least(told)


def free_memory_bytes(root: Path = _ROOT) -> int | None:
    """What this process may still take, by the kernel and by its container; None where nobody tells."""
    told = [_field(root / "proc/meminfo", "MemAvailable:", 1024)]
    for limit_path, used_path, statistics, cached_name in _groups(root):
        limit, used = _field(limit_path, "", 1), _field(used_path, "", 1)
        # Files in the page cache go when they must.
        cached = _field(statistics, cached_name, 1)
        told.append(None if limit is None or used is None else max(0, limit - used + (cached or 0)))
    return _least(told)


def _groups(root: Path) -> Iterator[tuple[Path, Path, Path, str]]:
    """Limit, use and statistics of each control group this process is in: its own and those around it."""
    base = root / "sys/fs/cgroup"
    for folder in _folders(root, base, ""):
        yield folder / "memory.max", folder / "memory.current", folder / "memory.stat", "inactive_file "
    for folder in _folders(root, base / "memory", "memory"):
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
        limit, used, statistics = (folder / name for name in names)
        yield limit, used, statistics, "total_inactive_file "


def _folders(root: Path, base: Path, controller: str) -> list[Path]:
    """A control group's folder and its parents. Its lines are NUMBER:CONTROLLERS:/PATH; version 2 names none."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [base]
    paths = [line.split(":", 2)[2] for line in lines if controller in line.split(":", 2)[1].split(",")]
    inside = [base / path.lstrip("/") for path in paths if ".." not in path]
    # In a container its own group is mounted as the root, and the path is not there.
    return list(
        dict.fromkeys([base, *(each for path in inside for each in (path, *path.parents) if base in each.parents)])
    )


def are_addresses_limited(root: Path = _ROOT) -> bool:
    """Whether addresses cost something before there is memory behind them: by `ulimit -v`, or strict overcommitment."""
    return _address_space_bytes() is not None or _field(root / "proc/sys/vm/overcommit_memory", "", 1) == _STRICT


def _address_space_bytes() -> int | None:
    """What `ulimit -v` leaves: libraries take addresses without taking memory."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        size, resident = (int(pages) for pages in Path("/proc/self/statm").read_text(encoding="ascii").split()[:2])
        return max(0, limit - (size - resident) * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, OSError, ValueError):
        return None


def _field(path: Path, name: str, unit_bytes: int) -> int | None:
    """The number after a name; None where there is none, as in a container without a limit."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        found = next(line.removeprefix(name) for line in lines if line.startswith(name))
        return int(found.split()[0]) * unit_bytes
    except (OSError, ValueError, StopIteration):
        return None


def _least(told: list[int | None]) -> int | None:
    return min((number for number in told if number is not None), default=None)
