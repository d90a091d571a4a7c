"""A population cut by rows over devices or processes. Rows never talk to each other, so this is a list of populations.

Each shard runs in a thread of its own: PyTorch lets other threads go on while it computes or waits for its device, or
the thread waits for its process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.networks.grown import GrownNetwork
from kasmina_env.population.population import Population, Rows, Snapshot
from kasmina_env.population.stack import Stack
from kasmina_env.population.state import Cell, Conditions, Networks, Setting
from kasmina_env.population.train import GradientHealth
from kasmina_env.population.worker import WorkerPopulation
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Noise, Split

ResultT = TypeVar("ResultT")
Shard = Population | WorkerPopulation
Batches = list[Any]  # of every shard


class AnyPopulation(Protocol):
    """What a population and a sharded one have in common; minibatches and snapshots are of their own kinds."""

    @property
    def setting(self) -> Setting: ...

    def draw_minibatches(
        self, data: Split, num_batches: int, batch_size: int, augment: str = "none"
    ) -> tuple[Any, Any]: ...
    def train(
        self, x: Any, y: Any, alpha: FloatArray, pace: FloatArray | float = 1.0
    ) -> tuple[torch.Tensor, GradientHealth]: ...
    def warm_up(
        self, data: Split, num_batches: int, batch_size: int, learning_rate: float, rows: Rows
    ) -> GradientHealth: ...
    def evaluate(
        self, data: Split, alpha: FloatArray, off: BoolArray | None = None, rows: Rows | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]: ...
    def evaluate_together(
        self, data: Sequence[Split], alpha: FloatArray, off: Sequence[BoolArray | None], rows: Rows | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]: ...
    def germinate(
        self, rows: Rows, slot: int, blueprint: str, operator: Operator, in_training: bool = True
    ) -> None: ...
    def connect(self, rows: Rows, slot: int) -> None: ...
    def remove(self, rows: Rows, slot: int) -> None: ...
    def reset_rows(self, rows: Rows, rng_seeds: Sequence[int], conditions: Conditions | None = None) -> None: ...
    def reseed(self, rows: Rows, rng_seeds: Sequence[int]) -> None: ...
    def snapshot(self, rows: Rows | None = None) -> Any: ...
    def restore(self, saved: Any, rows: Rows | None = None) -> None: ...
    def network(self, row: int, alpha: FloatArray, keep: BoolArray | None = None) -> GrownNetwork: ...
    def seen_by(self, row: int, data: Split) -> Split: ...


@dataclass(frozen=True)
class ShardedSnapshot:
    """Networks from several shards."""

    parts: tuple[tuple[IntArray, Snapshot], ...]  # positions among all of them, and those networks

    def __len__(self) -> int:
        return sum(len(positions) for positions, _ in self.parts)


@dataclass(frozen=True)
class _Share:
    """The part of some rows that one shard holds."""

    shard: int
    positions: IntArray  # among the rows asked for
    rows: IntArray  # as the shard counts them


class ShardedPopulation:
    """What a `Population` offers, with its rows spread evenly over devices, in order.

    Args:
        devices: Of the shards; one may be named several times.
        num_networks: N, at least as many as devices.
        make: ``(rows, device) -> Population`` of the given rows, or one in a process of its own.
    """

    def __init__(
        self, devices: Sequence[torch.device], num_networks: int, make: Callable[[IntArray, torch.device], Shard]
    ) -> None:
        if not 1 <= len(devices) <= num_networks:
            raise ValueError(
                f"`devices` must be between one and as many as the {num_networks} networks, got {len(devices)}. "
                "Name fewer, or grow more networks."
            )
        rows = np.array_split(np.arange(num_networks), len(devices))
        self.shards = [make(part, device) for part, device in zip(rows, devices, strict=True)]
        for shard in self.shards:
            shard.setting.recorder.is_on = False  # they train in threads, at the same time
        self.num_networks = num_networks
        self._starts = np.array([part[0] for part in rows])
        self._pool = ThreadPoolExecutor(len(devices), thread_name_prefix="shard")
        self._placed: dict[tuple[int, torch.device], tuple[Split, Split]] = {}

    def close(self) -> None:
        """End the processes that shards have; those of one that is forgotten end by themselves."""
        with ThreadPoolExecutor(len(self.shards)) as pool:  # all at once: each takes its time to end
            for shard in self.shards:
                if isinstance(shard, WorkerPopulation):
                    pool.submit(shard.close)
        self._pool.shutdown(wait=False)

    @property
    def num_slots(self) -> int:
        return self.shards[0].num_slots

    @property
    def setting(self) -> Setting:
        """Of the first shard, on whose device results are; those of others differ in the device."""
        return self.shards[0].setting

    # ── rows and shards ──────────────────────────────────────────────────────────────────────

    def _shares(self, rows: Rows | None) -> list[_Share]:
        numbers = np.arange(self.num_networks) if rows is None else np.asarray(rows, dtype=np.int64)
        if ((numbers < 0) | (numbers >= self.num_networks)).any():
            last = self.num_networks - 1
            raise ValueError(f"`rows` must lie between 0 and {last}, got {numbers.tolist()}. Name rows that exist.")
        owner = np.searchsorted(self._starts, numbers, side="right") - 1
        places = [np.flatnonzero(owner == shard) for shard in range(len(self.shards))]
        return [_Share(i, at, numbers[at] - self._starts[i]) for i, at in enumerate(places) if len(at)]

    def _of(self, shard: int) -> slice:
        start = int(self._starts[shard])
        return slice(start, start + self.shards[shard].num_networks)

    def _run(self, work: Callable[[_Share, Shard], ResultT], rows: Rows | None = None) -> list[ResultT]:
        """Let every shard that holds some of the rows work on them, at the same time."""
        futures = [self._pool.submit(work, share, self.shards[share.shard]) for share in self._shares(rows)]
        try:
            return [future.result() for future in futures]
        finally:
            wait(futures)  # after an error or Ctrl-C too: none goes on with networks that the caller then restores

    def _join(self, parts: Sequence[torch.Tensor], rows: Rows | None, dim: int) -> torch.Tensor:
        """Results of the shards in the order of the rows asked for."""
        joined = torch.cat([part.to(self.setting.device) for part in parts], dim=dim)
        order = np.argsort(np.concatenate([share.positions for share in self._shares(rows)]))
        is_sorted = bool((np.diff(order) == 1).all())
        return joined if is_sorted else joined.index_select(dim, self.setting.index(order))

    def _join_health(self, parts: Sequence[GradientHealth], rows: Rows | None) -> GradientHealth:
        names = vars(parts[0])
        return GradientHealth(**{name: self._join([getattr(p, name) for p in parts], rows, 0) for name in names})

    def _place(self, data: Split, device: torch.device) -> Split:
        """The same samples on a device; copied once."""
        if data.x.device == device:
            return data
        key = (id(data), device)
        if key not in self._placed:
            noise = data.noise and Noise(*(tensor.to(device) for tensor in vars(data.noise).values()))
            self._placed[key] = (data, Split(data.x.to(device), data.y.to(device), noise))  # kept: its id is the key
        return self._placed[key][1]

    # ── training and evaluation ──────────────────────────────────────────────────────────────

    def draw_minibatches(
        self, data: Split, num_batches: int, batch_size: int, augment: str = "none"
    ) -> tuple[Batches, Batches]:
        """See `Population.draw_minibatches`; for each shard."""

        def work(share: _Share, shard: Shard) -> tuple[Any, Any]:
            return shard.draw_minibatches(self._place(data, shard.setting.device), num_batches, batch_size, augment)

        drawn = self._run(work)
        return [x for x, _ in drawn], [y for _, y in drawn]

    def train(
        self, x: Batches, y: Batches, alpha: FloatArray, pace: FloatArray | float = 1.0
    ) -> tuple[torch.Tensor, GradientHealth]:
        """See `Population.train`."""
        paces = np.broadcast_to(pace, len(alpha))

        def work(share: _Share, shard: Shard) -> tuple[torch.Tensor, GradientHealth]:
            rows = self._of(share.shard)
            return shard.train(x[share.shard], y[share.shard], alpha[rows], paces[rows])

        trained = self._run(work)
        loss = self._join([loss for loss, _ in trained], None, 0)
        return loss, self._join_health([health for _, health in trained], None)

    def warm_up(
        self, data: Split, num_batches: int, batch_size: int, learning_rate: float, rows: Rows
    ) -> GradientHealth:
        """See `Population.warm_up`."""

        def work(share: _Share, shard: Shard) -> GradientHealth:
            placed = self._place(data, shard.setting.device)
            return shard.warm_up(placed, num_batches, batch_size, learning_rate, share.rows)

        return self._join_health(self._run(work, rows), rows)

    def evaluate(
        self, data: Split, alpha: FloatArray, off: BoolArray | None = None, rows: Rows | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Population.evaluate`."""
        ((loss, quality),) = self.evaluate_together([data], alpha, [off], rows)
        return loss, quality

    def evaluate_together(
        self, data: Sequence[Split], alpha: FloatArray, off: Sequence[BoolArray | None], rows: Rows | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """See `Population.evaluate_together`."""

        def work(share: _Share, shard: Shard) -> list[tuple[torch.Tensor, torch.Tensor]]:
            mine = self._of(share.shard)
            splits = [self._place(split, shard.setting.device) for split in data]
            settings = [o if o is None else o[:, mine] for o in off]
            return shard.evaluate_together(splits, alpha[mine], settings, share.rows)

        by_data = zip(*self._run(work, rows), strict=True)
        return [
            (self._join([loss for loss, _ in parts], rows, 1), self._join([q for _, q in parts], rows, 1))
            for parts in by_data
        ]

    # ── growing and whole networks ───────────────────────────────────────────────────────────

    def germinate(self, rows: Rows, slot: int, blueprint: str, operator: Operator, in_training: bool = True) -> None:
        """See `Population.germinate`."""
        for share in self._shares(rows):
            self.shards[share.shard].germinate(share.rows, slot, blueprint, operator, in_training)

    def connect(self, rows: Rows, slot: int) -> None:
        """See `Population.connect`."""
        for share in self._shares(rows):
            self.shards[share.shard].connect(share.rows, slot)

    def remove(self, rows: Rows, slot: int) -> None:
        """See `Population.remove`."""
        for share in self._shares(rows):
            self.shards[share.shard].remove(share.rows, slot)

    def reset_rows(self, rows: Rows, rng_seeds: Sequence[int], conditions: Conditions | None = None) -> None:
        """See `Population.reset_rows`."""
        for share in self._shares(rows):
            seeds = [rng_seeds[i] for i in share.positions]
            own = conditions and conditions.take(share.positions)
            self.shards[share.shard].reset_rows(share.rows, seeds, own)

    def reseed(self, rows: Rows, rng_seeds: Sequence[int]) -> None:
        """See `Population.reseed`."""
        for share in self._shares(rows):
            self.shards[share.shard].reseed(share.rows, [rng_seeds[i] for i in share.positions])

    def snapshot(self, rows: Rows | None = None) -> ShardedSnapshot:
        """See `Population.snapshot`."""
        return ShardedSnapshot(
            tuple((share.positions, self.shards[share.shard].snapshot(share.rows)) for share in self._shares(rows))
        )

    def restore(self, saved: ShardedSnapshot, rows: Rows | None = None) -> None:
        """See `Population.restore`; networks may come from other shards."""
        for share in self._shares(rows):
            shard = self.shards[share.shard]
            for positions, part in saved.parts:
                here, chosen = np.nonzero(share.positions[:, None] == positions[None])
                if len(here):
                    streams = tuple(part.streams[i] for i in chosen)
                    networks = _moved(part.networks.take(chosen), shard.setting.device)
                    shard.restore(Snapshot(networks, streams), share.rows[here])

    def copy_rows(self, source: Rows, target: Rows) -> None:
        """See `Population.copy_rows`."""
        self.restore(self.snapshot(source), target)

    def network(self, row: int, alpha: FloatArray, keep: BoolArray | None = None) -> GrownNetwork:
        """See `Population.network`."""
        (share,) = self._shares([row])
        return self.shards[share.shard].network(int(share.rows[0]), alpha, keep)

    def seen_by(self, row: int, data: Split) -> Split:
        """See `Population.seen_by`."""
        (share,) = self._shares([row])
        shard = self.shards[share.shard]
        return shard.seen_by(int(share.rows[0]), self._place(data, shard.setting.device))


def place_population(
    devices: Sequence[torch.device],
    num_networks: int,
    recipe: Callable[[IntArray, torch.device], Callable[[], Population]],
    has_workers: bool,
) -> AnyPopulation:
    """A population on a device, or its shards on several.

    Args:
        devices: One, or those of the shards.
        num_networks: N.
        recipe: ``(rows, device)`` to what builds their population; can be pickled if there are workers.
        has_workers: Whether each shard has a process of its own, in place of a thread.
    """
    if len(devices) == 1:
        return recipe(np.arange(num_networks), devices[0])()

    def make(rows: IntArray, device: torch.device) -> Shard:
        build = recipe(rows, device)
        return WorkerPopulation(build) if has_workers else build()

    return ShardedPopulation(devices, num_networks, make)


def _moved(networks: Networks, device: torch.device) -> Networks:
    """The same networks with their numbers on a device."""

    def move(stack: Stack) -> Stack:
        return Stack(*(tensor.to(device) for tensor in vars(stack).values()))

    cells = {part: Cell(cell.rows, move(cell.weights)) for part, cell in networks.cells.items()}
    return Networks(**{**vars(networks), "hosts": move(networks.hosts), "cells": cells})
