"""A trained controller as one file: the tensors of its policy network and the settings it is rebuilt from.

Nothing is unpickled, so that a file from anybody can be looked at and played.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from kasmina_env.controllers.policy import Policy
from kasmina_env.episode.actions import HEADS
from kasmina_env.episode.problem import Problem
from kasmina_env.learning.algorithms import learned_policy
from kasmina_env.learning.models import make_policy
from kasmina_env.learning.random_states import untouched_random_states
from kasmina_env.learning.training_config import TrainingConfig, plain, training_config_of
from kasmina_env.networks.tensor_file import describe, read_file, to_bytes

KIND, SCHEMA = "controller", 1
KEYS = ("training", "layout", "steps")
MODEL = "model.safetensors"  # in the folder of a finished run
OLD = ("recipe.json", "model.zip")  # what earlier versions wrote in their place


@dataclass(frozen=True)
class Controller:
    """A trained controller, read from a file.

    Attributes:
        path: The file.
        config: Settings it was trained with.
        layout: See `layout_of`.
        steps: Environment steps it was trained for.
        tensors: Tensors of its policy network, by name.
    """

    path: Path
    config: TrainingConfig
    layout: Mapping[str, Any]
    steps: int
    tensors: Mapping[str, Tensor]


def controller_to_bytes(config: TrainingConfig, problem: Problem, model: BaseAlgorithm) -> bytes:
    """Content of the file of a model that was trained on a problem."""
    document = {"training": plain(config), "layout": layout_of(problem), "steps": model.num_timesteps}
    tensors = {name: tensor.detach().clone() for name, tensor in model.policy.state_dict().items()}
    return to_bytes(describe(KIND, SCHEMA, document), tensors)


def load_controller(run: Path) -> Controller:
    """Read a controller from the folder of a finished training run, or from the file in it.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is damaged or of another version.
    """
    path = run / MODEL if run.is_dir() else run
    if not path.is_file():
        found = [name for name in OLD if (run / name).is_file()]
        if found:
            raise ValueError(
                f"`run` must hold {MODEL}, got '{run}' with {found[-1]} of an earlier version, which is not read any "
                "more. Train it again."
            )
        raise FileNotFoundError(f"`run` must be a folder with a finished training run, got '{run}'. Train one first.")
    document, tensors = read_file(path, KIND, SCHEMA, *KEYS)
    try:
        config = training_config_of(document["training"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"`{path}` must be of a controller that can be built here: {error}") from error
    return Controller(path, config, document["layout"], document["steps"], tensors)


def config_of_run(run: Path) -> TrainingConfig:
    """Settings that the controller of a finished run was trained with; see `load_controller`."""
    return load_controller(run).config


def load_policy(controller: Controller, problem: Problem) -> BasePolicy:
    """The policy network of a controller, as stable-baselines3 knows it, for a problem of the same layout.

    Raises:
        ValueError: If the problem has another layout, or the tensors do not fit the settings.
    """
    check_layout(controller, problem)
    try:
        with untouched_random_states():
            policy = make_policy(controller.config, problem)
        policy.load_state_dict(dict(controller.tensors))
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"`{controller.path}` must be of a controller that can be built here: {reason}") from error
    policy.set_training_mode(False)
    return policy


def load_learned(run: Path, problem: Problem) -> Policy:
    """The controller of a finished training run, playing a problem: the one it was trained on, or one of equal layout.

    Args:
        run: Folder of the run, or the file of a controller.
        problem: Problem it is going to play.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it cannot be read, or the problem has other observations or actions.
    """
    controller = load_controller(run)
    return learned_policy(controller.config.algorithm, load_policy(controller, problem), problem)


# ── layouts ─────────────────────────────────────────────────────────────────────────────────────


def layout_of(problem: Problem) -> dict[str, Any]:
    """What a controller knows of a problem: entries of observations, menus, and actions as entries of these.

    Tempos are known by their rank: the shortest of one problem is that of another one, whatever it is in steps.
    """
    menus = {head: list(problem.actions.menus[head]) for head in HEADS}
    menus["tempo"] = list(range(len(menus["tempo"])))
    return {"observations": list(problem.observations.names), **menus, "actions": problem.actions.entries.tolist()}


def check_layout(controller: Controller, problem: Problem) -> None:
    """Raise one clear sentence where a problem has another layout than the one a controller was trained on."""
    wanted = layout_of(problem)
    differs = [name for name in wanted if controller.layout.get(name) != wanted[name]]
    if differs:
        raise ValueError(
            f"`run` must be trained on the observations and actions of {problem.id}, got '{controller.path}' of "
            f"{controller.config.preset}, which has another layout: {', '.join(differs)}. Train it on this environment."
        )
