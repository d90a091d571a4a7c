"""The way into the command `kasmina`: settles how the process uses memory and threads before PyTorch is loaded."""

from __future__ import annotations

import ctypes
import os

GIBIBYTE = 2**30


def main() -> None:
    """Entry point of the command `kasmina`."""
    # Threads that spin long at a barrier while another process has their core made a step 25 times slower (5 s, not
    # 0.2); threads that never spin made it 1.6 times slower on idle cores. This costs a tenth, or 3 times if contended.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    keep_freed_memory()
    from agents.commands import run

    run()


def keep_freed_memory() -> None:
    """Ask glibc not to return large blocks to the system at every free: their pages would be faulted in again."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library
    for option, size in ((mmap_threshold, GIBIBYTE), (trim_threshold, GIBIBYTE), (top_pad, GIBIBYTE // 16)):
        mallopt(option, size)


if __name__ == "__main__":
    main()
