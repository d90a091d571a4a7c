"""Ctrl-C and SIGTERM while a controller is trained: the step that is going on is finished and saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Signals that ask for an end; a second one is not waited for."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal that came
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take signals over, but for those that whoever started the process has switched off, as nohup does.

        Outside the main thread, where Python knows no signals, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            return
        self.number = None
        self.uninstall()
        signal.raise_signal(number)

    def uninstall(self) -> None:
        """Give signals back to who had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Signals to be installed; one that came meanwhile is raised at the end, for who handles it otherwise."""
    stop = StopSignals()
    try:
        yield stop
    finally:
        stop.uninstall()
        if stop.number is not None:
            signal.raise_signal(stop.number)
