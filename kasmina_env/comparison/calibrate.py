"""Calibration: five gaps that say how much decisions matter on a registered problem, and two of each dimension.

`kasmina calibrate ID` writes them beside the presets, where `kasmina describe ID` finds them. A few hundred schedules
and rules are screened on some seeds, and the best are measured on other seeds. There `calibration_statistics.py`
chooses on one half and measures on the other; `decision_gaps.py` varies the best in each dimension of a decision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
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
from kasmina_env.comparison.candidates import (
    Contenders,
    InstanceSample,
    bases_of,
    committing,
    find_instances,
    make_env,
    screen,
    screen_rules,
    what_where_when,
)
from kasmina_env.comparison.controls import shipped_rules
from kasmina_env.comparison.decision_gaps import (
    DECISIONS,
    VALUE_MEANINGS,
    candidates_by_value,
    find_decision_gaps,
    find_value_gaps,
    make_pool,
    most_candidates,
)
from kasmina_env.controllers.lookahead import intention_of
from kasmina_env.controllers.policy import MAX_SEED, OnStep
from kasmina_env.controllers.reactive import Rules, play_rules
from kasmina_env.controllers.schedule import Plan, Planned
from kasmina_env.controllers.search import play_plans, random_plan
from kasmina_env.envs.workers import ALONE, Workers
from kasmina_env.episode.problem import Problem, make_problem
from kasmina_env.lifecycle.arrays import FloatArray, IntArray
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.machine import on_this_device

MEANINGS = {
    "growth": "best fixed schedule - wait",
    "choice": "best fixed schedule - mean of random schedules, which commit and never fidget",
    "adaptivity": "best schedule of each instance - best single schedule",
    "watching": "best schedule or rule of each instance - best schedule for what is visible of it",
    "lifecycle": "best staged schedule - best instant insertion at alpha 1",
}


@dataclass(frozen=True)
class Calibration:
    """Results of a calibration.

    Attributes:
        preset: Registered id.
        settings: Settings of the problem at the time of measurement, as plain data.
        sizes: Numbers of schedules, seeds and instances.
        instances: Measured instances.
        gaps: Gap for each name in `MEANINGS`; None for those that only a family has.
        decision_gaps: Gap for each name in `DECISIONS`; None where the problem has no such choice.
        value_gaps: Gap for each name in `VALUE_MEANINGS`; None where the problem has no such choice.
        means: Mean return of each arm.
        contenders: Measured schedules, best first.
        best_of_instance: Best schedule of each measured instance; empty if the problem is no family.
    """

    preset: str
    settings: Mapping[str, Any]
    sizes: Sizes
    instances: InstanceSample
    gaps: Mapping[str, Gap | None]
    decision_gaps: Mapping[str, Gap | None]
    value_gaps: Mapping[str, Gap | None]
    means: Mapping[str, float]
    contenders: Contenders
    best_of_instance: Mapping[int, Plan]


def _table(
    preset: str,
    plans: Sequence[Plan],
    seeds: IntArray,
    instances: InstanceSample,
    on_step: OnStep | None,
    is_instant: bool = False,
    rules: Sequence[Rules] = (),
    workers: Workers = ALONE,
) -> FloatArray:
    """Returns ``[P, I, S]`` of every plan, and then of all rules, in every instance, on the same seeds."""
    shape = (len(plans) + len(rules), len(instances.numbers), len(seeds))
    numbers = np.repeat(instances.numbers, len(seeds)) if instances.is_family else None
    episodes = np.tile(seeds, shape[1])
    with closing(make_env(preset, int(np.prod(shape)), is_instant, workers)) as env:
        returns = play_plans(env, plans, episodes, numbers, on_step)
        if rules:
            returns = np.concatenate([returns, play_rules(env, rules, episodes, numbers, on_step)])
    return returns.reshape(shape)


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

    Raises:
        ValueError: If the shipped rules are damaged, or ask for what the id does not have.
    """
    rng = np.random.default_rng(seed)
    problem = make_problem(preset)
    known = shipped_rules(problem)  # a damaged file is found before anything is played
    instances = find_instances(problem, sizes.instances)
    num_seeds = sizes.seeds_of_each(len(instances.numbers))
    seeds = rng.choice(MAX_SEED, size=sizes.screening + num_seeds, replace=False)
    screened, measured = seeds[: sizes.screening], seeds[sizes.screening :]
    drawn = [random_plan(rng, problem) for _ in range(max(sizes.random, sizes.schedules // 5))]
    if contenders is None:
        structured = _some(what_where_when(problem), max(sizes.schedules - len(drawn), 1), rng)
        contenders = screen(preset, [*drawn, *structured], screened, instances, sizes.kept, on_step, workers)
    reference = [committing(plan) for plan in drawn[: sizes.random]]
    returns = _table(preset, [(), *reference, *contenders.staged], measured, instances, on_step, workers=workers)
    instant = _table(preset, contenders.instant, measured, instances, on_step, is_instant=True, workers=workers)
    wait, random, staged = np.split(returns, [1, 1 + len(reference)])
    bases = bases_of(problem, contenders.staged, sizes.varied)
    rules = screen_rules(problem, known, screened, instances, sizes, seed, on_step, workers)
    plan_pool, rule_pool = make_pool(bases, problem, sizes.starts), make_pool(rules, problem, sizes.starts)
    rule_pool.remove(())  # it is in the other pool
    varied = _table(preset, plan_pool, measured, instances, on_step, rules=rule_pool, workers=workers)
    visible = instances.visible if instances.is_family else None
    by_value = candidates_by_value([*plan_pool, *rule_pool], problem, sizes.starts)
    means = {name: float(r.mean()) for name, r in (("wait", wait), ("random", random))}
    means |= {name: float(r.mean(axis=(1, 2)).max()) for name, r in (("staged", staged), ("instant", instant))}
    return Calibration(
        preset=preset,
        settings=json.loads(json.dumps(asdict(problem.config))),
        sizes=sizes,
        instances=instances,
        gaps=find_gaps(wait, random, staged, instant, visible, np.split(varied, [len(plan_pool)])),
        decision_gaps=find_decision_gaps(varied, by_value),
        value_gaps=find_value_gaps(varied, by_value),
        means=means,
        contenders=Contenders(_best_first(contenders.staged, staged), _best_first(contenders.instant, instant)),
        best_of_instance=_best_of_instance(contenders.staged, staged, instances),
    )


def _some(plans: Sequence[Plan], count: int, rng: np.random.Generator) -> list[Plan]:
    """A random subset of at most `count` plans, in their order."""
    return [plans[i] for i in sorted(rng.permutation(len(plans))[:count])]


def find_gaps(
    wait: FloatArray,
    random: FloatArray,
    staged: FloatArray,
    instant: FloatArray,
    visible: Mapping[str, FloatArray] | None,
    varied: Sequence[FloatArray] = (),
) -> dict[str, Gap | None]:
    """The gaps of `MEANINGS`, from returns.

    Args:
        wait: Returns of waiting throughout, ``[1, I, S]``.
        random: Returns of random schedules, ``[Q, I, S]``.
        staged: Returns of the schedules to choose from, ``[P, I, S]``.
        instant: Returns of the instant schedules to choose from, ``[P, I, S]``.
        visible: Facts of the instances that a controller sees, ``[I]`` each; None without a family.
        varied: Returns of further schedules and of rules, ``[P, I, S]`` each, for watching; may be empty.
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
        watched = cross_validate(np.concatenate([staged, *varied]), best_per_instance)
        seen = cross_validate(np.concatenate([staged, *varied[:1]]), best_per_context(visible))
        gaps["watching"] = gap_of_choices(watched, seen)
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
    problem = make_problem(preset)
    num_instances = len(find_instances(problem, sizes.instances).numbers)
    num_candidates = most_candidates(2 * sizes.varied, problem, sizes.starts)
    screened = (2 * sizes.schedules + sizes.rules) * sizes.screening
    measured = 1 + sizes.random + 2 * (sizes.kept + 1) + num_candidates
    return problem.horizon * (screened + measured * num_instances * sizes.seeds_of_each(num_instances))


def command_of(preset: str, sizes: Sizes, seed: int) -> str:
    """Command line that repeats a calibration."""
    usual = asdict(USUAL_SIZES)
    words = [f"--{name} {value}" for name, value in asdict(sizes).items() if value != usual[name]]
    return on_this_device(" ".join([f"kasmina calibrate {preset} --seed {seed}", *words]))


def save_calibration(path: Path, found: Calibration, command: str) -> None:
    """Write a calibration as JSON."""
    problem = make_problem(found.preset)
    data = {
        "id": found.preset,
        "command": command,
        "gaps": {name: _record(gap) for name, gap in found.gaps.items()},
        "meanings": MEANINGS,
        "decision_gaps": {name: _record(gap) for name, gap in found.decision_gaps.items()},
        "decisions": DECISIONS,
        "value_gaps": {name: _record(gap) for name, gap in found.value_gaps.items()},
        "values": VALUE_MEANINGS,
        "mean_returns": dict(found.means),
        "best": {name: plan_in_words(plans[0], problem) for name, plans in vars(found.contenders).items()},
        "best_of_instance": {
            str(number): plan_in_words(plan, problem) for number, plan in found.best_of_instance.items()
        },
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


def _record(gap: Gap | None) -> dict[str, float] | None:
    """A gap as plain data."""
    return None if gap is None else {**asdict(gap.difference), "noise": gap.noise, "in_noise": gap.in_noise}


def load_contenders(path: Path) -> Contenders:
    """Read the schedules of a calibration from its file."""
    data = read_document(path, "contenders")["contenders"]
    return Contenders(
        *(tuple(tuple(Planned(**seed) for seed in plan) for plan in data[kind]) for kind in ("staged", "instant"))
    )


def plan_in_words(plan: Plan, problem: Problem) -> str:
    """A plan in one line."""
    steps = [f"{step}: {problem.actions.names[action]}" for step, action in intention_of(plan, problem)]
    return ", ".join(steps) or "WAIT throughout"
