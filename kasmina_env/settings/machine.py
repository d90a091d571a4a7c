"""Cores, memory and signals of the machine, as entry points set them up; never a side effect of an import."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GIBIBYTE = 2**30
MOST_ENVS, MOST_WORKERS = 2**20, 2**10  # networks side by side, and processes or devices that they are spread over
DEVICE = "KASMINA_DEVICE"  # environment variable with the device that networks train on where none is named


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks; their pages would be faulted in again."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library
    for option, size in ((mmap_threshold, GIBIBYTE), (trim_threshold, GIBIBYTE), (top_pad, GIBIBYTE // 16)):
        mallopt(option, size)


@contextmanager
def sheltered_children() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started here, from their first moment on: who started them ends them.

    A terminal sends it to all of them, and one that is still importing would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # multiprocessing starts it with the first process, and lets Ctrl-C in again then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep handlers of Ctrl-C and SIGTERM as they are, whatever a library does to them; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # it was not set from Python
                signal.signal(number, handler)


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_this_device(command: str) -> str:
    """Command line that runs a command again on the same device, if one was named in the environment."""
    return f"{DEVICE}={device} {command}" if (device := os.environ.get(DEVICE)) else command


def processor_name() -> str:
    """Model of the processor, as far as the system tells; on Linux with a digest of its instructions.

    One name may stand for several processors: virtual machines say "AMD EPYC" of most.
    """
    about = Path("/proc/cpuinfo")
    text = about.read_text(encoding="utf-8") if about.exists() else ""
    lines = [line.partition(":") for line in text.partition("\n\n")[0].splitlines()]  # of the first core
    facts = {name.strip(): value.strip() for name, _, value in lines}
    name = facts.get("model name") or platform.processor() or platform.machine()
    instructions = [facts[key] for key in ("cpu family", "model", "flags", "Features") if key in facts]
    digest = hashlib.sha256(" ".join(instructions).encode()).hexdigest()[:8]
    return f"{name} ({digest})" if instructions else name


def release_of(package: str) -> str:
    """Release of an installed package; "none" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
