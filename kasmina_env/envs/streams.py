"""Random streams of rows. Seeds of networks and instances of episodes are drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from kasmina_env.episode.episodes import EpisodesSnapshot
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray, IntArray
from kasmina_env.settings.instances import SPLIT_NAMES

MAX_RNG_SEED = 2**31


@dataclass(frozen=True, eq=False)
class EnvSnapshot:
    """R episodes with their random streams: all that they and the following episodes depend on."""

    episodes: EpisodesSnapshot
    generators: tuple[np.random.Generator, ...]
    is_test: BoolArray  # [R]

    def __len__(self) -> int:
        return len(self.episodes)


class RowStreams:
    """Random generator of each of N rows, and the split that the row draws instances from."""

    def __init__(self, num_rows: int) -> None:
        self.generators = [np.random.default_rng(row) for row in range(num_rows)]
        self.is_test = np.zeros(num_rows, dtype=bool)  # [N]

    def draw(self, problem: Problem, rows: IntArray, wanted: IntArray | None) -> tuple[IntArray, IntArray]:
        """Seeds of networks and numbers of instances for new episodes.

        Args:
            problem: Problem of the episodes.
            rows: R rows.
            wanted: Instances ``[R]``. Where -1, and for None, they are drawn from the row's split.

        Returns:
            Seeds ``[R]`` and instances ``[R]``.
        """
        rng_seeds = np.array([self.generators[row].integers(MAX_RNG_SEED) for row in rows], dtype=np.int64)
        drawn = self._draw_instances(problem, rows)
        return rng_seeds, drawn if wanted is None else np.where(wanted < 0, drawn, wanted)

    def _draw_instances(self, problem: Problem, rows: IntArray) -> IntArray:
        """Instances from the rows' own streams; a problem with a single instance draws nothing."""
        if not problem.is_family:
            return np.zeros(len(rows), dtype=np.int64)
        pools = [problem.instances.split(SPLIT_NAMES[int(is_test)]) for is_test in self.is_test[rows]]
        return np.array([self.generators[row].choice(pool) for row, pool in zip(rows, pools, strict=True)])

    def snapshot(self, episodes: EpisodesSnapshot, rows: Sequence[int] | IntArray) -> EnvSnapshot:
        """The given episodes with copies of the streams of their rows."""
        generators = tuple(deepcopy(self.generators[row]) for row in rows)
        return EnvSnapshot(episodes, generators, self.is_test[np.asarray(rows)].copy())

    def restore(self, saved: EnvSnapshot, rows: Sequence[int] | IntArray) -> None:
        """Set the streams of some rows to those of a snapshot."""
        self.is_test[np.asarray(rows)] = saved.is_test
        for row, generator in zip(rows, saved.generators, strict=True):
            own = self.generators[row].bit_generator
            if type(own) is type(generator.bit_generator):
                own.state = generator.bit_generator.state  # in place: a user may hold the same generator
            else:
                self.generators[row] = deepcopy(generator)
