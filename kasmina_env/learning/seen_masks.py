"""Masks for algorithms that know none: legal actions are part of what is observed, and others are worth nothing.

A mask behind each observation reaches every place where the network looks: the choice of an action, the values of the
next state that a target takes the best of (stored with it in the buffer), and the policy gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor
from torch.nn import Linear

from kasmina_env.lifecycle.arrays import Float32Array

ILLEGAL = -1e8  # logit or value of an action that is not legal; infinity would make gradients NaN


def with_mask(observation: np.ndarray, mask: np.ndarray) -> Float32Array:
    """Observations ``[..., F]`` and masks ``[..., A]`` in one, ``[..., F + A]``."""
    return np.concatenate([observation, mask.astype(np.float32)], axis=-1)


def masked_space(space: spaces.Space[Any], num_actions: int) -> spaces.Box:
    """Bounds of observations with masks behind them."""
    assert isinstance(space, spaces.Box)
    low, high = np.zeros(num_actions, dtype=np.float32), np.ones(num_actions, dtype=np.float32)
    return spaces.Box(np.concatenate([space.low, low]), np.concatenate([space.high, high]), dtype=np.float32)


class MasksObserved(VecEnvWrapper):
    """Puts the mask of legal actions behind every observation.

    Args:
        venv: Rows of flat actions.
    """

    def __init__(self, venv: VecEnv) -> None:
        assert isinstance(venv.action_space, spaces.Discrete)
        super().__init__(venv, masked_space(venv.observation_space, int(venv.action_space.n)))

    def _masked(self, observations: Any) -> VecEnvObs:
        return with_mask(observations, np.stack(self.venv.env_method("action_masks")))

    def reset(self) -> VecEnvObs:
        return self._masked(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        for row in np.flatnonzero(dones).tolist():
            last = infos[row]
            last["terminal_observation"] = with_mask(last["terminal_observation"], last["action_mask"])
        return self._masked(observations), rewards, dones, infos


class Observed(BaseFeaturesExtractor):
    """Hands on what stands before the mask, and keeps the mask for the layer that needs it.

    Args:
        space: Observations with masks behind them.
        num_actions: Size of a mask.
    """

    def __init__(self, space: spaces.Box, num_actions: int) -> None:
        super().__init__(space, space.shape[0] - num_actions)
        self.mask: Tensor | None = None  # [B, A] of the latest observations

    def forward(self, observations: Tensor) -> Tensor:
        self.mask = observations[:, self.features_dim :] > 0
        return observations[:, : self.features_dim]


class MaskedLinear(Linear):
    """A layer whose outputs for actions that are not legal are `ILLEGAL`; its parameters are those of another one.

    Args:
        own: Layer to A outputs, or to several times A.
        observed: Keeper of the masks of the samples it is called with.
    """

    def __init__(self, own: Linear, observed: Observed) -> None:
        super().__init__(own.in_features, own.out_features, device="meta")
        self.weight, self.bias = own.weight, own.bias
        self._observed = (observed,)  # in a tuple, so that it does not become a part of this one

    def forward(self, x: Tensor) -> Tensor:
        mask = self._observed[0].mask
        assert mask is not None
        values = super().forward(x)
        return values.masked_fill(~mask.repeat(1, values.shape[1] // mask.shape[1]), ILLEGAL)


def see_masks(policy: BasePolicy) -> None:
    """Let the networks of a policy, which has `Observed` as features extractor, obey the masks."""
    if hasattr(policy, "action_net"):
        policy.action_net = MaskedLinear(policy.action_net, policy.features_extractor)  # type: ignore[arg-type]
    for owner, name in (("q_net", "q_net"), ("quantile_net", "quantile_net")):
        for network in (getattr(policy, owner, None), getattr(policy, f"{owner}_target", None)):
            if network is not None:
                layers = getattr(network, name)
                layers[-1] = MaskedLinear(layers[-1], network.features_extractor)


class _ExploresLegally:
    """Random actions are legal ones, all alike."""

    def _sample_action(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> Any:
        model: Any = self
        is_random = model.num_timesteps < learning_starts or np.random.rand() < model.exploration_rate  # noqa: NPY002
        if is_random:
            masks = model._last_obs[:, -int(model.action_space.n) :] > 0
            drawn = np.random.random_sample(masks.shape)  # noqa: NPY002 - the generator that the library draws from
            actions = np.where(masks, drawn, -1.0).argmax(axis=1)
        else:
            actions, _ = model.predict(model._last_obs, deterministic=True)
        return actions, actions


class MaskedDQN(_ExploresLegally, DQN):
    """DQN that explores, chooses and bootstraps among legal actions."""


class MaskedQRDQN(_ExploresLegally, QRDQN):
    """QR-DQN that explores, chooses and bootstraps among legal actions."""
