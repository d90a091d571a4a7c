"""The learning algorithms of stable-baselines3 that recipes name, and the policies their models become."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from agents.actor import Actor, parts_of
from agents.policy import BoolArray, Float32Array, IntArray, Names, Policy, names_of
from kasmina_env import KasminaVectorEnv
from kasmina_env.registry import Registry, unknown_name_message
from kasmina_env.shell import ActionForm

Decode = Callable[[IntArray], IntArray]  # actions of the model to flat ones [N]


class Masked:
    """A model that knows which flat actions are legal; deterministic."""

    def __init__(self, model: Any, names: Names, decode: Decode) -> None:
        self._model, self._decode = model, decode

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        actions, _ = self._model.predict(observation, action_masks=mask, deterministic=True)
        return self._decode(actions)


class Unmasked:
    """A model that is free to choose what is not legal, and was trained so; deterministic."""

    def __init__(self, model: Any, names: Names, decode: Decode) -> None:
        self._model, self._decode = model, decode

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        actions, _ = self._model.predict(observation, deterministic=True)
        return self._decode(actions)


class Recurrent:
    """An unmasked model with a memory of the episode, which begins anew where progress is 0; deterministic."""

    def __init__(self, model: Any, names: Names, decode: Decode) -> None:
        self._model, self._decode, self._progress = model, decode, names.column("progress")
        self._memory: Any = None
        self._num_networks = 0

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        if len(observation) != self._num_networks:
            self._memory, self._num_networks = None, len(observation)
        actions, self._memory = self._model.predict(
            observation, self._memory, episode_start=observation[:, self._progress] == 0, deterministic=True
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
    """

    model: type[BaseAlgorithm]
    player: Callable[[Any, Names, Decode], Policy]
    action_space: ActionForm
    policy: str = "MlpPolicy"

    @property
    def is_off_policy(self) -> bool:
        """Whether it learns from a buffer of old transitions."""
        return issubclass(self.model, OffPolicyAlgorithm)


ALGORITHMS: Registry[Algorithm] = Registry("algorithm")
ALGORITHMS.register("maskable_ppo", Algorithm(MaskablePPO, Masked, "flat"))
ALGORITHMS.register("ppo", Algorithm(PPO, Unmasked, "factored"))
ALGORITHMS.register("a2c", Algorithm(A2C, Unmasked, "factored"))
ALGORITHMS.register("recurrent_ppo", Algorithm(RecurrentPPO, Recurrent, "factored", "MlpLstmPolicy"))
ALGORITHMS.register("dqn", Algorithm(DQN, Unmasked, "flat"))
ALGORITHMS.register("qr_dqn", Algorithm(QRDQN, Unmasked, "flat"))

OWN = ("policy", "env", "seed", "device", "_init_setup_model")  # arguments of a model that a recipe settles otherwise
LINEAR = "lin_"  # before a number: falls to 0 over the run, as in the files of rl-zoo3


def make_model(
    algorithm: Algorithm,
    venv: VecEnv,
    names: Names,
    net: tuple[int, ...],
    seed: int,
    settings: Mapping[str, Any],
    nearness: bool = False,
    shared_parts: bool = False,
) -> BaseAlgorithm:
    """A fresh model.

    An on-policy one learns after every episode of all rows, unless the settings say otherwise: where rollouts end,
    episodes end. With flat actions it begins by weighing an operation with n actions as sqrt(n) (`preferences`).

    Args:
        algorithm: Which.
        venv: What it learns on.
        names: Of the environment.
        net: Hidden layers.
        seed: Of the model and of the environments.
        settings: Keyword arguments of the model's class; an unknown one raises and names the nearest. A rate such as
            "lin_0.001" falls linearly to 0; `ent_coef` only starts there, and `agents.train` lets it fall.
        nearness: Whether `ent_coef` weighs nearness to a policy to which all operations weigh the same, in place of
            entropy; of MaskablePPO only.
        shared_parts: Whether actions with the same slot, blueprint and so on learn from each other; likewise.
    """
    known = tuple(name for name in inspect.signature(algorithm.model).parameters if name not in OWN)
    for name in settings:
        if name not in known:
            raise ValueError(unknown_name_message("hyperparameters", name, known))
    own_policy = settings.get("policy_kwargs", {})
    values = {**({} if algorithm.is_off_policy else {"n_steps": names.horizon}), **settings}
    values = {name: annealed(name, value) for name, value in values.items()}
    if callable(values.get("ent_coef")):
        values["ent_coef"] = values["ent_coef"](1.0)
    values["policy_kwargs"] = {"net_arch": list(net), **own_policy}
    make: Callable[..., BaseAlgorithm] = algorithm.model
    own: dict[str, Any] = {}
    if nearness:
        own["preferences"] = preferences(names, 0.0).tolist()
    if shared_parts:
        own["parts"] = parts_of(names.action)
    values["policy_kwargs"] |= own
    policy = Actor if own else algorithm.policy
    model = make(policy, venv, seed=seed, device="cpu", **values)
    if algorithm.action_space == "flat" and not algorithm.is_off_policy:
        with torch.no_grad():
            model.policy.get_parameter("action_net.bias").copy_(preferences(names, 0.5))
    return model


def preferences(names: Names, power: float) -> torch.Tensor:
    """Logits of flat actions ``[A]`` to which an operation with n actions weighs ``n**power``.

    Were all actions equally likely (1), a policy would hardly ever wait, or advance the seeds it has, because the menu
    of GERMINATE is so long, and would never see what comes of not growing; were all operations (0), it would hardly
    grow.
    """
    operations = [name.split()[0] for name in names.action]
    count = Counter(operations)
    return (power - 1) * torch.tensor([count[op] for op in operations]).log()


def annealed(name: str, value: Any) -> Any:
    """A value of a recipe; where it reads "lin_0.001", a function of what remains of the run, from 1 to 0."""
    if not isinstance(value, str) or not value.startswith(LINEAR):
        return value
    try:
        return LinearSchedule(float(value.removeprefix(LINEAR)), 0.0, 1.0)
    except ValueError:
        raise ValueError(f"`{name}` must be a number behind {LINEAR!r}, got {value!r}. Write {LINEAR}0.001.") from None


def make_player(algorithm: Algorithm, model: BaseAlgorithm, env: KasminaVectorEnv) -> Policy:
    """A trained model as a policy of flat actions.

    Raises:
        ValueError: If the environment has other observations or actions than the one the model was trained in.
    """
    table = env.core.actions
    size = len(env.observation_names)
    num_actions = table.num_actions if algorithm.action_space == "flat" else table.num_choices
    found = (model.observation_space.shape, _size(model.action_space))
    if found != ((size,), num_actions):
        raise ValueError(
            f"`run` must be trained with {size} observed figures and actions {num_actions}, got {found}. Train it on "
            "this environment."
        )
    return algorithm.player(model, names_of(env), _flat if algorithm.action_space == "flat" else table.flatten)


def _flat(actions: IntArray) -> IntArray:
    return np.asarray(actions, dtype=np.int64)


def _size(space: Any) -> int | tuple[int, ...]:
    return int(space.n) if isinstance(space, spaces.Discrete) else tuple(int(n) for n in space.nvec)
