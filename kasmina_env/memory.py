"""How the process keeps memory; only for entry points, and processes of our own: never a side effect of an import."""

from __future__ import annotations

import ctypes

GIBIBYTE = 2**30


def keep_freed_memory() -> None:
    """Ask glibc not to return large blocks to the system at every free: their pages would be faulted in again."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library
    for option, size in ((mmap_threshold, GIBIBYTE), (trim_threshold, GIBIBYTE), (top_pad, GIBIBYTE // 16)):
        mallopt(option, size)
