"""Memory that steps take lies in large pages where the system has some, and costs nothing before it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

_PROGRAM = """
import ctypes, re
from pathlib import Path
from mypt.core.heap import keep_freed_memory, make_room

def told(file, name):
    return int(re.search(rf"^{name}:\\s+(\\d+) kB", Path(file).read_text(), re.M)[1]) // 1024

keep_freed_memory()
before = told("/proc/self/status", "VmRSS")
make_room(3 * 2**30)
make_room(100 * 2**20)
assert told("/proc/self/status", "VmRSS") - before < 8
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.memset.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
libc.free.argtypes = (ctypes.c_void_p,)
blocks = [libc.malloc(16 * 2**20) for _ in range(4)]
for block in blocks:
    libc.memset(block, 1, 16 * 2**20)
assert told("/proc/self/status", "VmRSS") - before < 80
mappings, flags = [], []
for line in Path("/proc/self/smaps").read_text().splitlines():
    if range_ := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
        mappings.append([int(end, 16) for end in range_.groups()])
    elif line.startswith("VmFlags:"):
        flags.append(line.split()[1:])
for block in blocks:
    own = [each for (start, end), each in zip(mappings, flags) if start <= block + 8 * 2**20 < end]
    assert len(own) == 1 and "hg" in own[0], "large pages are asked for"
for block in blocks:
    libc.free(block)
assert told("/proc/self/status", "VmRSS") - before >= 60  # it stays with the process
large = libc.malloc(40 * 2**20)
libc.memset(large, 1, 40 * 2**20)
libc.free(large)
assert told("/proc/self/status", "VmRSS") - before < 80  # large blocks do not
"""


@pytest.mark.skipif(not _LARGE_PAGES.is_file() or "[never]" in _LARGE_PAGES.read_text(), reason="no large pages")
def test_room_is_made_of_large_pages_that_are_not_there_before_they_are_used() -> None:
    subprocess.run([sys.executable, "-c", _PROGRAM], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="no ulimit -v")
def test_no_room_is_made_where_addresses_are_limited() -> None:
    program = """
import re
from pathlib import Path
from mypt.core.heap import keep_freed_memory, make_room
size = lambda: int(re.search(r"^VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text(), re.M)[1])
keep_freed_memory()
before = size()
make_room(500 * 2**20)
print((size() - before) // 1024)
"""
    for limit, is_made in (("4000000", False), ("unlimited", True)):
        command = ["sh", "-c", f'ulimit -v {limit}; exec "$0" -c "$1"', sys.executable, program]
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        assert (int(made.stdout) > 400) == is_made
