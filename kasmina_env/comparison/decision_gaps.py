"""Decision gaps: how much it is worth that a decision has a dimension, such as a slot or a tempo.

A pool of candidates is made from a handful of good schedules and reactive rules: each of them as it is, and with each
dimension held at each value. The gap of a dimension is the best candidate of each instance, minus the best of each
instance among those whose seeds all have its one best value. Its value gap is for a controller that cannot know the
instance, and plays one candidate in all: what the best value is worth beside any, or an operation beside none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from kasmina_env.comparison.calibration_statistics import (
    Chosen,
    Gap,
    best_held,
    best_per_instance,
    best_single,
    cross_validate,
    gap_of_choices,
    gap_to_each,
)
from kasmina_env.controllers.lookahead import spans_of
from kasmina_env.controllers.reactive import Rule, Rules
from kasmina_env.controllers.schedule import Plan, Planned
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import FloatArray, IntArray

CandidateT = TypeVar("CandidateT", Plan, Rules)
Seed: TypeAlias = Planned | Rule
Value: TypeAlias = str | int | float | bool

WATCHING = "watching"  # start of a rule that looks at accuracy


@dataclass(frozen=True)
class Dimension:
    """A dimension of a decision.

    Attributes:
        meaning: The restriction, for people.
        values: Function of the problem and of a number of starts that returns the values it is held at, to make
            candidates. One or none means that the problem has no such choice.
        value: Function that returns the value of a seed.
        planned, rule: Functions that return the fields to replace so that a planned seed, or a rule, has a value.
        allowed: Values that the restriction allows, each alone; None for all of them.
    """

    meaning: str
    values: Callable[[Problem, int], Sequence[Value]]
    value: Callable[[Seed, Problem], Value]
    planned: Callable[[Planned, Any, Problem], Mapping[str, Any]]
    rule: Callable[[Rule, Any], Mapping[str, Any]]
    allowed: tuple[Value, ...] | None = None


def _field(name: str, meaning: str, values: Callable[[Problem], Sequence[Value]]) -> Dimension:
    """A dimension that is a field of planned seeds and of rules."""
    return Dimension(
        meaning,
        lambda problem, num_starts: values(problem),
        lambda seed, problem: getattr(seed, name),
        lambda seed, value, problem: {name: value},
        lambda rule, value: {name: value},
    )


def _start(seed: Seed, problem: Problem) -> Value:
    if isinstance(seed, Planned):
        return seed.start
    return seed.clock if seed.drop > 1 else WATCHING


def _curve(seed: Seed, problem: Problem) -> Value:
    return (seed.curve if isinstance(seed, Planned) else None) or problem.config.curves[0]


def _target(seed: Seed, problem: Problem) -> Value:
    return 1.0 if isinstance(seed, Rule) or seed.target is None else seed.target


def _may_prune(seed: Seed, problem: Problem) -> Value:
    if isinstance(seed, Planned):
        return seed.prune is not None and seed.prune < problem.horizon
    return seed.prune_below >= -1


def _may_fossilize(seed: Seed, problem: Problem) -> Value:
    if isinstance(seed, Planned):
        return seed.prune is None and seed.target is None
    return seed.keep_above <= 1


def _fossilized(seed: Planned, value: bool, problem: Problem) -> Mapping[str, Any]:
    if value:
        return {"prune": None, "target": None}
    return {"prune": problem.horizon if seed.prune is None else seed.prune}


def _starts(problem: Problem, num_starts: int) -> Sequence[Value]:
    """Steps spread over the first half of the episode."""
    return tuple(np.unique(np.linspace(0, problem.horizon // 2, num_starts).round().astype(np.int64)).tolist())


DIMENSIONS: Mapping[str, Dimension] = {
    "slot": _field("slot", "all seeds in one slot", lambda problem: problem.slot_names),
    "blueprint": _field("blueprint", "one blueprint for all seeds", lambda problem: problem.config.blueprints),
    "operator": _field("operator", "one operator for all seeds", lambda problem: problem.config.operators),
    "start": Dimension(
        "one step at which all seeds are grown",
        _starts,
        _start,
        # it lives as long as before
        lambda seed, value, problem: {
            "start": value, "prune": None if seed.prune is None else seed.prune + value - seed.start,
        },
        lambda rule, value: {"clock": value, "drop": 2.0},
    ),
    "tempo": _field("tempo", "one tempo for all seeds", lambda problem: problem.config.tempos),
    "curve": Dimension(
        "one curve for all ramps",
        lambda problem, num_starts: problem.config.curves,
        _curve,
        lambda seed, value, problem: {"curve": None if value == problem.config.curves[0] else value},
        lambda rule, value: {},
    ),
    "target": Dimension(
        "one alpha target for all seeds",
        lambda problem, num_starts: (1.0, *(target for target in problem.config.targets if target != 1.0)),
        _target,
        lambda seed, value, problem: {"target": None if value == 1.0 else value},
        lambda rule, value: {},
    ),
    # held at False, or at the number of steps after which a planned seed is pruned
    "prune": Dimension(
        "no seed is pruned",
        lambda problem, num_starts: (False, *spans_of(problem.horizon)),
        _may_prune,
        lambda seed, value, problem: {"prune": seed.start + value if value else None},
        lambda rule, value: {"prune_below": max(rule.prune_below, 0.0) if value else -2.0},
        allowed=(False,),
    ),
    "fossilize": Dimension(
        "no seed is fossilized",
        lambda problem, num_starts: (False, True),
        _may_fossilize,
        _fossilized,
        lambda rule, value: {"keep_above": min(rule.keep_above, 0.0) if value else 2.0},
        allowed=(False,),
    ),
}  # fmt: skip
DECISIONS = {name: f"best candidate of each instance - best if {each.meaning}" for name, each in DIMENSIONS.items()}
VALUE_MEANINGS = {
    name: (
        f"one candidate for all instances if {each.meaning} - the mean of that over the values"
        if each.allowed is None
        else f"one candidate for all instances - one if {each.meaning}"
    )
    for name, each in DIMENSIONS.items()
}


def held(candidate: CandidateT, name: str, value: Value, problem: Problem) -> CandidateT:
    """A candidate with a dimension held at one value for all its seeds.

    A slot takes one seed: the one that is there already, or else the first.
    """
    if name == "slot":
        kept = next((seed for seed in candidate if seed.slot == value), candidate[0])
        return _with_fields((kept,), lambda seed: {"slot": value})
    each = DIMENSIONS[name]

    def fields_of(seed: Seed) -> Mapping[str, Any]:
        return each.planned(seed, value, problem) if isinstance(seed, Planned) else each.rule(seed, value)

    return _with_fields(candidate, fields_of)


def _with_fields(candidate: CandidateT, fields_of: Callable[[Seed], Mapping[str, Any]]) -> CandidateT:
    return tuple(replace(seed, **fields_of(seed)) for seed in candidate)


def make_pool(bases: Sequence[CandidateT], problem: Problem, num_starts: int) -> list[CandidateT]:
    """The bases, each with every dimension held at every value, and no seed at all; none of them twice.

    Args:
        bases: Schedules, or rules.
        problem: Problem they are for.
        num_starts: Number of steps at which starts are held.
    """
    pool = list(bases)
    pool.append(())
    for base in filter(None, bases):
        for name, each in DIMENSIONS.items():
            pool += [held(base, name, value, problem) for value in each.values(problem, num_starts)]
    return list(dict.fromkeys(pool))


def most_candidates(num_bases: int, problem: Problem, num_starts: int) -> int:
    """Upper bound of the size of a pool."""
    return 1 + num_bases * (1 + sum(len(each.values(problem, num_starts)) for each in DIMENSIONS.values()))


def candidates_by_value(
    pool: Sequence[Plan | Rules], problem: Problem, num_starts: int
) -> dict[str, list[IntArray] | None]:
    """For each dimension and each value that its restriction allows, the indices of the candidates that keep to it.

    Args:
        pool: Schedules and rules.
        problem: Problem they are for.
        num_starts: Number of steps at which starts are held.

    Returns:
        Groups by name; None where the problem has no such choice.
    """
    groups: dict[str, list[IntArray] | None] = {}
    for name, each in DIMENSIONS.items():
        values = each.values(problem, num_starts)
        found = [{each.value(seed, problem) for seed in candidate} for candidate in pool]
        groups[name] = None
        if len(values) > 1:
            groups[name] = [
                np.array([i for i, of_seeds in enumerate(found) if of_seeds <= {value}], dtype=np.int64)
                for value in (values if each.allowed is None else each.allowed)
            ]
    return groups


def find_decision_gaps(returns: FloatArray, groups: Mapping[str, Sequence[IntArray] | None]) -> dict[str, Gap | None]:
    """The gap of each dimension; None where the problem has no such choice.

    Args:
        returns: Returns of the candidates ``[P, I, S]``.
        groups: Indices of the candidates that keep to each value of a dimension, by its name.
    """
    table, merged = _without_equals(returns, groups)
    best = cross_validate(table, best_per_instance)
    gaps: dict[str, Gap | None] = dict.fromkeys(groups)
    for name, of_values in merged.items():
        gaps[name] = gap_of_choices(best, cross_validate(table, best_held(of_values)))
    return gaps


def find_value_gaps(returns: FloatArray, groups: Mapping[str, Sequence[IntArray] | None]) -> dict[str, Gap | None]:
    """What a dimension is worth to a controller that plays one candidate in all instances.

    The best candidate that keeps to one value, minus the mean over all values of the best that keeps to each; of an
    operation, the best candidate of all minus the best without it. None where the problem has no such choice. The
    interval resamples the values too, as that of the choice gap resamples schedules.

    Args:
        returns: Returns of the candidates ``[P, I, S]``.
        groups: Indices of the candidates that keep to each value of a dimension, by its name.
    """
    table, merged = _without_equals(returns, groups)
    gaps: dict[str, Gap | None] = dict.fromkeys(groups)
    for name, of_values in merged.items():
        of_each = [_best_of(table, group) for group in of_values]
        if DIMENSIONS[name].allowed is None:
            best = _best_of(table, np.unique(np.concatenate(of_values)))
            gaps[name] = gap_to_each(best.returns, np.stack([each.returns for each in of_each]))
        else:
            gaps[name] = gap_of_choices(_best_of(table, np.arange(len(table))), of_each[0])
    return gaps


def _best_of(table: FloatArray, group: IntArray) -> Chosen:
    """The candidate of a group that is best on average over instances, for all of them."""
    found = cross_validate(table[group], best_single)
    return Chosen(group[found.schedules], found.returns)


def _without_equals(
    returns: FloatArray, groups: Mapping[str, Sequence[IntArray] | None]
) -> tuple[FloatArray, dict[str, list[IntArray]]]:
    """Returns and groups in which candidates that play alike are one.

    So choosing one of them for the other is no difference.
    """
    flat, which = np.unique(returns.reshape(len(returns), -1), axis=0, return_inverse=True)
    merged = {
        name: [np.unique(which.ravel()[group]) for group in of_values if len(group)]
        for name, of_values in groups.items()
        if of_values is not None
    }
    return flat.reshape(-1, *returns.shape[1:]), merged
