"""Controls that play schedules, and the look-up of any policy by name, file or folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.controllers import scripted  # noqa: F401 - registers its policies
from kasmina_env.controllers.lookahead import Lookahead, Oracle
from kasmina_env.controllers.per_context import PerContext, load_contexts
from kasmina_env.controllers.policy import CONTROLS, Policy, register_policy
from kasmina_env.controllers.reactive import Reactive, Rules, load_rules, read_rules, rules_of
from kasmina_env.controllers.schedule import Fixed, Plan, actions_of, load_schedule, plan_of
from kasmina_env.controllers.scripted import Keep
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem, make_problem
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, IntArray
from kasmina_env.settings.configs import config_path, slug
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.imports import import_file
from kasmina_env.settings.presets import changed_settings

INSTANT = {"instant": True}
MATTER_NOT = ("instant", "hidden", "reward")  # settings that make no schedule worse


def shipped_schedule(problem: Problem) -> IntArray:
    """The best fixed schedule of a problem's id, flat actions ``[T]``."""
    path = config_path(f"{slug(problem.id)}.schedule.json", f"Make it with `kasmina search {problem.id}`.", True)
    return load_schedule(path, problem)


def _best_plan(problem: Problem) -> Plan:
    return plan_of(shipped_schedule(problem), problem.actions)


def _known_plans(problem: Problem) -> list[Plan]:
    """Plans with which a search in an episode begins: the best known schedules, and the empty plan."""
    contexts = _contexts(problem).schedules if problem.is_family else ()
    plans = [_best_plan(problem), *(plan_of(actions, problem.actions) for actions in contexts), ()]
    return list(dict.fromkeys(plans))


def shipped_plans(problem: Problem) -> list[Plan]:
    """The best fixed schedule of a problem, where there is one."""
    try:
        return [_best_plan(problem)]
    except (FileNotFoundError, ValueError):  # none was searched, or one for other menus
        return []


def best_known_rules(problem: Problem) -> list[Rules]:
    """Rules to begin a search with: those that play the best fixed schedule, where there is one."""
    return [rules_of(plan, problem) for plan in shipped_plans(problem)]


def shipped_rules(problem: Problem) -> list[Rules]:
    """The best rules of a problem, where there are any."""
    try:
        path = config_path(f"{slug(problem.id)}.reactive.json", "", True)
    except FileNotFoundError:
        return []
    return [read_rules(path)]


def _contexts(problem: Problem) -> PerContext:
    command = f"kasmina search {problem.id} --per-context"
    path = config_path(f"{slug(problem.id)}.per_context.json", f"Make it with `{command}`.", True)
    return load_contexts(path, problem)


def _at_once(actions: IntArray, problem: Problem) -> IntArray:
    """A schedule inserted at alpha 1, flat actions ``[T]``."""
    return actions_of(plan_of(actions, problem.actions), problem, is_instant=True)


@register_policy("fixed", "the best schedule that `kasmina search` found", is_searched=True)
def fixed(problem: Problem) -> Policy:
    """The best fixed schedule."""
    return Fixed(problem, shipped_schedule(problem))


@register_policy("per_context", "the best schedule for each visible context", is_searched=True)
def per_context(problem: Problem) -> Policy:
    """The best schedule for each context; without a family there is one context."""
    return _contexts(problem) if problem.is_family else fixed(problem)


@register_policy("reactive", "the best rules that `kasmina search --reactive` found", is_searched=True)
def reactive(problem: Problem) -> Reactive:
    """The best rules that a search found."""
    command = f"kasmina search {problem.id} --reactive"
    return load_rules(config_path(f"{slug(problem.id)}.reactive.json", f"Make it with `{command}`.", True), problem)


@register_policy("instant", "the best schedule, inserted at alpha 1", settings=INSTANT, is_searched=True)
def instant(problem: Problem) -> Policy:
    """The best schedule without the stages before HOLDING."""
    return Fixed(problem, _at_once(shipped_schedule(problem), problem))


@register_policy(
    "instant_per_context",
    "the best schedule for each visible context, inserted at alpha 1",
    settings=INSTANT,
    is_searched=True,
)
def instant_per_context(problem: Problem) -> Policy:
    """The best schedule for each context without the stages before HOLDING."""
    if not problem.is_family:
        return instant(problem)
    staged = _contexts(problem)
    return PerContext(problem, staged.contexts, np.stack([_at_once(a, problem) for a in staged.schedules]))


def _final_seeds(problem: Problem) -> Plan:
    """The seeds of the best schedule that it keeps."""
    return tuple(seed for seed in _best_plan(problem) if seed.prune is None)


def _planted(problem: Problem) -> IntArray:
    return np.array([seed.action(problem.actions) for seed in _final_seeds(problem)], dtype=np.int64)


@register_policy(
    "static_final",
    "the best schedule's architecture from the start",
    settings=INSTANT,
    planted=_planted,
    is_searched=True,
)
def static_final(problem: Problem) -> Policy:
    """Policy that keeps the planted architecture."""
    return Keep(problem, [seed.slot for seed in _final_seeds(problem)])


@register_policy("learned", "the controller that comes with the package, trained on other episodes", is_learned=True)
def shipped_controller(problem: Problem) -> Policy:
    """The shipped controller of a problem's id."""
    from kasmina_env.learning.controller_file import (
        load_learned,  # imports stable-baselines3, which controls do not need
    )

    command = f"Train one with `kasmina train {problem.id}`, and name its folder."
    return load_learned(config_path(f"{slug(problem.id)}.learned.safetensors", command), problem)


@register_policy("lookahead", "tries every action in copies", is_bound=True)
def lookahead(problem: Problem) -> Policy:
    """The best of all actions, each tried in copies of the episode."""
    return Lookahead(problem, _known_plans(problem))


@register_policy("oracle", "a schedule searched on the very episode", is_bound=True)
def oracle(problem: Problem) -> Policy:
    """The best schedule of the very episode."""
    return Oracle(problem, _known_plans(problem))


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
        name: Name of a control, or path of a file or folder. A JSON file holds a schedule, one per context,
            or rules. A .py file
            registers one policy. The .safetensors file in the folder of a run stands for the run.
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
