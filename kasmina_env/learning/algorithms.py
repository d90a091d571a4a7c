"""The learning algorithms of stable-baselines3 by name, and the policies their models become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy

from kasmina_env.controllers.policy import Policy
from kasmina_env.envs.spaces import ActionForm
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem
from kasmina_env.learning.seen_masks import MaskedDQN, MaskedQRDQN, with_mask
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, IntArray
from kasmina_env.settings.registry import Registry

Decode = Callable[[IntArray], IntArray]  # actions of the model to flat ones [N]


class Masked(Policy):
    """A model that knows which flat actions are legal; deterministic."""

    def __init__(self, model: Any, problem: Problem, decode: Decode) -> None:
        self._model, self._decode = model, decode

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        actions, _ = self._model.predict(observation, action_masks=mask, deterministic=True)
        return self._decode(actions)


class Unmasked(Policy):
    """A model that is free to choose what is not legal, and was trained so; deterministic."""

    def __init__(self, model: Any, problem: Problem, decode: Decode) -> None:
        self._model, self._decode = model, decode

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        actions, _ = self._model.predict(observation, deterministic=True)
        return self._decode(actions)


class Sighted(Policy):
    """A model that sees masks behind observations (`kasmina_env.learning.seen_masks`); deterministic."""

    def __init__(self, model: Any, problem: Problem, decode: Decode) -> None:
        self._model, self._decode = model, decode

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        actions, _ = self._model.predict(with_mask(observation, mask), deterministic=True)
        return self._decode(actions)


class Recurrent(Policy):
    """A sighted model with a memory of the episode, which begins anew where progress is 0; deterministic."""

    def __init__(self, model: Any, problem: Problem, decode: Decode) -> None:
        self._model, self._decode = model, decode
        self._progress = problem.observations.column("progress")
        self._memory: Any = None

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        self._memory = None

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        is_start = observation[:, self._progress] == 0
        actions, self._memory = self._model.predict(
            with_mask(observation, mask), self._memory, episode_start=is_start, deterministic=True
        )
        return self._decode(actions)


@dataclass(frozen=True)
class Algorithm:
    """How to make a model, and what it plays as.

    Attributes:
        model: Class of stable-baselines3 or sb3-contrib.
        player: Policy of a trained model.
        action_space: Form of the actions it learns with.
        policy: Kind of network, by the library's name.
        sees_masks: Whether masks stand behind its observations (`kasmina_env.learning.seen_masks`).
    """

    model: type[BaseAlgorithm]
    player: Callable[[Any, Problem, Decode], Policy]
    action_space: ActionForm
    policy: str = "MlpPolicy"
    sees_masks: bool = False

    @property
    def is_off_policy(self) -> bool:
        """Whether it learns from a buffer of old transitions."""
        return issubclass(self.model, OffPolicyAlgorithm)


ALGORITHMS: Registry[Algorithm] = Registry("algorithm")
ALGORITHMS.register("maskable_ppo", Algorithm(MaskablePPO, Masked, "flat"))
ALGORITHMS.register("ppo", Algorithm(PPO, Unmasked, "factored"))
ALGORITHMS.register("a2c", Algorithm(A2C, Sighted, "flat", sees_masks=True))
ALGORITHMS.register("recurrent_ppo", Algorithm(RecurrentPPO, Recurrent, "flat", "MlpLstmPolicy", sees_masks=True))
ALGORITHMS.register("dqn", Algorithm(MaskedDQN, Sighted, "flat", sees_masks=True))
ALGORITHMS.register("qr_dqn", Algorithm(MaskedQRDQN, Sighted, "flat", sees_masks=True))


def learned_policy(name: str, model: BaseAlgorithm | BasePolicy, problem: Problem) -> Policy:
    """A trained model, or its policy network, as a policy of flat actions.

    Args:
        name: Algorithm that it was trained with.
        model: Model of the problem's observations and actions.
        problem: Problem it plays.
    """
    algorithm = ALGORITHMS.get(name)
    return algorithm.player(model, problem, _flat if algorithm.action_space == "flat" else problem.actions.flatten)


def _flat(actions: IntArray) -> IntArray:
    return np.asarray(actions, dtype=np.int64)
