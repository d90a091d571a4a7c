"""Progress bars of the commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kasmina_env.cli.environments import console

Advance = Callable[[int, str], None]  # steps done in all, and a remark


@contextmanager
def progress_bar(verb: str, total: int) -> Iterator[Advance]:
    """A progress bar; yields a function of steps done and a remark."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(verb, total=total, remark="")

        def advance(done: int, remark: str) -> None:
            progress.update(task, completed=min(done, total), remark=remark)

        yield advance


@contextmanager
def step_counter(verb: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; yields a function of the steps done since it was last called."""
    done = 0
    with progress_bar(verb, total) as advance:

        def on_step(steps: int) -> None:
            nonlocal done
            done += steps
            advance(done, "")

        yield on_step
