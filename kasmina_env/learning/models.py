"""Fresh models of stable-baselines3, and their policy networks alone, as training settings ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from kasmina_env.envs.spaces import action_space, observation_space
from kasmina_env.episode.actions import ActionTable
from kasmina_env.episode.problem import Problem
from kasmina_env.learning.algorithms import ALGORITHMS
from kasmina_env.learning.hyperparameters import annealed, check_hyperparameters
from kasmina_env.learning.maskable_policy import Actor, Standardized, parts_of
from kasmina_env.learning.seen_masks import Observed, masked_space, see_masks
from kasmina_env.learning.training_config import TrainingConfig
from kasmina_env.lifecycle.state import Op


def make_model(config: TrainingConfig, venv: VecEnv, problem: Problem) -> BaseAlgorithm:
    """A fresh model.

    An on-policy one learns after every episode of all rows, unless the settings say otherwise: where rollouts end,
    episodes end. With flat actions it begins by weighing an operation with n actions as sqrt(n) (`preferences`).

    Args:
        config: Settings of the run. A rate such as "lin_0.001" falls linearly to 0; `ent_coef` only starts there, and
            `train` lets it fall.
        venv: Environment it learns on.
        problem: Problem of the environment.

    Raises:
        ValueError: If a hyperparameter is not known or not allowed; the message names it.
    """
    algorithm = ALGORITHMS.get(config.algorithm)
    check_hyperparameters(algorithm.model, config.hyperparameters)
    values = {**({} if algorithm.is_off_policy else {"n_steps": problem.horizon}), **config.hyperparameters}
    values = {name: annealed(name, value) for name, value in values.items()}
    if callable(values.get("ent_coef")):
        values["ent_coef"] = values["ent_coef"](1.0)
    values["policy_kwargs"] = policy_settings(config, problem)
    make: Callable[..., BaseAlgorithm] = algorithm.model
    try:
        model = make(_policy_class(config), venv, seed=config.seed, device="cpu", **values)
        if algorithm.sees_masks:
            see_masks(model.policy)
    except (AssertionError, AttributeError, TypeError, ValueError) as error:  # the library checks late, if at all
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"`hyperparameters` must be such as {config.algorithm} accepts: {reason}.") from error
    if algorithm.action_space == "flat" and not algorithm.is_off_policy:
        with torch.no_grad():
            model.policy.get_parameter("action_net.bias").copy_(preferences(problem.actions, 0.5, config.prior))
    return model


def make_policy(config: TrainingConfig, problem: Problem) -> BasePolicy:
    """The policy network of a model alone, with weights at random: what plays, without what learns.

    Args:
        config: Settings of the run.
        problem: Problem it plays.
    """
    algorithm = ALGORITHMS.get(config.algorithm)
    observed = observation_space(problem, "flat", algorithm.action_space)
    if algorithm.sees_masks:
        observed = masked_space(observed, problem.actions.num_actions)
    chosen = action_space(problem, algorithm.action_space)
    make: Callable[..., BasePolicy] = _policy_class(config)
    policy = make(observed, chosen, lambda remaining: 0.0, **policy_settings(config, problem))
    if algorithm.sees_masks:
        see_masks(policy)
    return policy


def policy_settings(config: TrainingConfig, problem: Problem) -> dict[str, Any]:
    """Keyword arguments of the policy network."""
    own: dict[str, Any] = {}
    if config.nearness:
        own["preferences"] = preferences(problem.actions, 0.0, config.prior).tolist()
    if config.shared_parts:
        own["parts"] = parts_of(problem.actions)
    if config.standardized:
        own["features_extractor_class"] = Standardized
    if ALGORITHMS.get(config.algorithm).sees_masks:
        own["features_extractor_class"] = Observed
        own["features_extractor_kwargs"] = {"num_actions": problem.actions.num_actions}
    return {"net_arch": list(config.net), **config.hyperparameters.get("policy_kwargs", {}), **own}


def _policy_class(config: TrainingConfig) -> type[BasePolicy]:
    if config.nearness or config.shared_parts:
        return Actor
    algorithm = ALGORITHMS.get(config.algorithm)
    return algorithm.model.policy_aliases[algorithm.policy]


def preferences(table: ActionTable, power: float, prior: Mapping[str, float]) -> torch.Tensor:
    """Logits of flat actions ``[A]`` to which an operation with n actions weighs ``n**power``, times its prior.

    Were all actions equally likely (1), a policy would hardly ever wait, or advance the seeds it has, because the menu
    of GERMINATE is so long, and would never see what comes of not growing; were all operations (0), it would hardly
    grow.
    """
    count = np.bincount(table.op)[table.op]
    weights = [prior.get(Op(op).name, 1.0) for op in table.op.tolist()]
    sizes, weight = (torch.tensor(values, dtype=torch.float32, device="cpu") for values in (count.tolist(), weights))
    return (power - 1) * sizes.log() + weight.log()
