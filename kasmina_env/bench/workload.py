"""What is timed: episodes in which a seed is alive in every slot of every network, and stays.

That is the dearest a step gets, and what a controller that grows reaches after a third of an episode. The seeds are
random ones of the whole menu, so that every blueprint and operator is in use.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from kasmina_env.envs.env import KasminaEnv
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray, IntArray
from kasmina_env.lifecycle.state import Op


class Lively:
    """Germinates a random seed in the first free slot, else advances one that may; with nothing to do it waits.

    Args:
        problem: Problem of the episodes.
        rng_seed: Seed of the choice among seeds.
    """

    def __init__(self, problem: Problem, rng_seed: int = 0) -> None:
        self._rng = np.random.default_rng(rng_seed)
        op = problem.actions.op
        self._merit = 2.0 * (op == Op.ADVANCE) + (op == Op.GERMINATE)  # [A]

    def act(self, mask: BoolArray) -> IntArray:
        """Flat actions ``[N]``, from masks ``[N, A]``; 0 is WAIT."""
        merit = np.where(mask & (self._merit > 0), self._merit + self._rng.random(mask.shape), 0.0)
        return np.asarray(merit.argmax(axis=1))


def is_lively(episodes: Episodes) -> bool:
    """Whether every slot of every network holds a seed that acts."""
    lifecycle = episodes.state().lifecycle
    return bool((lifecycle.is_live & (lifecycle.alpha.value > 0)).all())


def lively_population(preset: str, num_networks: int, **settings: Any) -> KasminaVectorEnv:
    """A vector environment in the middle of its episodes, with a seed at work in all slots.

    Raises:
        RuntimeError: If the slots cannot be filled within an episode.
    """
    env = KasminaVectorEnv(num_networks, preset, **settings)
    policy = Lively(env.problem)
    env.reset(seed=0)
    for _ in range(env.problem.horizon - 1):
        if is_lively(env.episodes):
            return env
        env.step(policy.act(env.action_masks()))
    raise RuntimeError(f"`horizon` must leave time to fill all slots, got {env.problem.horizon}. Make it longer.")


class LivelyEnv(gym.Wrapper[Any, Any, Any, Any]):
    """A single environment that `fill` brings to where all its slots are filled, and `rewind` back to there.

    Nothing else goes back: whoever times it rewinds it before its episode ends.

    Args:
        preset: Registered id.
        rng_seed: Seed of its episode and of what it grows.
    """

    def __init__(self, preset: str, rng_seed: int) -> None:
        self.single = KasminaEnv(preset)
        super().__init__(self.single)
        self._policy = Lively(self.single.problem, rng_seed)
        self._rng_seed = rng_seed

    def fill(self) -> None:
        """Play until every slot holds a seed that acts, and remember this place."""
        self.single.reset(seed=self._rng_seed)
        while not is_lively(self.single.episodes):
            self.single.step(self.choose())
        self._start = self.single.snapshot()

    def rewind(self) -> None:
        """Go back to the place remembered."""
        self.single.restore(self._start)

    def choose(self) -> int:
        """What the lively policy does here."""
        return int(self._policy.act(self.single.action_masks()[None])[0])
