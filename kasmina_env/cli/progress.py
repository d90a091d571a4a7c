"""Progress of the commands: a bar on a terminal, elsewhere a plain line a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kasmina_env.cli import interrupts
from kasmina_env.cli.console import console, is_plain, note

Advance = Callable[[int, str], None]  # steps done in all, and a remark
MINUTE = 60.0  # seconds
MEGABYTE = 1e6


class Lines:
    """Progress as lines of text, for logs.

    Args:
        verb: Name of the work.
        total: Number of units in all.
        unit: Name of the unit.
        every: Seconds between two lines.
        clock: Seconds since whenever.
        write: Where the lines go.
    """

    def __init__(
        self,
        verb: str,
        total: float,
        unit: str = "steps",
        every: float = MINUTE,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] = note,
    ) -> None:
        self._verb, self._total, self._unit = verb, total, unit
        self._every, self._clock, self._write = every, clock, write
        self._start = self._last = clock()
        self._first: tuple[float, float] | None = None  # when something was reported first, and how much was done then
        self._done, self._remark = 0.0, ""

    def advance(self, done: float, remark: str = "") -> None:
        """Report what is done in all; writes a line if the last one is old enough."""
        self._done, self._remark, now = done, remark, self._clock()
        if self._first is None:
            self._first = now, done
        if now - self._last >= self._every:
            self._last = now
            self._write_line(*self._speed(now))

    def finish(self) -> None:
        """Write a last line, if anything was done."""
        if self._done:
            self._write_line(f"{duration(self._clock() - self._start)} in all")

    def _write_line(self, *words: str) -> None:
        parts = (f"{self._done:.0f} of {self._total:.0f} {self._unit}", *words, self._remark)
        self._write(f"{self._verb}: {', '.join(filter(None, parts))}")

    def _speed(self, now: float) -> tuple[str, ...]:
        """Speed since the first report, which a resumed run makes from where it was, and what is left by that."""
        since, before = self._first or (now, self._done)
        if now <= since or self._done <= before:
            return ()
        rate = (self._done - before) / (now - since)
        return f"{rate:.3g} {self._unit}/s", f"{duration((self._total - self._done) / rate)} left"


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def progress_bar(verb: str, total: int) -> Iterator[Advance]:
    """Show progress in steps; yields a function of all steps done and a remark."""
    interrupts.begin_work()
    if is_plain(for_errors=True):
        lines = Lines(verb, total)
        try:
            yield lines.advance
        finally:
            lines.finish()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
    )
    with Progress(*columns, console=console(for_errors=True), redirect_stdout=False) as progress:
        task = progress.add_task(verb, total=total, remark="")
        yield lambda done, remark: progress.update(task, completed=min(done, total), remark=remark)


@contextmanager
def step_counter(verb: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress in steps; yields a function of the steps done since it was last called."""
    done = 0
    with progress_bar(verb, total) as advance:
        advance(0, "")

        def on_step(steps: int) -> None:
            nonlocal done
            done += steps
            advance(done, "")

        yield on_step


@contextmanager
def download_bars(sizes: Mapping[str, int]) -> Iterator[Callable[[str, int], None]]:
    """Show progress in bytes of each file; yields a function of a file's name and how many of its bytes are here."""
    interrupts.begin_work()
    if is_plain(for_errors=True):
        lines = {name: Lines(name, size / MEGABYTE, "MB") for name, size in sizes.items()}
        try:
            yield lambda name, size: lines[name].advance(size / MEGABYTE)
        finally:
            for line in lines.values():
                line.finish()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(for_errors=True), redirect_stdout=False) as progress:
        tasks = {name: progress.add_task(name, total=size, visible=False) for name, size in sizes.items()}
        yield lambda name, size: progress.update(tasks[name], completed=size, visible=True)
