"""The way into the command `kasmina`: settles how the process uses memory and threads before PyTorch is loaded."""

from __future__ import annotations

import ctypes
import os

GIBIBYTE = 2**30


def main() -> None:
    """Entry point of the command `kasmina`."""
    # Threads that spin at a barrier while another process has their core make a step ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
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
