"""Where the time of a training run goes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class TimeSpent:
    """Seconds of a run by what they were spent on, those before an interruption included.

    Attributes:
        environment: Networks trained and grew.
        policy: The policy chose actions, and steps were put down.
        update: The policy learned.
        saving: Checkpoints were written.
    """

    environment: float = 0.0
    policy: float = 0.0
    update: float = 0.0
    saving: float = 0.0

    @property
    def total(self) -> float:
        """All seconds."""
        return self.environment + self.policy + self.update + self.saving

    def __str__(self) -> str:
        shares = dataclasses.asdict(self)
        return ", ".join(f"{name} {100 * value / max(self.total, 1e-9):.0f} %" for name, value in shares.items())


class Clock:
    """Adds time up by what it is spent on.

    Args:
        now: Seconds since whenever.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._section, self._since = now, "", now()
        self._seconds = dataclasses.asdict(TimeSpent())

    def switch(self, section: str) -> str:
        """From now on time is spent on this, "" for nothing that counts; returns what it was spent on."""
        now, before = self._now(), self._section
        if before:
            self._seconds[before] += now - self._since
        self._section, self._since = section, now
        return before

    @contextmanager
    def during(self, section: str) -> Iterator[None]:
        """Time inside is spent on this."""
        before = self.switch(section)
        try:
            yield
        finally:
            self.switch(before)

    @property
    def spent(self) -> TimeSpent:
        """Seconds so far."""
        self.switch(self._section)
        return TimeSpent(**self._seconds)

    def go_on(self, spent: TimeSpent) -> None:
        """Count on from what was spent before."""
        self._seconds = dataclasses.asdict(spent)
