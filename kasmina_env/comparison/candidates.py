"""Candidates of a calibration: schedules and rules, of which the best on a few seeds are measured further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, combinations, product

import numpy as np

from kasmina_env.comparison.calibration_sizes import Sizes
from kasmina_env.comparison.controls import best_known_rules, shipped_plans
from kasmina_env.controllers.halving import neighbours, num_rows
from kasmina_env.controllers.policy import OnStep
from kasmina_env.controllers.reactive import Rules, play_rules
from kasmina_env.controllers.rule_search import neighbour, random_rules
from kasmina_env.controllers.schedule import Plan, Planned, actions_of
from kasmina_env.controllers.search import play_plans
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.envs.workers import ALONE, Workers
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import FloatArray, IntArray
from kasmina_env.lifecycle.state import Op


@dataclass(frozen=True)
class Contenders:
    """Schedules to measure: staged ones, which pass all stages, and instant ones, which start at alpha 1."""

    staged: tuple[Plan, ...]
    instant: tuple[Plan, ...]


@dataclass(frozen=True)
class InstanceSample:
    """Measured instances: some of a family's train split, or the only one of another problem."""

    numbers: IntArray  # [I]
    visible: Mapping[str, FloatArray]  # [I] each; empty without a family
    is_family: bool

    def in_turn(self, num_episodes: int) -> IntArray | None:
        """Instances of some episodes, one after the other and again from the first; None without a family."""
        return np.resize(self.numbers, num_episodes) if self.is_family else None


def find_instances(problem: Problem, count: int) -> InstanceSample:
    """`count` instances, evenly spread over the train split."""
    instances = problem.instances
    train = instances.split("train")
    numbers = train[np.unique(np.linspace(0, len(train) - 1, count).round().astype(np.int64))]
    return InstanceSample(
        numbers, {name: facts[numbers] for name, facts in instances.visible.items()}, problem.is_family
    )


def make_env(preset: str, num_episodes: int, is_instant: bool, workers: Workers) -> KasminaVectorEnv:
    """An environment with at most `num_episodes` rows."""
    return workers.make_env(min(num_rows(workers), num_episodes), preset, instant=is_instant)


def latest_start(problem: Problem, plan: Plan) -> int:
    """Last start from which all seeds of a plan can still be fossilized before the end."""
    fossilize, steps = problem.actions.find(Op.FOSSILIZE), range(problem.horizon)
    fits = [s for s in steps if np.isin(actions_of(_started_at(plan, s), problem), fossilize).sum() == len(plan)]
    return fits[-1] if fits else 0


def _started_at(plan: Plan, step: int) -> Plan:
    return tuple(replace(seed, start=step) for seed in plan)


def what_where_when(problem: Problem) -> list[Plan]:
    """Plans that vary what, where and when: every subset of slots with every blueprint, operator and tempo.

    They start at the first step, half way, or as late as possible.
    """
    config, slots = problem.config, problem.slot_names
    subsets = chain.from_iterable(combinations(slots, n) for n in range(1, len(slots) + 1))
    plans = []
    for subset in subsets:
        for tempo in config.tempos:
            pattern = tuple(Planned(0, slot, config.blueprints[0], config.operators[0], tempo) for slot in subset)
            starts = sorted({0, config.horizon // 2, latest_start(problem, pattern)})
            for blueprint, operator, start in product(config.blueprints, config.operators, starts):
                plans.append(tuple(Planned(start, slot, blueprint, operator, tempo) for slot in subset))
    return plans


def committing(plan: Plan) -> Plan:
    """A plan whose seeds are all kept."""
    return tuple(replace(seed, prune=None) for seed in plan)


def keep(returns: FloatArray, count: int, is_family: bool) -> IntArray:
    """Indices of `count` schedules to measure further, from screening returns ``[P, E]``.

    They are the best on average. For a family half of them are; the others are the best of each episode (one per
    instance), then the second best of each, and so on.
    """
    by_mean = np.argsort(-returns.mean(axis=1), kind="stable").tolist()
    by_episode = np.argsort(-returns, axis=0, kind="stable").ravel().tolist() if is_family else []
    half = by_mean[: count // 2]
    return np.array(list(dict.fromkeys([*half, *by_episode, *by_mean]))[:count], dtype=np.int64)


def screen(
    preset: str,
    plans: Sequence[Plan],
    seeds: IntArray,
    instances: InstanceSample,
    count: int,
    on_step: OnStep | None,
    workers: Workers = ALONE,
) -> Contenders:
    """Keep the best of many plans on a few seeds, once staged and once instant.

    Args:
        preset: Registered id.
        plans: Plans to choose from.
        seeds: Seeds of the episodes; in a family they play the instances in turn.
        instances: Measured instances (see `find_instances`).
        count: Number of plans to keep, staged and instant each.
        on_step: For progress bars.
        workers: Workers over which to spread the episodes.
    """
    kept = []
    for is_instant in (False, True):
        with closing(make_env(preset, len(plans) * len(seeds), is_instant, workers)) as env:
            returns = play_plans(env, plans, seeds, instances.in_turn(len(seeds)), on_step)
        best = tuple(plans[i] for i in keep(returns, count, instances.is_family))
        kept.append((*best, ()))  # the empty plan is the best one where growing does not pay
    return Contenders(*kept)


def screen_rules(
    problem: Problem,
    known: Sequence[Rules],
    seeds: IntArray,
    instances: InstanceSample,
    sizes: Sizes,
    seed: int,
    on_step: OnStep | None,
    workers: Workers = ALONE,
) -> list[Rules]:
    """The known rules, then the best of those like them and of random ones on a few seeds.

    Args:
        problem: Registered problem.
        known: Shipped rules, where there are any.
        seeds: Seeds of the episodes; in a family they play the instances in turn.
        instances: Measured instances (see `find_instances`).
        sizes: Numbers of rules to screen and to return.
        seed: Seed of the rules.
        on_step: For progress bars.
        workers: Workers over which to spread the episodes.
    """
    rng = np.random.default_rng([seed, 1])
    neighbour_of = partial(neighbour, rng, problem=problem)
    tried = [*known, *best_known_rules(problem)]
    tried += [other for rules in known for other in neighbours(rules, sizes.rules // 2, neighbour_of)]
    tried += [random_rules(rng, problem) for _ in range(sizes.rules - len(tried))]
    with closing(make_env(problem.id, len(tried) * len(seeds), is_instant=False, workers=workers)) as env:
        returns = play_rules(env, tried, seeds, instances.in_turn(len(seeds)), on_step)
    best = [tried[i] for i in keep(returns, sizes.varied, instances.is_family)]
    return list(dict.fromkeys([*known, *best]))[: sizes.varied]


def bases_of(problem: Problem, staged: Sequence[Plan], count: int) -> list[Plan]:
    """`count` schedules to vary: the shipped one, where there is one, and others evenly spread over the contenders."""
    spread = staged[:: max(len(staged) // count, 1)]
    return list(dict.fromkeys([*shipped_plans(problem), *spread]))[:count]
