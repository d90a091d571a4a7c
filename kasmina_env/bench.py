"""How long a step takes, for populations of several sizes, measured side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kasmina_env.presets import PRESETS
from kasmina_env.vector_env import KasminaVectorEnv


@dataclass(frozen=True)
class Timing:
    """Seconds of a step of one population size, medians over repeats."""

    num_networks: int
    seconds_per_step: float
    low: float  # fastest repeat
    high: float  # slowest repeat

    @property
    def seconds_per_network(self) -> float:
        """Seconds of a step over the number of networks."""
        return self.seconds_per_step / self.num_networks


def measure(preset: str, sizes: Sequence[int], repeats: int, num_steps: int) -> list[Timing]:
    """Time populations in turn, so that a machine that slows down slows all of them.

    Each plays uniformly random legal actions. A size's repeats go on where the last one stopped.

    Args:
        preset: Registered id.
        sizes: Numbers of networks.
        repeats: Of each size.
        num_steps: Steps of each repeat.
    """
    PRESETS.get(preset)
    rng = np.random.default_rng(0)
    envs = [KasminaVectorEnv(size, preset) for size in sizes]
    for env in envs:
        env.reset(seed=0)
        _play(env, rng, env.core.config.horizon)  # warms up, and moves on to where seeds are in all stages
    seconds = np.array([[_play(env, rng, num_steps) for env in envs] for _ in range(repeats)])  # [repeats, sizes]
    columns = zip(sizes, np.median(seconds, axis=0), seconds.min(axis=0), seconds.max(axis=0), strict=True)
    return [Timing(size, float(middle), float(low), float(high)) for size, middle, low, high in columns]


def _play(env: KasminaVectorEnv, rng: np.random.Generator, num_steps: int) -> float:
    """Seconds per step, choice of actions included."""
    start = time.perf_counter()
    for _ in range(num_steps):
        masks = env.action_masks()
        env.step((rng.random(masks.shape) * masks).argmax(axis=1))
    return (time.perf_counter() - start) / num_steps
