"""Training episodes in groups that differ in nothing but what the controller does.

Rows of a group have the same instance, the same host and the same minibatches, in every episode. What they earn differs
because of their actions, so the mean of the others is the best baseline there is: it takes out all that a critic would
have to guess. Being of the others only, it leaves the policy gradient unbiased (Kool et al. 2019, "Buy 4 REINFORCE
samples, get a baseline for free!").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from kasmina_env.lifecycle.arrays import IntArray


class Paired(VecEnvWrapper):
    """Takes from the last reward of an episode what the other rows of its group earned in theirs, on the mean.

    An episode that ends before those of its group, because its network died, is measured against nothing.

    Args:
        venv: N rows whose episodes have one length.
        size: Rows of a group, next to each other.
    """

    def __init__(self, venv: VecEnv, size: int) -> None:
        if venv.num_envs % size:
            raise ValueError(f"`group` must divide the {venv.num_envs} networks, got {size}. Choose another one.")
        super().__init__(venv)
        self._group = np.arange(venv.num_envs) // size
        self.earned = np.zeros(venv.num_envs)  # [N] in the episodes that are going on

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Give row i the seed s + (number of its group): rows that reset together stay together."""
        seeds = [None if seed is None else seed + int(group) for group in self._group]
        return self.venv.seed(seeds)  # type: ignore[arg-type]  # of a KasminaVecEnv, which takes one for each row

    def reset(self) -> VecEnvObs:
        self.earned[:] = 0.0
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        self.earned += rewards
        relative = rewards.copy()
        for row in np.flatnonzero(dones).tolist():
            others = self._others(row, dones)
            if len(others):
                relative[row] -= self.earned[others].mean()
        self.earned[dones] = 0.0
        return observations, relative, dones, infos

    def _others(self, row: int, dones: np.ndarray) -> IntArray:
        """Rows of the same group whose episodes end now too."""
        is_other = dones & (self._group == self._group[row])
        is_other[row] = False
        return np.flatnonzero(is_other)
