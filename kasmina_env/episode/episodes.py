"""N episodes, spread over threads, processes, devices or machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from kasmina_env.episode.core import CoreSnapshot, EpisodeCore, initial_weights_of
from kasmina_env.episode.data import make_task
from kasmina_env.episode.lasting import SNAPSHOT_EVERY, Lasting
from kasmina_env.episode.placement import Here, Place, Process, Thread, Wait
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.ray_actor import RayActor, make_core_on
from kasmina_env.episode.report import Ending, Report
from kasmina_env.episode.state import EpisodeState
from kasmina_env.lifecycle.arrays import IntArray, join_rows, take_rows
from kasmina_env.networks.grown import GrownNetwork
from kasmina_env.settings.config import SETTINGS, EnvConfig
from kasmina_env.tasks import Split

Placement = Literal["local", "ray"]
NO_ACTIONS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class EpisodesSnapshot:
    """Episodes of one problem with everything their future depends on, except the streams they are reset from."""

    config: EnvConfig
    dtype: torch.dtype
    content: CoreSnapshot

    def __len__(self) -> int:
        return len(self.content)

    def check(self, episodes: Episodes, rows: Sequence[int] | IntArray) -> None:
        """Raise ``ValueError`` if the snapshot does not fit these episodes and rows."""
        if self.config != episodes.problem.config:
            theirs, own = self.config, episodes.problem.config
            differs = [name for name in SETTINGS if getattr(theirs, name) != getattr(own, name)]
            raise ValueError(f"`saved` must be of an equal problem, got one with another {', '.join(differs)}.")
        if self.dtype != episodes.dtype:
            raise ValueError(f"`saved` must hold networks in {episodes.dtype}, got {self.dtype}. Use one dtype.")
        if len(self) != len(rows):
            raise ValueError(f"`saved` must hold {len(rows)} episodes, got {len(self)}. Name as many rows.")


@dataclass(frozen=True)
class _Share:
    """The requested rows that one place holds."""

    place: int
    positions: IntArray  # indices into the requested rows
    rows: IntArray  # row numbers within the place


class Episodes:
    """N episodes of one problem. Each place holds one block of consecutive rows, of nearly equal size.

    Args:
        problem: Names, menus and costs.
        num_networks: N.
        device: Device of the networks.
        dtype: Floating-point type of the networks.
        devices: Devices over which to spread the rows in place of `device`, each with a thread of its own.
        num_workers: Number of processes or actors over which to spread the rows; 1 process is this one.
        engine: Engine of the networks: see `EpisodeCore`.
        placement: "local" for threads and processes, or "ray" for Ray actors.
        snapshot_every: Steps between snapshots from which rows of a lost actor go on; see `Lasting`.
    """

    def __init__(
        self,
        problem: Problem,
        num_networks: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        devices: Sequence[torch.device | str] = (),
        num_workers: int = 1,
        engine: str | None = None,
        placement: Placement = "local",
        snapshot_every: int = SNAPSHOT_EVERY,
    ) -> None:
        self.problem, self.num_networks, self.dtype = problem, num_networks, dtype
        self.devices = tuple(map(torch.device, devices or (device,) * num_workers))
        if len(self.devices) > num_networks:
            raise ValueError(
                f"`devices` and `num_workers` must be at most the {num_networks} networks, got {len(self.devices)}. "
                "Name fewer, or grow more networks."
            )
        parts = np.array_split(np.arange(num_networks), len(self.devices))
        self._starts = np.array([part[0] for part in parts])
        is_far = placement == "ray"
        kind: Callable[..., Place] = Process if num_workers > 1 else Thread if len(parts) > 1 else Here
        if is_far or kind is Process:
            make_task(problem), initial_weights_of(problem)  # raise here, not in the workers, if a setting does not fit
        self._places: list[Place] = []
        for part, where in zip(parts, self.devices, strict=True):
            core = partial(EpisodeCore, problem, len(part), dtype=dtype, engine=engine)
            if is_far:
                place = partial(RayActor, partial(make_core_on, where.type, core), where.type)
                self._places.append(Lasting(place, len(part), snapshot_every))
            else:
                self._places.append(kind(partial(core, device=where, has_neighbours=kind is Thread)))
        self._reports: list[Report] = []
        self._report: Report | None = None
        self.is_closed = False

    @property
    def local(self) -> EpisodeCore:
        """The only core, if it is in this thread; otherwise a ``ValueError``."""
        (place, *others) = self._places
        if others or not isinstance(place, Here):
            raise ValueError("The episodes must be in one place, got several. Make them without devices or workers.")
        return place.core

    @property
    def is_reset(self) -> bool:
        """Whether the first episodes have started."""
        return self._report is not None

    @property
    def report(self) -> Report:
        """The latest report; a ``RuntimeError`` before the first reset."""
        if self._report is None:
            raise RuntimeError("There are no episodes yet. Call `reset()` first.")
        return self._report

    # ── episodes ─────────────────────────────────────────────────────────────────────────────

    def reset(self, rows: IntArray, rng_seeds: IntArray, instances: IntArray, planted: IntArray = NO_ACTIONS) -> Report:
        """Start new episodes, the first time in all rows; see `EpisodeCore.reset`."""
        self._check_first(rows)
        calls = [(s.place, (s.rows, rng_seeds[s.positions], instances[s.positions], planted)) for s in self._of(rows)]
        return self._news("reset", calls)

    def step(self, actions: IntArray, limit: int | None = None) -> Report:
        """Carry out one action in every row; see `EpisodeCore.step`."""
        parts = np.split(actions, self._starts[1:])
        return self._news("step", [(place, (part, limit)) for place, part in enumerate(parts)])

    def state(self, rows: Sequence[int] | IntArray | None = None) -> EpisodeState:
        """Everything known about the networks of some rows, or of all."""
        shares = self._of(rows)
        whole = rows is None
        parts: list[EpisodeState] = self._run("state", [(s.place, (None if whole else s.rows,)) for s in shares])
        return parts[0] if len(parts) == 1 else take_rows(join_rows(parts), _order(shares))

    def ending(self, row: int) -> Ending:
        """Final figures ``[1]`` of an episode that is cut off now; see `EpisodeCore.ending`."""
        (share,) = self._of([row])
        (ending,) = self._run("ending", [(share.place, (share.rows,))])
        return ending  # type: ignore[no-any-return]

    # ── whole episodes as values ─────────────────────────────────────────────────────────────

    def snapshot(self, rows: Sequence[int] | IntArray) -> EpisodesSnapshot:
        """Copies of episodes, to be restored in any rows and places."""
        shares = self._of(rows)
        parts = self._run("snapshot", [(s.place, (s.rows,)) for s in shares])
        content = parts[0] if len(parts) == 1 else CoreSnapshot.join(parts).take(_order(shares))
        return EpisodesSnapshot(self.problem.config, self.dtype, content)

    def restore(self, saved: EpisodesSnapshot, rows: Sequence[int] | IntArray) -> Report:
        """Overwrite episodes with those of a snapshot, in order. A snapshot that does not fit changes nothing.

        Before the first reset a snapshot must hold all rows; its episodes become the first ones.
        """
        saved.check(self, rows)
        self._check_first(rows)
        shares = self._of(rows)
        is_whole = len(shares) == 1
        calls = [(s.place, (saved.content if is_whole else saved.content.take(s.positions), s.rows)) for s in shares]
        return self._news("restore", calls)

    def reseed(self, rows: IntArray, rng_seeds: IntArray) -> None:
        """Give networks new random streams from here on."""
        self._run("reseed", [(s.place, (s.rows, rng_seeds[s.positions])) for s in self._of(rows)])

    def network(self, row: int, committed: bool = False) -> GrownNetwork:
        """One network as an ordinary module, with all its seeds or only those it keeps."""
        (share,) = self._of([row])
        (network,) = self._run("network", [(share.place, (int(share.rows[0]), committed))])
        return network  # type: ignore[no-any-return]

    def test_data(self, row: int) -> Split:
        """The test split with the noise and changes that one network sees."""
        (share,) = self._of([row])
        (split,) = self._run("test_data", [(share.place, (int(share.rows[0]),))])
        return split  # type: ignore[no-any-return]

    def engine_reason(self) -> str:
        """Why networks train with "torch" where "auto" would rather have "fused"; empty elsewhere."""
        (reason,) = self._run("engine_reason", [(0, ())])
        return str(reason)

    def close(self) -> None:
        """Free threads, processes and actors."""
        self.is_closed = True
        for wait in [place.close() for place in self._places]:
            wait()

    # ── rows and places ──────────────────────────────────────────────────────────────────────

    def _of(self, rows: Sequence[int] | IntArray | None) -> list[_Share]:
        """Shares of the given rows, or of all, by place."""
        numbers = np.arange(self.num_networks) if rows is None else np.asarray(rows, dtype=np.int64)
        if ((numbers < 0) | (numbers >= self.num_networks)).any():
            last = self.num_networks - 1
            raise ValueError(f"`rows` must lie between 0 and {last}, got {numbers.tolist()}. Name rows that exist.")
        owner = np.searchsorted(self._starts, numbers, side="right") - 1
        found = [np.flatnonzero(owner == place) for place in range(len(self._places))]
        return [_Share(i, at, numbers[at] - self._starts[i]) for i, at in enumerate(found) if len(at)]

    def _check_first(self, rows: Sequence[int] | IntArray) -> None:
        if not self.is_reset and not np.array_equal(rows, np.arange(self.num_networks)):
            raise RuntimeError("The first episodes must be those of all rows. Call `reset()` first.")

    def _run(self, method: str, calls: Sequence[tuple[int, tuple[Any, ...]]]) -> list[Any]:
        """Call a method in several places at once and wait for all. Then raise the first error, if any."""
        if self.is_closed:
            raise RuntimeError("The episodes are closed. Make the environment anew.")
        waits: list[Wait] = []
        results, errors = [], []
        for place, args in calls:
            try:
                waits.append(self._places[place].start(method, *args))
            except Exception as error:  # noqa: BLE001 - the first one is raised below
                errors.append(error)
        for wait in waits:
            try:
                results.append(wait())
            except Exception as error:  # noqa: BLE001 - the first one is raised below
                errors.append(error)
            except BaseException:
                self.close()  # an unread answer would be taken for that of a later call
                raise
        if errors:
            raise errors[0]
        return results

    def _news(self, method: str, calls: Sequence[tuple[int, tuple[Any, ...]]]) -> Report:
        found = self._run(method, calls)
        if len(found) == len(self._places):
            self._reports = found
        else:
            for (place, _), report in zip(calls, found, strict=True):
                self._reports[place] = report
        self._report = self._reports[0] if len(self._reports) == 1 else join_rows(self._reports)
        return self._report


def _order(shares: Sequence[_Share]) -> IntArray:
    """Index of each requested row among the joined rows of the shares."""
    return np.argsort(np.concatenate([share.positions for share in shares]))
