"""Calibration: five gaps that say how much decisions matter on a registered problem.

`kasmina calibrate ID` writes them beside the presets, where `kasmina describe ID` finds them. A few hundred schedules
are screened on some seeds, and the best are measured on other seeds. There `calibration_statistics.py` chooses on one
half and measures on the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.comparison.calibration_sizes import USUAL_SIZES, Sizes
from kasmina_env.comparison.calibration_statistics import (
    Chosen,
    Gap,
    best_per_context,
    best_per_instance,
    best_single,
    cross_validate,
    gap,
    gap_of_choices,
    gap_to_each,
)
from kasmina_env.controllers.halving import num_rows
from kasmina_env.controllers.policy import MAX_SEED, OnStep
from kasmina_env.controllers.schedule import Plan, Planned, actions_of
from kasmina_env.controllers.search import play_plans, random_plan
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.envs.workers import ALONE, Workers
from kasmina_env.episode.actions import ActionTable
from kasmina_env.episode.problem import Problem, make_problem
from kasmina_env.lifecycle.arrays import FloatArray, IntArray
from kasmina_env.lifecycle.transitions import Op
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.machine import on_this_device
from kasmina_env.settings.presets import PRESETS

MEANINGS = {
    "growth": "best fixed schedule - wait",
    "choice": "best fixed schedule - mean of random schedules, which commit and never fidget",
    "adaptivity": "best schedule of each instance - best single schedule",
    "watching": "best schedule of each instance - best for what is visible of it",
    "lifecycle": "best staged schedule - best instant insertion at alpha 1",
}


@dataclass(frozen=True)
class Contenders:
    """Schedules to measure: staged ones, which pass all stages, and instant ones, which start at alpha 1."""

    staged: tuple[Plan, ...]
    instant: tuple[Plan, ...]


@dataclass(frozen=True)
class Calibration:
    """Results of a calibration.

    Attributes:
        preset: Registered id.
        settings: Settings of the problem at the time of measurement, as plain data.
        sizes: Numbers of schedules, seeds and instances.
        instances: InstanceSample instances.
        gaps: Gap for each name in `MEANINGS`; None for those that only a family has.
        means: Mean return of each arm.
        contenders: InstanceSample schedules, best first.
        best_of_instance: Best schedule of each measured instance; empty if the problem is no family.
    """

    preset: str
    settings: Mapping[str, Any]
    sizes: Sizes
    instances: InstanceSample
    gaps: Mapping[str, Gap | None]
    means: Mapping[str, float]
    contenders: Contenders
    best_of_instance: Mapping[int, Plan]


@dataclass(frozen=True)
class InstanceSample:
    """InstanceSample instances: some of a family's train split, or the only one of another problem."""

    numbers: IntArray  # [I]
    visible: Mapping[str, FloatArray]  # [I] each; empty without a family
    is_family: bool


def find_instances(problem: Problem, count: int) -> InstanceSample:
    """`count` instances, evenly spread over the train split."""
    instances = problem.instances
    train = instances.split("train")
    numbers = train[np.unique(np.linspace(0, len(train) - 1, count).round().astype(np.int64))]
    return InstanceSample(
        numbers, {name: facts[numbers] for name, facts in instances.visible.items()}, problem.is_family
    )


def latest_start(problem: Problem, plan: Plan) -> int:
    """Last start from which all seeds of a plan can still be fossilized before the end."""
    fossilize, steps = problem.actions.find(Op.FOSSILIZE), range(problem.horizon)
    fits = [s for s in steps if np.isin(actions_of(_started_at(plan, s), problem), fossilize).sum() == len(plan)]
    return fits[-1] if fits else 0


def _started_at(plan: Plan, step: int) -> Plan:
    return tuple(Planned(step, seed.slot, seed.blueprint, seed.operator, seed.tempo) for seed in plan)


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


def random_plans(problem: Problem, count: int, rng: np.random.Generator) -> list[Plan]:
    """`count` random plans."""
    return [random_plan(rng, problem) for _ in range(count)]


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
        instances: InstanceSample instances (see `find_instances`).
        count: Number of plans to keep, staged and instant each.
        on_step: For progress bars.
        workers: Workers over which to spread the episodes.
    """
    kept = []
    for is_instant in (False, True):
        played = np.resize(instances.numbers, len(seeds)) if instances.is_family else None
        with closing(_make(preset, len(plans) * len(seeds), is_instant, workers)) as env:
            returns = play_plans(env, plans, seeds, played, on_step)
        best = tuple(plans[i] for i in keep(returns, count, instances.is_family))
        kept.append((*best, ()))  # the empty plan is the best one where growing does not pay
    return Contenders(*kept)


def _make(preset: str, num_episodes: int, is_instant: bool, workers: Workers) -> KasminaVectorEnv:
    """An environment with at most `num_episodes` rows."""
    return workers.make_env(min(num_rows(workers), num_episodes), preset, instant=is_instant)


def _table(
    preset: str,
    plans: Sequence[Plan],
    seeds: IntArray,
    instances: InstanceSample,
    on_step: OnStep | None,
    is_instant: bool = False,
    workers: Workers = ALONE,
) -> FloatArray:
    """Returns ``[P, I, S]`` of every plan in every instance, on the same seeds."""
    shape = (len(plans), len(instances.numbers), len(seeds))
    numbers = np.repeat(instances.numbers, len(seeds)) if instances.is_family else None
    with closing(_make(preset, int(np.prod(shape)), is_instant, workers)) as env:
        return play_plans(env, plans, np.tile(seeds, shape[1]), numbers, on_step).reshape(shape)


def calibrate(
    preset: str,
    sizes: Sizes = USUAL_SIZES,
    seed: int = 0,
    contenders: Contenders | None = None,
    on_step: OnStep | None = None,
    workers: Workers = ALONE,
) -> Calibration:
    """Measure how much decisions matter.

    Args:
        preset: Registered id.
        sizes: Numbers of schedules, seeds and instances.
        seed: Seed of schedules and episodes; the episodes' seeds are derived from it and never reach the held-out ones.
        contenders: Schedules to measure; by default the best of a screening.
        on_step: For progress bars.
        workers: Workers over which to spread the episodes.
    """
    rng = np.random.default_rng(seed)
    problem = make_problem(preset)
    instances = find_instances(problem, sizes.instances)
    seeds = rng.choice(MAX_SEED, size=sizes.screening + sizes.seeds, replace=False)
    drawn = random_plans(problem, max(sizes.random, sizes.schedules // 5), rng)
    if contenders is None:
        structured = what_where_when(problem)
        chosen = rng.permutation(len(structured))[: max(sizes.schedules - len(drawn), 1)]
        plans = [*drawn, *(structured[i] for i in sorted(chosen))]
        contenders = screen(preset, plans, seeds[: sizes.screening], instances, sizes.kept, on_step, workers)
    measured, reference = seeds[sizes.screening :], drawn[: sizes.random]
    returns = _table(preset, [(), *reference, *contenders.staged], measured, instances, on_step, workers=workers)
    instant = _table(preset, contenders.instant, measured, instances, on_step, True, workers)
    wait, random, staged = np.split(returns, [1, 1 + len(reference)])
    return Calibration(
        preset,
        json.loads(json.dumps(asdict(problem.config))),
        sizes,
        instances,
        find_gaps(wait, random, staged, instant, instances.visible if instances.is_family else None),
        {name: float(r.mean()) for name, r in (("wait", wait), ("random", random))}
        | {name: float(r.mean(axis=(1, 2)).max()) for name, r in (("staged", staged), ("instant", instant))},
        Contenders(_best_first(contenders.staged, staged), _best_first(contenders.instant, instant)),
        _best_of_instance(contenders.staged, staged, instances),
    )


def find_gaps(
    wait: FloatArray,
    random: FloatArray,
    staged: FloatArray,
    instant: FloatArray,
    visible: Mapping[str, FloatArray] | None,
) -> dict[str, Gap | None]:
    """The gaps of `MEANINGS`, from returns.

    Args:
        wait: Returns of waiting throughout, ``[1, I, S]``.
        random: Returns of random schedules, ``[Q, I, S]``.
        staged: Returns of the schedules to choose from, ``[P, I, S]``.
        instant: Returns of the instant schedules to choose from, ``[P, I, S]``.
        visible: Facts of the instances that a controller sees, ``[I]`` each; None without a family.
    """
    best = cross_validate(staged, best_single)
    gaps: dict[str, Gap | None] = {
        "growth": gap(best.returns, wait[0]),
        "choice": gap_to_each(best.returns, random),
        **dict.fromkeys(("adaptivity", "watching")),
        "lifecycle": gap(best.returns, cross_validate(instant, best_single).returns),
    }
    if visible is not None:
        each: Chosen = cross_validate(staged, best_per_instance)
        gaps["adaptivity"] = gap_of_choices(each, best)
        gaps["watching"] = gap_of_choices(each, cross_validate(staged, best_per_context(visible)))
    return gaps


def _best_first(plans: Sequence[Plan], returns: FloatArray) -> tuple[Plan, ...]:
    return tuple(plans[i] for i in np.argsort(-returns.mean(axis=(1, 2)), kind="stable"))


def _best_of_instance(plans: Sequence[Plan], returns: FloatArray, instances: InstanceSample) -> dict[int, Plan]:
    if not instances.is_family:
        return {}
    return {
        int(number): plans[i] for number, i in zip(instances.numbers, returns.mean(axis=2).argmax(axis=0), strict=True)
    }


def num_calibration_steps(preset: str, sizes: Sizes) -> int:
    """Upper bound of the environment steps that a calibration takes."""
    num_instances = len(find_instances(make_problem(preset), sizes.instances).numbers)
    screened = 2 * sizes.schedules * sizes.screening
    measured = (1 + sizes.random + 2 * (sizes.kept + 1)) * num_instances * sizes.seeds
    return PRESETS.get(preset).config().horizon * (screened + measured)


def command_of(preset: str, sizes: Sizes, seed: int) -> str:
    """Command line that repeats a calibration."""
    usual = asdict(USUAL_SIZES)
    words = [f"--{name} {value}" for name, value in asdict(sizes).items() if value != usual[name]]
    return on_this_device(" ".join([f"kasmina calibrate {preset} --seed {seed}", *words]))


def save_calibration(path: Path, found: Calibration, command: str) -> None:
    """Write a calibration as JSON."""
    gaps = {
        name: None if g is None else {**asdict(g.difference), "noise": g.noise, "in_noise": g.in_noise}
        for name, g in found.gaps.items()
    }
    table = make_problem(found.preset).actions
    data = {
        "id": found.preset,
        "command": command,
        "gaps": gaps,
        "meanings": MEANINGS,
        "mean_returns": dict(found.means),
        "best": {name: in_words(plans[0], table) for name, plans in vars(found.contenders).items()},
        "best_of_instance": {str(number): in_words(plan, table) for number, plan in found.best_of_instance.items()},
        "instances": {
            "numbers": found.instances.numbers.tolist(),
            "visible": {name: facts.tolist() for name, facts in found.instances.visible.items()},
        },
        "sizes": asdict(found.sizes),
        "settings": dict(found.settings),
        "contenders": asdict(found.contenders),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def load_contenders(path: Path) -> Contenders:
    """Read the schedules of a calibration from its file."""
    data = read_document(path, "contenders")["contenders"]
    return Contenders(
        *(tuple(tuple(Planned(**seed) for seed in plan) for plan in data[kind]) for kind in ("staged", "instant"))
    )


def in_words(plan: Plan, table: ActionTable) -> str:
    """A plan in one line."""
    return ", ".join(f"{seed.start}: {table.names[seed.action(table)]}" for seed in plan) or "WAIT throughout"
