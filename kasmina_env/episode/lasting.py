"""A place that outlives its worker: what was lost with one is played again in another, bit for bit.

A core does the same twice, so a snapshot and the calls since are all that is needed. They are kept here, with the
caller: whatever happens to a worker, it is never asked for what it alone knew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from kasmina_env.episode.core import CoreSnapshot
from kasmina_env.episode.placement import LostPlaceError, Place, Wait
from kasmina_env.episode.report import Report, lost_report

CHANGING = ("reset", "step", "restore", "reseed")  # methods that change a core; all others only look at it
ATTEMPTS = 3  # workers in a row that may be lost over one call
SNAPSHOT_EVERY = 16  # changing calls; see docs/cluster.md for what a snapshot costs

Call = tuple[str, tuple[object, ...]]  # method and arguments
MakePlace = Callable[[bool], Place]  # the argument: whether it takes the place of a lost one

ALL_LOST = "These episodes were lost with their worker. Reset all of them."

log = logging.getLogger("kasmina_env")


class Lasting:
    """A place that moves its core to another worker when one is lost.

    If no worker can take it, episodes that are under way end with the failure "lost". A reset of all rows tries again.

    Args:
        make_place: Factory of places with a fresh core.
        num_networks: N.
        snapshot_every: Number of changing calls after which a snapshot is taken. More of them are replayed after a
            loss if it is large, and more bytes travel if it is small.
    """

    def __init__(self, make_place: MakePlace, num_networks: int, snapshot_every: int = SNAPSHOT_EVERY) -> None:
        self._make_place, self._rows, self._every = make_place, np.arange(num_networks), snapshot_every
        self._place: Place = make_place(False)
        self._saved: CoreSnapshot | None = None
        self._since: list[Call] = []  # changing calls since then
        self._saving: Wait | None = None  # for a snapshot that is on its way
        self._report: Report | None = None  # the latest
        self._is_lost = False

    def start(self, method: str, *args: object) -> Wait:
        call = method, args
        if self._is_lost:
            return self._begin_again(call)
        try:
            self._keep_snapshot()
            wait = self._place.start(*_flat(call))
        except LostPlaceError as loss:
            return partial(self._finish, call, partial(self._replay, call, loss))
        return partial(self._finish, call, wait)

    def close(self) -> Wait:
        return self._place.close()

    def _finish(self, call: Call, wait: Wait) -> Any:
        """Wait for a result, and note what is needed to come here again."""
        try:
            result = wait()
        except LostPlaceError as loss:
            if self._is_lost:
                raise
            result = self._replay(call, loss)
        if call[0] in CHANGING and not self._is_lost:
            self._since.append(call)
            self._report = result if isinstance(result, Report) else self._report
            # After a step, because only then the report in a snapshot names the engine that runs now.
            if call[0] == "step" and len(self._since) >= self._every:
                with suppress(LostPlaceError):  # the next call will see
                    self._saving = self._place.start("snapshot", self._rows)
        return result

    def _keep_snapshot(self) -> None:
        """Take delivery of the snapshot that was asked for after the last call; by now it is here."""
        if self._saving is not None:
            wait, self._saving = self._saving, None
            self._saved, self._since = wait(), []

    def _replay(self, call: Call, loss: LostPlaceError) -> Any:
        """Result of a call in another worker, brought to where the lost one was."""
        for _ in range(ATTEMPTS):
            log.warning("%s Its rows go on elsewhere after %d calls.", loss, len(self._since))
            self._saving = None
            self._place.close()()
            try:
                self._place = self._make_place(True)
                if self._saved is not None:
                    self._place.start("restore", self._saved, self._rows)()
                for earlier in self._since:
                    self._place.start(*_flat(earlier))()
                result = self._place.start(*_flat(call))()
            except LostPlaceError as error:
                loss = error
            else:
                self._is_lost = False
                return result
        return self._give_up(call, loss)

    def _give_up(self, call: Call, loss: LostPlaceError) -> Report:
        """The end of all episodes here, if that is an answer to the call."""
        self._is_lost, self._saved, self._since = True, None, []
        self._place.close()()
        self._report = None if self._report is None else lost_report(self._report)
        if call[0] != "step" or self._report is None:
            raise loss
        log.error("%s Its episodes end.", loss)
        return self._report

    def _begin_again(self, call: Call) -> Wait:
        """Answer a call where there is no core any more; a reset of all rows makes one."""
        (method, args), report = call, self._report
        if method == "step" and report is not None:
            return lambda: report
        if method == "reset" and np.array_equal(args[0], self._rows):  # type: ignore[arg-type]
            return partial(self._finish, call, partial(self._replay, call, LostPlaceError(ALL_LOST)))
        raise LostPlaceError(ALL_LOST)


def _flat(call: Call) -> tuple[Any, ...]:
    return call[0], *call[1]
