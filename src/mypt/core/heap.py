"""Memory that is freed stays with the process, so that the next step need not ask the system for it again.

A block that is given back and taken anew costs a page fault for every 4 KiB of it.
"""

import ctypes
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_LARGE_BYTES = 32 * 2**20
"""Larger blocks still go back at once: kept, they would leave holes that the next large one does not fit."""


def keep_freed_memory() -> None:
    """Hand back large blocks only. Elsewhere than on glibc nothing happens."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
    mallopt(_TRIM_THRESHOLD, _NEVER)
