"""Reactive rules: what an engineer who watches the training would write, with numbers found by search.

A rule cares for one slot. It grows one kind of seed there when accuracy has been below its best for some steps, or at a
given step. It prunes the seed when its contribution has been low for some steps, and fossilizes it when that has been
high. A policy has at most one rule for each slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.controllers.halving import play_side_by_side
from kasmina_env.controllers.policy import OnStep, Policy
from kasmina_env.controllers.schedule import Plan, Planned
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray
from kasmina_env.lifecycle.state import Op
from kasmina_env.settings.config import check_nested
from kasmina_env.settings.documents import read_document, write_document

NEVER = 10**6  # a step that no episode reaches


@dataclass(frozen=True)
class Rule:
    """A rule for one slot.

    Attributes:
        slot, blueprint, operator, tempo: Seed to grow.
        clock: Step from which the seed is grown once in any case; `NEVER` for a rule that only watches.
        drop: Drop of accuracy below the best of the episode at which the seed is grown; above 1 for never.
        drop_patience: Number of steps that the drop must last.
        prune_below: Contribution below which the seed is pruned; below -1 for never.
        prune_patience: Number of steps that the low contribution must last.
        prune_tempo: Length of the ramp down in steps.
        keep_above: Contribution above which the seed is fossilized; above 1 for never, below -1 for always.
        keep_patience: Number of steps that the high contribution must last.
    """

    slot: str
    blueprint: str
    operator: str
    tempo: int
    clock: int
    drop: float
    drop_patience: int
    prune_below: float
    prune_patience: int
    prune_tempo: int
    keep_above: float
    keep_patience: int


Rules = tuple[Rule, ...]  # at most one for each slot
IDLE = Rule(
    "", "", "", 1, clock=NEVER, drop=2.0, drop_patience=1, prune_below=-2.0, prune_patience=1, prune_tempo=0,
    keep_above=2.0, keep_patience=1,
)  # fmt: skip  # never asks for anything
_NUMBERS = tuple(field.name for field in fields(Rule) if field.type in ("int", "float"))


class Reactive(Policy):
    """Policy that plays R candidates, each with rules for some of the S slots: row i plays candidate i modulo R.

    Of several actions that rules ask for at once, FOSSILIZE comes before PRUNE, ADVANCE and GERMINATE, and then the
    first slot before the others.

    Args:
        problem: Problem it plays.
        candidates: R candidates.

    Raises:
        ValueError: If a rule asks for an action that the problem does not have, or two care for one slot.
    """

    def __init__(self, problem: Problem, candidates: Sequence[Rules]) -> None:
        slots, column, table = problem.slot_names, problem.observations.column, problem.actions
        self._horizon = problem.horizon
        self._progress, self._accuracy, self._best = map(column, ("progress", "accuracy", "best_accuracy"))
        self._contribution, self._measured, self._alpha = (
            np.array([column(f"{slot}.{name}") for slot in slots])
            for name in ("contribution", "has_contribution", "alpha")
        )
        shape = (len(candidates), len(slots))
        self._numbers = {name: np.full(shape, float(getattr(IDLE, name))) for name in _NUMBERS}  # [R, S] each
        self._prune, self._germinate = np.zeros((2, *shape), dtype=np.int64)
        self._fossilize, self._advance = (
            np.broadcast_to([table.find(op, slot)[0] for slot in slots], shape) for op in (Op.FOSSILIZE, Op.ADVANCE)
        )
        for i, rules in enumerate(candidates):
            _check_slots(rules, slots)
            for rule in rules:
                s = slots.index(rule.slot)
                for name in _NUMBERS:
                    self._numbers[name][i, s] = getattr(rule, name)
                seed = {"blueprint": rule.blueprint, "operator": rule.operator, "tempo": rule.tempo}
                self._germinate[i, s] = _find(problem, Op.GERMINATE, rule.slot, **seed)
                self._prune[i, s] = _find(problem, Op.PRUNE, rule.slot, tempo=rule.prune_tempo)

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        shape = (len(seeds), len(self._alpha))
        self._dropped, self._low, self._high = np.zeros((3, *shape), dtype=np.int64)  # steps it has lasted
        self._has_grown = np.zeros(shape, dtype=np.bool_)

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        rows = np.arange(len(observation))
        which = rows % len(self._germinate)
        number = {name: values[which] for name, values in self._numbers.items()}  # [N, S] each
        step = np.rint(observation[:, [self._progress]] * self._horizon)
        loss = observation[:, [self._best]] - observation[:, [self._accuracy]]
        contribution = observation[:, self._contribution]
        is_full = (observation[:, self._measured] > 0) & (observation[:, self._alpha] >= 1)
        self._dropped = np.where(loss >= number["drop"], self._dropped + 1, 0)
        self._low = np.where(is_full & (contribution < number["prune_below"]), self._low + 1, 0)
        self._high = np.where(is_full & (contribution > number["keep_above"]), self._high + 1, 0)
        is_due = (step >= number["clock"]) & ~self._has_grown
        has_dropped = self._dropped >= number["drop_patience"]
        wishes = (
            (self._fossilize, self._high >= number["keep_patience"]),
            (self._prune, self._low >= number["prune_patience"]),
            (self._advance, np.ones_like(is_due)),
            (self._germinate, has_dropped | is_due),
        )
        asked = np.concatenate([actions[which] for actions, _ in wishes], axis=1)  # [N, 4 S]
        is_wanted = np.concatenate([wanted for _, wanted in wishes], axis=1)
        is_taken = is_wanted & mask[rows[:, None], asked] & (asked > 0)
        actions = np.where(is_taken.any(axis=1), asked[rows, is_taken.argmax(axis=1)], 0)
        self._has_grown |= (self._germinate[which] == actions[:, None]) & (actions[:, None] > 0)
        return actions


def _find(problem: Problem, op: Op, slot: str, **values: Any) -> int:
    """The first action with these values."""
    found = problem.actions.find(op, slot, **values)
    if not len(found):  # such as a tempo that only the other operation has
        asked = ", ".join(f"{name} {value}" for name, value in values.items())
        raise ValueError(f"`rules` must ask for actions of {problem.id}, got {op.name} {slot} {asked}. Search again.")
    return int(found[0])


def _check_slots(rules: Rules, slots: Sequence[str]) -> None:
    names = [rule.slot for rule in rules]
    if len(set(names)) < len(names) or not set(names) <= set(slots):
        raise ValueError(f"`slot` must be one of {', '.join(slots)}, each in one rule, got {', '.join(names)}.")


def rules_of(plan: Plan, problem: Problem) -> Rules:
    """Rules that play a schedule: its seeds are grown at their steps, and kept or pruned.

    A seed that the schedule prunes before it is blended in is pruned as soon as it is. Curves and alpha targets are
    left out.
    """
    return tuple(_rule_of(seed, problem) for seed in plan)


def _rule_of(seed: Planned, problem: Problem) -> Rule:
    values = {name: getattr(seed, name) for name in ("slot", "blueprint", "operator", "tempo")}
    kept = replace(IDLE, **values, clock=seed.start, prune_tempo=min(problem.config.prune_tempos), keep_above=-2.0)
    if seed.prune is None:
        return kept
    blended_in = seed.start + problem.config.min_training_steps + seed.tempo
    # every contribution is below 2, so what is left is the patience
    return replace(kept, keep_above=2.0, prune_below=2.0, prune_patience=max(seed.prune - blended_in + 1, 1))


def play_rules(
    env: KasminaVectorEnv,
    candidates: Sequence[Rules],
    seeds: IntArray,
    instances: IntArray | None = None,
    on_step: OnStep | None = None,
) -> FloatArray:
    """Returns ``[R, E]`` of every candidate on the same episodes, which are played side by side.

    Args:
        env: Environment with any number of rows.
        candidates: R candidates.
        seeds: Seeds of E episodes.
        instances: Instances of a family ``[E]``; by default each seed draws one.
        on_step: Callback for progress bars.
    """

    def policy_of(rows: IntArray) -> Policy:
        return Reactive(env.problem, [candidates[row] for row in rows.tolist()])

    return play_side_by_side(env, len(candidates), policy_of, seeds, instances, on_step)


# ── files ───────────────────────────────────────────────────────────────────────────────────────


def rules_in_words(rules: Rules) -> str:
    """Rules in one line."""
    return "; ".join(map(_rule_in_words, rules)) or "WAIT throughout"


def _rule_in_words(rule: Rule) -> str:
    seed = f"{rule.blueprint} {rule.operator} tempo{rule.tempo} in {rule.slot}"
    watched = f"accuracy is {rule.drop:g} below its best for {rule.drop_patience} steps"
    when = f"from step {rule.clock}" if rule.drop > 1 else f"if {watched}"
    if rule.drop <= 1 and rule.clock < NEVER:
        when += f", or from step {rule.clock}"
    prune = f"PRUNE if it contributes less than {rule.prune_below:g} for {rule.prune_patience} steps"
    keep = f"FOSSILIZE if more than {rule.keep_above:g} for {rule.keep_patience}"
    if rule.keep_above < -1:
        keep = "FOSSILIZE"
    said = [prune] * (rule.prune_below >= -1) + [keep] * (rule.keep_above <= 1)
    return ", ".join([f"GERMINATE {seed} {when}", *said])


def save_rules(path: Path, problem: Problem, rules: Rules, about: Mapping[str, Any]) -> None:
    """Write rules as JSON."""
    document = {"id": problem.id, "rules": [asdict(rule) for rule in rules], "about": dict(about)}
    write_document(path, document, overwrite=True)


def load_rules(path: Path, problem: Problem) -> Reactive:
    """Read rules, ready to be played; one that the problem has no actions for raises."""
    return Reactive(problem, [read_rules(path)])


def read_rules(path: Path) -> Rules:
    """Read rules as they were written."""
    written = read_document(path, "rules")["rules"]
    if not isinstance(written, list) or not all(isinstance(values, Mapping) for values in written):
        raise ValueError(f'`{path.name}` must hold a list of rules under "rules". Search again.')
    for values in written:
        check_nested(path.name, Rule, values)
        missing = [field.name for field in fields(Rule) if field.name not in values]
        if missing:
            raise ValueError(f"`rules` must have all fields each, got one without {', '.join(missing)}. Search again.")
    return tuple(Rule(**values) for values in written)
