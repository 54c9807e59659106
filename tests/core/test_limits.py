"""What memory there is, as the kernel and the containers tell it."""

from pathlib import Path

import pytest

from mypt.core import is_quiet
from mypt.core.limits import free_memory_bytes, memory_limit_bytes


def tell(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:   4000 kB\n"}


def test_where_nobody_tells_nothing_is_known(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path) is None
    assert memory_limit_bytes(tmp_path) is None


def test_a_container_without_a_limit_has_what_the_machine_has(tmp_path: Path) -> None:
    tell(tmp_path, **MACHINE, **{"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "3000000\n"})
    assert free_memory_bytes(tmp_path) == 4000 * 1024
    assert memory_limit_bytes(tmp_path) == 9000 * 1024


@pytest.mark.parametrize(
    ("groups", "folder", "names"),
    [
        # A container's own group is the root that it sees.
        ("0::/\n", "", ("memory.max", "memory.current", "inactive_file")),
        ("0::/not/to/be/seen\n", "", ("memory.max", "memory.current", "inactive_file")),
        # What systemd and Slurm make: a group below, limited itself or by one above it.
        ("0::/job/step\n", "job/step/", ("memory.max", "memory.current", "inactive_file")),
        ("0::/job/step\n", "job/", ("memory.max", "memory.current", "inactive_file")),
        # Version 1 has a tree for memory alone.
        (
            "5:cpu:/job\n4:memory:/job/step\n",
            "memory/job/",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_the_limit_is_found_wherever_the_group_is(
    tmp_path: Path, groups: str, folder: str, names: tuple[str, str, str]
) -> None:
    limit, used, cached = names
    base = f"sys/fs/cgroup/{folder}"
    tell(tmp_path, **MACHINE, **{"proc/self/cgroup": groups, base + limit: "4000000\n", base + used: "3000000\n"})
    tell(tmp_path, **{f"{base}memory.stat": f"anon 5\n{cached} 500000\n"})
    assert memory_limit_bytes(tmp_path) == 4_000_000
    assert free_memory_bytes(tmp_path) == 1_500_000


def test_this_machine_tells(tmp_path: Path) -> None:
    limit, free = memory_limit_bytes(), free_memory_bytes()
    if not Path("/proc/meminfo").is_file():
        pytest.skip("only Linux tells")
    assert limit is not None
    assert free is not None
    assert 0 < free <= limit


def test_a_machine_is_quiet_where_nobody_else_computes(tmp_path: Path) -> None:
    told = tmp_path / "loadavg"
    assert not is_quiet(told)
    for running, quiet in (("1/200", True), ("2/200", False), ("17/200", False), ("", False)):
        told.write_text(f"0.50 0.40 0.30 {running} 4711\n")
        assert is_quiet(told) == quiet
