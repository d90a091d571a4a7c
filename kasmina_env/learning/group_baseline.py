"""Training episodes in groups that differ in nothing but what the controller does.

Rows of a group have the same instance, the same host and the same minibatches, in every episode. What they earn differs
because of their actions, so the mean of the others is the best baseline there is: it takes out all that a critic would
have to guess. Being of the others only, it leaves the policy gradient unbiased (Kool et al. 2019, "Buy 4 REINFORCE
samples, get a baseline for free!").

What the others earned is taken from the last reward, or step by step from each. Step by step it also takes out when
something happens to all of a group, such as a change of their data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray


class Paired(VecEnvWrapper):
    """Takes from the rewards of an episode what the other rows of its group earned in theirs, on the mean.

    An episode that ends before those of its group, because its network died, is measured against nothing. From then on
    its row is ahead of its group, and is measured only against rows that are at the same step.

    Args:
        venv: N rows whose episodes have one length.
        size: Rows of a group, next to each other.
        each_step: Whether to take from each reward what the others earned in that step; otherwise the last reward pays
            for all.
    """

    def __init__(self, venv: VecEnv, size: int, each_step: bool = False) -> None:
        if venv.num_envs % size:
            raise ValueError(f"`group` must divide the {venv.num_envs} networks, got {size}. Choose another one.")
        super().__init__(venv)
        self._group = np.arange(venv.num_envs) // size
        self._each_step = each_step
        self.earned = np.zeros(venv.num_envs)  # [N] in the episodes that are going on
        self.steps = np.zeros(venv.num_envs, dtype=np.int64)  # [N] of these episodes

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Give row i the seed s + (number of its group): rows that reset together stay together."""
        seeds = [None if seed is None else seed + int(group) for group in self._group]
        return self.venv.seed(seeds)  # type: ignore[arg-type]  # of a KasminaVecEnv, which takes one for each row

    def reset(self) -> VecEnvObs:
        self.earned[:] = self.steps[:] = 0
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        self.earned += rewards
        self.steps += 1
        if self._each_step:
            relative = rewards - self._mean_of_others(rewards, np.ones_like(dones))
        else:
            relative = rewards - np.where(dones, self._mean_of_others(self.earned, dones), 0.0)
        self.earned[dones] = self.steps[dones] = 0
        return observations, relative, dones, infos

    def _mean_of_others(self, values: FloatArray, counts: BoolArray) -> FloatArray:
        """Mean ``[N]`` over other rows of the same group that count and are at the same step; 0 without any."""
        is_other = (self._group == self._group[:, None]) & (self.steps == self.steps[:, None]) & counts
        np.fill_diagonal(is_other, False)
        return np.asarray(is_other @ values / np.maximum(is_other.sum(axis=1), 1))
