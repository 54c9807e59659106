"""How this process takes memory from the system and gives it back, so that steps wait for it less.

Elsewhere than on glibc nothing here does anything.
"""

import ctypes
import mmap
import sys
from functools import cache
from itertools import pairwise

from mypt.core.limits import are_addresses_limited, free_memory_bytes

# Of glibc's malloc.h and of Linux's mman.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = -1
_MADV_HUGEPAGE = 14
_LARGE_BYTES = 32 * 2**20
"""Larger blocks still go back at once: kept, they would leave holes that the next large one does not fit."""
_BLOCK_BYTES = _LARGE_BYTES - 2**16
_GAP_BYTES = 2**16
"""At most, between blocks that are taken one after another."""


def keep_freed_memory() -> None:
    """Hand back large blocks only: one that is given back and taken anew costs a page fault for every 4 KiB of it."""
    if (libc := _libc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)


def make_room(size_bytes: int) -> None:
    """Have so much of what is taken from now on lie in pages of 2 MiB, if it was never used: they are found faster.

    Nothing is taken now but addresses, and nothing where those are limited. To be called once freed memory is kept. The
    room is free blocks with something between them: in one piece large blocks would fit too, and leave their holes.
    """
    libc, free = _libc(), free_memory_bytes()
    if libc is None or are_addresses_limited():
        return
    wanted = size_bytes if free is None else min(size_bytes, free)
    blocks: list[int] = []
    for _ in range(wanted // _BLOCK_BYTES):
        if not (block := libc.malloc(_BLOCK_BYTES)) or not libc.malloc(1):
            break
        blocks.append(block)
    for block in blocks:
        libc.free(block)
    blocks.sort()
    if blocks and all(later - earlier <= _BLOCK_BYTES + _GAP_BYTES for earlier, later in pairwise(blocks)):
        first = -(-blocks[0] // mmap.PAGESIZE) * mmap.PAGESIZE
        libc.madvise(first, blocks[-1] + _BLOCK_BYTES - first, _MADV_HUGEPAGE)


@cache
def _libc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL(None)
    except OSError:
        return None
    if not hasattr(libc, "mallopt"):
        return None
    libc.malloc.argtypes, libc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = (ctypes.c_void_p,), None
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc
