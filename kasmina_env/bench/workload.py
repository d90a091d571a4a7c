"""What is timed: episodes in which a seed is alive in every slot of every network, and stays.

That is the dearest a step gets, and what a controller that grows reaches after a third of an episode. The seeds are
random ones of the whole menu, so that every blueprint and operator is in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from kasmina_env.envs.env import KasminaEnv
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.core import Core
from kasmina_env.lifecycle.arrays import BoolArray, IntArray


class Lively:
    """Germinates a random seed in the first free slot, else advances one that may; with nothing to do it waits.

    Args:
        action_names: Of an environment.
        rng_seed: Of the choice among seeds.
    """

    def __init__(self, action_names: Sequence[str], rng_seed: int = 0) -> None:
        self._rng = np.random.default_rng(rng_seed)
        operations = np.array([name.split()[0] for name in action_names])
        self._merit = 2.0 * (operations == "ADVANCE") + (operations == "GERMINATE")  # [A]

    def act(self, mask: BoolArray) -> IntArray:
        """Flat actions ``[N]``, from masks ``[N, A]``; 0 is WAIT."""
        merit = np.where(mask & (self._merit > 0), self._merit + self._rng.random(mask.shape), 0.0)
        return np.asarray(merit.argmax(axis=1))


def is_lively(core: Core) -> bool:
    """Whether every slot of every network holds a seed that acts."""
    lifecycle = core.view.lifecycle
    return bool((lifecycle.is_live & (lifecycle.alpha.value > 0)).all())


def lively_population(preset: str, num_networks: int, **settings: Any) -> KasminaVectorEnv:
    """A vector environment in the middle of its episodes, with a seed at work in all slots.

    Raises:
        RuntimeError: If the slots cannot be filled within an episode.
    """
    env = KasminaVectorEnv(num_networks, preset, **settings)
    policy = Lively(env.action_names)
    env.reset(seed=0)
    for _ in range(env.core.config.horizon - 1):
        if is_lively(env.core):
            return env
        env.step(policy.act(env.action_masks()))
    raise RuntimeError(f"`horizon` must leave time to fill all slots, got {env.core.config.horizon}. Make it longer.")


class LivelyEnv(gym.Wrapper[Any, Any, Any, Any]):
    """A single environment that `fill` brings to where all its slots are filled, and `rewind` back to there.

    Nothing else goes back: whoever times it rewinds it before its episode ends.

    Args:
        preset: Registered id.
        rng_seed: Of its episode and its seeds.
    """

    def __init__(self, preset: str, rng_seed: int) -> None:
        self.single = KasminaEnv(preset)
        super().__init__(self.single)
        self._policy = Lively(self.single.action_names, rng_seed)
        self._rng_seed = rng_seed

    def fill(self) -> None:
        """Play until every slot holds a seed that acts, and remember this place."""
        self.single.reset(seed=self._rng_seed)
        while not is_lively(self.single.core):
            self.single.step(self.choose())
        self._start = self.single.snapshot()

    def rewind(self) -> None:
        """Go back to the place remembered."""
        self.single.restore(self._start)

    def choose(self) -> int:
        """What the lively policy does here."""
        return int(self._policy.act(self.single.action_masks()[None])[0])
