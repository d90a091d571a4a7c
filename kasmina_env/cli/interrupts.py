"""Ctrl-C and SIGTERM end a command with one line and the usual exit status, from its first moment on."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

WORDS = {signal.SIGINT: "Interrupted.", signal.SIGTERM: "Terminated."}


class Terminated(KeyboardInterrupt):
    """SIGTERM. What cleans up after Ctrl-C cleans up after this too."""


_is_at_work = False


def install() -> None:
    """Take over SIGINT and SIGTERM, but for one that whoever started the process has switched off, as nohup does."""
    for number in WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)


def uninstall() -> None:
    """Let a further signal end the process at once, without a word."""
    for number in WORDS:
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_DFL)


def begin_work() -> None:
    """Have signals raise from now on, so that what was done can be saved.

    Before that there is nothing to lose, and the process ends at once: an exception in the middle of an import may be
    swallowed, or come out as another one.
    """
    global _is_at_work
    _is_at_work = True


def _on_signal(number: int, frame: FrameType | None) -> None:
    if not _is_at_work:
        _leave(number)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _leave(number: int) -> NoReturn:
    os.write(2, f"{WORDS[signal.Signals(number)]}\n".encode())
    if (process := sys.modules.get("multiprocessing.process")) is not None:
        for child in process.active_children():
            child.kill()
    os._exit(128 + number)


def find_interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The signal behind an exception: itself, or what it was raised from or during."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def farewell(interruption: KeyboardInterrupt) -> tuple[str, int]:
    """The line to end with, notes included, and the exit status."""
    number = signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT
    return " ".join([WORDS[number], *getattr(interruption, "__notes__", ())]), 128 + number
