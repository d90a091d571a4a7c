"""Fresh models of stable-baselines3, as training settings ask for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from kasmina_env.episode.actions import ActionTable
from kasmina_env.episode.problem import Problem
from kasmina_env.learning.algorithms import ALGORITHMS
from kasmina_env.learning.maskable_policy import Actor, parts_of
from kasmina_env.learning.training_config import TrainingConfig
from kasmina_env.settings.registry import unknown_name_message

OWN = ("policy", "env", "seed", "device", "_init_setup_model")  # arguments of a model that are no hyperparameters
LINEAR = "lin_"  # before a number: falls to 0 over the run, as in the files of rl-zoo3


def make_model(config: TrainingConfig, venv: VecEnv, problem: Problem) -> BaseAlgorithm:
    """A fresh model.

    An on-policy one learns after every episode of all rows, unless the settings say otherwise: where rollouts end,
    episodes end. With flat actions it begins by weighing an operation with n actions as sqrt(n) (`preferences`).

    Args:
        config: Settings of the run. A hyperparameter that the model's class does not know raises and names the nearest.
            A rate such as "lin_0.001" falls linearly to 0; `ent_coef` only starts there, and `train` lets it fall.
        venv: What it learns on.
        problem: Problem it learns on.
    """
    algorithm = ALGORITHMS.get(config.algorithm)
    settings = config.hyperparameters
    known = tuple(name for name in inspect.signature(algorithm.model).parameters if name not in OWN)
    for name in settings:
        if name not in known:
            raise ValueError(unknown_name_message("hyperparameters", name, known))
    values = {**({} if algorithm.is_off_policy else {"n_steps": problem.horizon}), **settings}
    values = {name: annealed(name, value) for name, value in values.items()}
    if callable(values.get("ent_coef")):
        values["ent_coef"] = values["ent_coef"](1.0)
    own: dict[str, Any] = {}
    if config.nearness:
        own["preferences"] = preferences(problem.actions, 0.0).tolist()
    if config.shared_parts:
        own["parts"] = parts_of(problem.actions)
    values["policy_kwargs"] = {"net_arch": list(config.net), **settings.get("policy_kwargs", {}), **own}
    make: Callable[..., BaseAlgorithm] = algorithm.model
    model = make(Actor if own else algorithm.policy, venv, seed=config.seed, device="cpu", **values)
    if algorithm.action_space == "flat" and not algorithm.is_off_policy:
        with torch.no_grad():
            model.policy.get_parameter("action_net.bias").copy_(preferences(problem.actions, 0.5))
    return model


def preferences(table: ActionTable, power: float) -> torch.Tensor:
    """Logits of flat actions ``[A]`` to which an operation with n actions weighs ``n**power``.

    Were all actions equally likely (1), a policy would hardly ever wait, or advance the seeds it has, because the menu
    of GERMINATE is so long, and would never see what comes of not growing; were all operations (0), it would hardly
    grow.
    """
    count = np.bincount(table.op)[table.op]
    return (power - 1) * torch.tensor(count.tolist(), device="cpu").log()


def annealed(name: str, value: Any) -> Any:
    """A hyperparameter; where it reads "lin_0.001", a function of what remains of the run, from 1 to 0."""
    if not isinstance(value, str) or not value.startswith(LINEAR):
        return value
    try:
        return LinearSchedule(float(value.removeprefix(LINEAR)), 0.0, 1.0)
    except ValueError:
        raise ValueError(f"`{name}` must be a number behind {LINEAR!r}, got {value!r}. Write {LINEAR}0.001.") from None
