"""What environments have shown since a rollout began, so that an interrupted rollout is gone through again at once.

stable-baselines3 can go on from the beginning of a rollout only. An interrupted one is therefore played again: policy
and random streams go back to its beginning and decide the same, and what the environments answered is read from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from kasmina_env.learning.time_spent import Clock
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array


@dataclass(frozen=True, eq=False)
class Shown:
    """Answer of N rows to one step, and what they were asked before it."""

    masks: BoolArray | None  # [N, A] of legal actions before the step; None if nobody asked
    observations: Float32Array  # [N, F]
    rewards: Float32Array  # [N]
    dones: BoolArray  # [N]
    infos: dict[int, dict[str, Any]]  # of the rows whose episodes ended; in training nobody asks for others


class Recorder(VecEnvWrapper):
    """Remembers the steps of a rollout, and shows steps that it was given before it takes new ones.

    Args:
        venv: N rows.
        clock: Measures the time that they take.
    """

    def __init__(self, venv: VecEnv, clock: Clock) -> None:
        super().__init__(venv)
        self.steps: list[Shown] = []
        self._clock, self._position = clock, 0
        self._masks: BoolArray | None = None

    def begin(self) -> None:
        """Forget the steps of a rollout that is over; those that have not been shown yet belong to the next one."""
        del self.steps[: self._position]
        self._position = 0

    @property
    def _is_known(self) -> bool:
        """Whether the next step has been taken already."""
        return self._position < len(self.steps)

    def reset(self) -> VecEnvObs:
        with self._clock.during("environment"):
            return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        if not self._is_known:
            self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        if not self._is_known:
            with self._clock.during("environment"):
                observations, rewards, dones, infos = self.venv.step_wait()
            ended = {row: infos[row] for row in np.flatnonzero(dones).tolist()}
            assert isinstance(observations, np.ndarray)
            self.steps.append(Shown(self._masks, observations, rewards, dones, ended))
        self._masks = None
        shown = self.steps[self._position]
        self._position += 1
        infos = [dict(shown.infos.get(row, {})) for row in range(self.num_envs)]
        return shown.observations.copy(), shown.rewards.copy(), shown.dones.copy(), infos

    def env_method(
        self, method_name: str, *args: Any, indices: int | Iterable[int] | None = None, **kwargs: Any
    ) -> list[Any]:
        if method_name != "action_masks" or indices is not None:
            return self.venv.env_method(method_name, *args, indices=indices, **kwargs)
        if self._is_known:
            masks = self.steps[self._position].masks
            assert masks is not None
            return list(masks)
        found = self.venv.env_method(method_name)
        self._masks = np.stack(found)
        return found
