"""The way into the command `kasmina`: settles how the process uses memory and threads before PyTorch is loaded."""

from __future__ import annotations

import os


def main() -> None:
    """Entry point of the command `kasmina`."""
    # Threads that spin long at a barrier while another process has their core made a step 25 times slower (5 s, not
    # 0.2); threads that never spin made it 1.6 times slower on idle cores. This costs a tenth, or 3 times if contended.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from kasmina_env.settings.machine import keep_freed_memory

    keep_freed_memory()
    from kasmina_env.cli.commands import run

    run()
