"""Whole networks as values: take them out of a population, put them back, copy them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kasmina_env.population.stack import Stack
from kasmina_env.population.state import (
    Cells,
    IntArray,
    Kind,
    Setting,
    Streams,
    extract_seeds,
    insert_seeds,
)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Snapshot:
    """Networks with everything their future depends on."""

    hosts: Stack
    seeds: tuple[tuple[Kind, IntArray, Stack], ...]  # positions among these networks
    streams: tuple[Streams, ...]
    learning_rate: FloatArray  # [N]

    def __len__(self) -> int:
        return len(self.streams)


def copy_seeds(setting: Setting, cells: Cells, rows: IntArray) -> tuple[tuple[Kind, IntArray, Stack], ...]:
    """Seeds of the given networks by kind, with the positions of their networks in `rows`."""
    seeds = []
    for kind, cell in cells.items():
        found = rows[:, None] == cell.rows[None, :]  # [len(rows), R]
        positions, members = np.nonzero(found)
        if len(positions):
            seeds.append((kind, positions, cell.weights.take(setting.index(members))))
    return tuple(seeds)


def snapshot(
    setting: Setting,
    hosts: Stack,
    cells: Cells,
    streams: Sequence[Streams],
    learning_rate: FloatArray,
    rows: IntArray,
) -> Snapshot:
    """Copy the given networks, in the given order (a network may be taken twice)."""
    copies = tuple(deepcopy(streams[row]) for row in rows)
    seeds = copy_seeds(setting, cells, rows)
    return Snapshot(hosts.take(setting.index(rows)), seeds, copies, learning_rate[rows])


def narrow(setting: Setting, hosts: Stack, cells: Cells, rows: IntArray) -> tuple[Setting, Stack, Cells]:
    """A smaller population of copies of the given networks."""
    narrowed = replace(setting, num_networks=len(rows))
    chosen: Cells = {}
    for kind, positions, weights in copy_seeds(setting, cells, rows):
        insert_seeds(narrowed, chosen, kind, positions, weights)
    return narrowed, hosts.take(setting.index(rows)), chosen


def remove_networks(setting: Setting, cells: Cells, rows: IntArray) -> None:
    """Drop all seeds of the given networks."""
    for kind in list(cells):
        if np.isin(cells[kind].rows, rows).any():
            extract_seeds(setting, cells, kind, rows)


def restore(
    setting: Setting,
    hosts: Stack,
    cells: Cells,
    streams: list[Streams],
    rows: IntArray,
    saved: Snapshot,
) -> None:
    """Overwrite the given networks by saved ones, one by one in order."""
    if len(rows) != len(saved) or len(set(rows.tolist())) != len(rows):
        raise ValueError(
            f"`rows` must be {len(saved)} different networks, got {rows.tolist()}. "
            "Give one row for each network of the snapshot."
        )
    remove_networks(setting, cells, rows)
    hosts.put_(setting.index(rows), saved.hosts)
    for kind, positions, weights in saved.seeds:
        everything = setting.index(np.arange(len(positions)))
        insert_seeds(setting, cells, kind, rows[positions], weights.take(everything))
    for row, saved_streams in zip(rows, saved.streams, strict=True):
        streams[row] = deepcopy(saved_streams)
