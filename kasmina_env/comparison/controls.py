"""Controls that play what a search or a training found for a problem, and the bounds that begin with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kasmina_env.controllers import scripted  # noqa: F401 - registers its policies
from kasmina_env.controllers.lookahead import Lookahead, Oracle
from kasmina_env.controllers.per_context import PerContext, load_contexts
from kasmina_env.controllers.policy import Policy, register_policy
from kasmina_env.controllers.reactive import Reactive, Rules, load_rules, read_rules, rules_of
from kasmina_env.controllers.schedule import Fixed, Plan, Planned, actions_of, load_schedule, plan_of
from kasmina_env.controllers.scripted import Keep
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import IntArray
from kasmina_env.lifecycle.state import Op
from kasmina_env.settings.paths import config_path, slug

INSTANT = {"instant": True}


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
    """The best rules of a problem, where there are any; a file that is damaged, or for other menus, raises."""
    try:
        path = config_path(f"{slug(problem.id)}.reactive.json", "", True)
    except FileNotFoundError:
        return []
    load_rules(path, problem)
    return [read_rules(path)]


def _contexts(problem: Problem) -> PerContext:
    command = f"kasmina search {problem.id} --per-context"
    path = config_path(f"{slug(problem.id)}.per_context.json", f"Make it with `{command}`.", True)
    return load_contexts(path, problem)


def at_once(actions: IntArray, problem: Problem) -> IntArray:
    """A schedule inserted at alpha 1, flat actions ``[T]``.

    A network takes one action a step, so in a schedule with ramps a seed may have to wait until others have been
    advanced, kept or pruned. Here it is due at the first of these steps.
    """
    ops = problem.actions.op[actions]
    is_free = np.isin(ops, (Op.WAIT, Op.GERMINATE))

    def start(seed: Planned) -> int:
        return int(np.flatnonzero(is_free[: seed.start]).max(initial=-1)) + 1

    plan = tuple(replace(seed, start=start(seed)) for seed in plan_of(actions, problem.actions))
    return actions_of(plan, problem, is_instant=True)


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
    return Fixed(problem, at_once(shipped_schedule(problem), problem))


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
    return PerContext(problem, staged.contexts, np.stack([at_once(a, problem) for a in staged.schedules]))


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
