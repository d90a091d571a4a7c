"""Look-up of any policy, by the name of a control or the path of a file or folder, and the problem that it plays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.comparison import controls  # noqa: F401 - registers them
from kasmina_env.controllers.per_context import load_contexts
from kasmina_env.controllers.policy import CONTROLS, Policy
from kasmina_env.controllers.reactive import load_rules
from kasmina_env.controllers.schedule import Fixed, load_schedule
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem, make_problem
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, IntArray
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.imports import import_file
from kasmina_env.settings.presets import changed_settings

MATTER_NOT = ("instant", "hidden", "reward")  # settings that make no schedule worse


@dataclass(frozen=True)
class Player:
    """A policy, the problem it plays, and flat GERMINATE actions to carry out before the first step."""

    policy: Policy
    problem: Problem
    planted: IntArray | None = None


class Swapped(Policy):
    """Policy that is shown some entries of its observation as they are in the episode of the row before.

    Args:
        policy: Policy that decides.
        columns: Indices of these entries.
    """

    def __init__(self, policy: Policy, columns: IntArray) -> None:
        self._policy, self._columns = policy, columns

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        self._policy.begin(seeds, episodes)

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        shown = observation.copy()
        shown[:, self._columns] = np.roll(observation, 1, axis=0)[:, self._columns]
        return self._policy.act(shown, mask)


def find_player(name: str, preset: str, **settings: Any) -> Player:
    """Find a control by name, a schedule or policy by file, or a learned policy by the folder of its training run.

    Args:
        name: Name of a control, or path of a file or folder. A JSON file holds a schedule, one per context, or rules. A
            .py file registers one policy. The .safetensors file in the folder of a run stands for the run.
        preset: Registered id.
        **settings: Settings of the problem that differ from the preset.
    """
    name = control_name(name)
    path = Path(name)
    if name not in CONTROLS and not path.exists() and len(path.parts) > 1:
        raise FileNotFoundError(f"`{name}` must be a control, or a file or folder that exists, got none. Correct it.")
    if name in CONTROLS or not path.exists():
        control = CONTROLS.get(name)
        if control.is_searched:
            _check_usual(make_problem(preset, **settings))
        problem = make_problem(preset, **{**settings, **control.settings})
        return Player(control.make(problem), problem, control.planted and control.planted(problem))
    if path.is_file() and path.suffix != ".safetensors":
        problem = make_problem(preset, **settings)
        return Player(_from_file(path, problem), problem)
    # Imports stable-baselines3, which controls do not need.
    from kasmina_env.learning.controller_file import config_of_run, load_learned

    problem = make_problem(preset, **{**settings, "hidden": config_of_run(path).settings.get("hidden", ())})
    return Player(load_learned(path, problem), problem)


def _check_usual(problem: Problem) -> None:
    """Raise a ``ValueError`` where a control was searched for other settings than it is to play with."""
    changed = changed_settings(problem.id, problem.config)
    others = [setting for setting in changed if setting not in MATTER_NOT]
    if others:
        raise ValueError(
            f"`policies` must be searched for these settings, got some for those of {problem.id}, which differ in "
            f"{', '.join(others)}. Register an id with these settings, and search there."
        )


def _from_file(path: Path, problem: Problem) -> Policy:
    written = read_document(path)
    if "contexts" in written:
        return load_contexts(path, problem)
    return load_rules(path, problem) if "rules" in written else Fixed(problem, load_schedule(path, problem))


def control_name(name: str) -> str:
    """Name of a control. A .py file is imported, and stands for the policy that it registers."""
    path = Path(name)
    if path.suffix != ".py" or name in CONTROLS:
        return name
    module = import_file(path)
    found = [known for known in CONTROLS if CONTROLS.get(known).make.__module__ == module.__name__]
    if len(found) != 1:
        got = ", ".join(found) or "none"
        raise ValueError(f"`{name}` must register one policy with `register_policy`, got {got}.")
    return found[0]


@dataclass(frozen=True)
class Source:
    """A controller, and the problem it plays.

    Attributes:
        name: Name of a control, or path of a file or folder.
        preset: Registered id.
        settings: Fields of `kasmina_env.settings.config.EnvConfig` that differ from the preset.
    """

    name: str
    preset: str
    settings: Mapping[str, Any]


def find_source(name: str, preset: str | None) -> Source:
    """Find the problem of a training run by its folder, of a schedule by its file, or of a control by name.

    Args:
        name: Name of a control, or path of a file or folder.
        preset: Registered id, for a control. Schedules and training runs name their own; a learned policy also plays
            another one of the same layout.
    """
    path, own = Path(name), preset
    if name not in CONTROLS and (path.is_dir() or path.suffix == ".safetensors"):
        from kasmina_env.learning.controller_file import config_of_run  # imports stable-baselines3

        config = config_of_run(path)
        is_own = preset in (None, config.preset)
        return Source(name, config.preset, config.settings) if is_own else Source(name, str(preset), {})
    if name not in CONTROLS and path.is_file() and path.suffix != ".py":
        own = read_document(path, "id")["id"]
    if preset not in (None, own):
        raise ValueError(f"`env-id` must be {own} for {name}, got {preset}. Leave it out.")
    return Source(name, own or "Kasmina/Digits-v0", {})
