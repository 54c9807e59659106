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
print(told("/proc/self/smaps_rollup", "AnonHugePages"))
for block in blocks:
    libc.free(block)
assert told("/proc/self/status", "VmRSS") - before >= 60  # it stays with the process
"""


@pytest.mark.skipif(not _LARGE_PAGES.is_file() or "[never]" in _LARGE_PAGES.read_text(), reason="no large pages")
def test_room_is_made_of_large_pages_that_are_not_there_before_they_are_used() -> None:
    made = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True)
    assert int(made.stdout) >= 50  # MiB of 64
