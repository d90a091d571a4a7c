"""Open-loop search for the best fixed schedule. Many plans are played at once, as rows of one population."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kasmina_env.controllers.halving import Effort, Round, halve, num_rows, play_side_by_side, with_another_choice
from kasmina_env.controllers.per_context import Context, contexts_of
from kasmina_env.controllers.policy import OnStep, instances_of
from kasmina_env.controllers.schedule import Fixed, Plan, Planned, actions_of
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.envs.workers import ALONE, Workers
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import FloatArray, IntArray

PRUNED = 0.25  # probability that a seed of a random plan is pruned
NEAR = 3  # steps by which the start of a variation differs at most


USUAL_EFFORT = Effort(
    num_structured=216,
    num_random=64,
    rounds=(
        Round(281, 0, 6),
        Round(40, 6, 16),
        Round(12, 6, 32),
        *[Round(6, 0, 32, variations=48, varied=4)] * 2,
        Round(6, 0, 64, variations=48),
        Round(6, 0, 96),
    ),
)
# For each context, which holds a part of the instances: structured plans first, then neighbours of the best ones.
CONTEXT_EFFORT = Effort(
    num_structured=64,
    num_random=8,
    rounds=(Round(73, 0, 4), Round(8, 4, 12), Round(5, 0, 24, variations=64), Round(5, 0, 48)),
)


def structured_plans(rng: np.random.Generator, problem: Problem, limit: int) -> list[Plan]:
    """Plans with at most one blueprint per slot, all started at step 0 with the first operator and shortest tempo.

    Args:
        rng: Random stream of the choice.
        problem: Problem of the plans.
        limit: Largest number of plans; a random subset if there are more.
    """
    config, slots = problem.config, problem.slot_names
    menu = (None, *config.blueprints)
    num_ways = len(menu) ** len(slots) - 1  # without the empty one, number 0
    numbers = 1 + (np.arange(num_ways) if num_ways <= limit else rng.choice(num_ways, size=limit, replace=False))
    digits = numbers[:, None] // len(menu) ** np.arange(len(slots)) % len(menu)
    start, operator, tempo = 0, config.operators[0], min(config.tempos)
    return [
        tuple(Planned(start, slot, menu[i], operator, tempo) for slot, i in zip(slots, way, strict=True) if menu[i])
        for way in digits.tolist()
    ]


def random_plan(rng: np.random.Generator, problem: Problem) -> Plan:
    """A plan with a seed in a random subset of slots, mostly started early and mostly kept; some are pruned later."""
    config, slots = problem.config, problem.slot_names
    chosen = [slot for slot in slots if rng.random() < 0.75] or [str(rng.choice(slots))]
    latest = int(rng.choice([1, 4, config.horizon // 2]))
    starts = [int(rng.integers(latest)) for _ in chosen]
    return tuple(
        Planned(
            start=start,
            slot=slot,
            blueprint=str(rng.choice(config.blueprints)),
            operator=str(rng.choice(config.operators)),
            tempo=int(rng.choice(config.tempos)),
            prune=int(rng.integers(start + 1, max(config.horizon, start + 2))) if rng.random() < PRUNED else None,
        )
        for slot, start in zip(chosen, starts, strict=True)
    )


def neighbour(rng: np.random.Generator, plan: Plan, problem: Problem) -> Plan:
    """A plan that differs from the given one in a single choice, or in none."""
    other = random_plan(rng, problem)
    fresh = other[int(rng.integers(len(other)))]
    kept = {seed.slot: seed for seed in plan}
    old = kept.get(fresh.slot)
    field = str(rng.choice(["start", "blueprint", "operator", "tempo", "prune", "drop"]))
    if old is None:
        kept[fresh.slot] = fresh
    elif field == "drop" and len(kept) > 1:
        del kept[fresh.slot]
    elif field != "drop":
        kept[fresh.slot] = replace(old, **{field: getattr(fresh, field)})
    return tuple(kept.values())


def variations(plan: Plan, problem: Problem) -> list[Plan]:
    """Every plan that differs in one choice for one seed, lacks one seed, or has one more; starts are near (`NEAR`)."""
    config, taken = problem.config, [seed.slot for seed in plan]
    free = [slot for slot in problem.slot_names if slot not in taken]
    smaller = [plan[:i] + plan[i + 1 :] for i in range(len(plan))]
    added = Planned(plan[-1].start if plan else 0, "", "", config.operators[0], min(config.tempos))
    larger = [
        (*plan, replace(added, slot=slot, blueprint=blueprint)) for slot in free for blueprint in config.blueprints
    ]
    return smaller + with_another_choice(plan, [{**_choices(seed, problem), "slot": free} for seed in plan]) + larger


def _choices(seed: Planned, problem: Problem) -> dict[str, Sequence[Any]]:
    """Values of each choice for a planned seed, but for its slot."""
    config, horizon = problem.config, problem.horizon
    prunes = [seed.start + horizon // 4, seed.start + horizon // 2]
    return {
        "start": range(max(seed.start - NEAR, 0), min(seed.start + NEAR + 1, horizon)),
        "blueprint": config.blueprints,
        "operator": config.operators,
        "tempo": config.tempos,
        "prune": (None, *[step for step in prunes if seed.start < step < horizon]),
    }


@dataclass(frozen=True)
class Found:
    """The best plan of a search, and its returns on the last round's episodes."""

    plan: Plan
    actions: IntArray  # [T]
    returns: FloatArray  # [E]


def search(
    problem: Problem,
    seed: int = 0,
    on_step: OnStep | None = None,
    effort: Effort = USUAL_EFFORT,
    workers: Workers = ALONE,
) -> Found:
    """Find a good schedule for all train instances. Waiting throughout is one of the candidates.

    Args:
        problem: Problem of the schedules.
        seed: Seed of the search; the episodes' seeds are drawn from it, below `MAX_SEED`.
        on_step: Callback for progress bars.
        effort: Numbers of plans and episodes to try; see `Effort.on`.
        workers: Workers over which to spread the episodes.
    """
    train = instances_of(problem, "train")
    effort = effort.on(problem)
    with closing(workers.make_env(num_rows(workers), problem)) as env:
        return find_plan(env, np.random.default_rng(seed), train, effort, ((),), on_step)


def search_contexts(
    problem: Problem,
    seed: int = 0,
    facts: Sequence[str] = (),
    on_step: OnStep | None = None,
    effort: Effort = CONTEXT_EFFORT,
    workers: Workers = ALONE,
) -> list[tuple[Context, Found]]:
    """Find a good schedule for each context, on its train instances. Waiting throughout is one of the candidates.

    Args:
        problem: Problem of a family.
        seed: Seed of the search.
        facts: Names of the visible facts that span the grid; all by default.
        on_step: Callback for progress bars.
        effort: Numbers of plans and episodes to try in each context.
        workers: Workers over which to spread the episodes.
    """
    rng, train = np.random.default_rng(seed), instances_of(problem, "train")
    contexts, homes = contexts_of(problem, facts)
    assert train is not None
    with closing(workers.make_env(num_rows(workers), problem)) as env:
        found = [find_plan(env, rng, train[homes == i], effort, ((),), on_step) for i in range(len(contexts))]
    return list(zip(contexts, found, strict=True))


def find_plan(
    env: KasminaVectorEnv,
    rng: np.random.Generator,
    instances: IntArray | None,
    effort: Effort,
    known: Sequence[Plan] = (),
    on_step: OnStep | None = None,
) -> Found:
    """Find a plan by successive halving over known, structured and random plans, improved choice by choice.

    Args:
        env: Environment to play in.
        rng: Random stream of plans and episodes.
        instances: Numbers of the instances to draw episodes from; None if the problem is no family.
        effort: Numbers of plans and episodes to try.
        known: Further plans to begin with.
        on_step: Callback for progress bars.
    """
    problem = env.problem
    plans = [*known, *structured_plans(rng, problem, effort.num_structured)]
    plans += [random_plan(rng, problem) for _ in range(effort.num_random)]
    plan, returns = halve(
        plans,
        effort.rounds,
        rng,
        instances,
        lambda plan: neighbour(rng, plan, problem),
        lambda plans, seeds, chosen: play_plans(env, plans, seeds, chosen, on_step),
        lambda plan: variations(plan, problem),
    )
    return Found(plan, actions_of(plan, problem), returns)


def num_search_steps(problem: Problem, per_context: bool = False, facts: Sequence[str] = ()) -> int:
    """Upper bound of the environment steps that a search takes."""
    if per_context:
        num_episodes = CONTEXT_EFFORT.num_episodes * len(contexts_of(problem, facts)[0])
    else:
        num_episodes = USUAL_EFFORT.on(problem).num_episodes
    return problem.horizon * num_episodes


def play_plans(
    env: KasminaVectorEnv,
    plans: Sequence[Plan],
    seeds: IntArray,
    instances: IntArray | None = None,
    on_step: OnStep | None = None,
) -> FloatArray:
    """Returns ``[P, E]`` of every plan on the same episodes, which are played side by side.

    Plans with equal actions are played once.

    Args:
        env: Environment with any number of rows.
        plans: P plans.
        seeds: Seeds of E episodes.
        instances: Instances of a family ``[E]``; by default each seed draws one.
        on_step: Callback for progress bars.
    """
    problem = env.problem
    schedules, which = np.unique([actions_of(plan, problem) for plan in plans], axis=0, return_inverse=True)
    returns = play_side_by_side(
        env, len(schedules), lambda rows: Fixed(problem, schedules[rows]), seeds, instances, on_step
    )
    return returns[which.ravel()]
