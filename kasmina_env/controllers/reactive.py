"""Reactive rules: what an engineer who watches the training would write, with numbers found by search.

A rule cares for one slot. It grows one kind of seed there when accuracy has been below its best for some steps, or at a
given step. It prunes the seed when its contribution has been low for some steps, and fossilizes it when that has been
high. A policy has at most one rule for each slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.controllers.halving import Effort, Round, halve, num_rows, play_side_by_side
from kasmina_env.controllers.policy import OnStep, Policy, instances_of
from kasmina_env.controllers.schedule import Plan, Planned
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.envs.workers import ALONE, Workers
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray
from kasmina_env.lifecycle.state import Op
from kasmina_env.settings.config import check_nested
from kasmina_env.settings.documents import read_document, write_document

NEVER = 10**6  # a step that no episode reaches
DROPS = (0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.4, 0.5, 0.6, 0.7)  # of accuracy below its best
CONTRIBUTIONS = (-0.02, 0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
PATIENCES = (1, 2, 3, 4, 6)
KEEP_PATIENCES = (*PATIENCES, 8, 10, 12, 15)


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


# ── search ──────────────────────────────────────────────────────────────────────────────────────


def structured_rules(rng: np.random.Generator, problem: Problem, limit: int) -> list[Rules]:
    """Rules for one slot that grow as soon as accuracy drops, prune what does not contribute, and keep what does.

    They differ in slot, blueprint, the drop, and in when something is kept: soon, after a third of the horizon, or
    never. Tempo and operator are the first.

    Args:
        rng: Random stream of the choice.
        problem: Problem of the rules.
        limit: Largest number of them; a random subset if there are more.
    """
    config = problem.config
    watching = replace(
        IDLE, operator=config.operators[0], tempo=min(config.tempos), prune_tempo=min(config.prune_tempos),
        prune_below=0.02, prune_patience=2,
    )  # fmt: skip
    third = max(config.horizon // 3, 1)
    keeping = dict.fromkeys(((0.08, 6), (0.08, third), (2.0, 6)))  # above what, and for how many steps
    ways = [
        replace(watching, slot=slot, blueprint=blueprint, drop=drop, keep_above=above, keep_patience=patience)
        for slot, blueprint, drop, (above, patience) in product(
            problem.slot_names, config.blueprints, (0.08, 0.24, 0.5), keeping
        )
    ]
    chosen = range(len(ways)) if len(ways) <= limit else sorted(rng.choice(len(ways), size=limit, replace=False))
    return [(ways[i],) for i in chosen]


def random_rule(rng: np.random.Generator, problem: Problem, slot: str) -> Rule:
    """A random rule. Some only watch accuracy, some only the clock; some never prune, some never fossilize."""
    config = problem.config
    is_watching = rng.random() < 0.7
    return Rule(
        slot=slot,
        blueprint=str(rng.choice(config.blueprints)),
        operator=str(rng.choice(config.operators)),
        tempo=int(rng.choice(config.tempos)),
        clock=NEVER if is_watching else int(rng.integers(config.horizon // 2)),
        drop=float(rng.choice(DROPS)) if is_watching else 2.0,
        drop_patience=int(rng.choice(PATIENCES)),
        prune_below=float(rng.choice(CONTRIBUTIONS)) if rng.random() < 0.7 else -2.0,
        prune_patience=int(rng.choice(PATIENCES)),
        prune_tempo=int(rng.choice(config.prune_tempos)),
        keep_above=float(rng.choice(CONTRIBUTIONS)) if rng.random() < 0.7 else 2.0,
        keep_patience=int(rng.choice(KEEP_PATIENCES)),
    )


def random_rules(rng: np.random.Generator, problem: Problem) -> Rules:
    """Random rules for a random part of the slots, at least one."""
    slots = problem.slot_names
    chosen = [slot for slot in slots if rng.random() < 0.5] or [str(rng.choice(slots))]
    return tuple(random_rule(rng, problem, slot) for slot in chosen)


def neighbour(rng: np.random.Generator, rules: Rules, problem: Problem) -> Rules:
    """A candidate that differs in at most one rule: in one or two of its fields, or in that it is added or dropped."""
    kept = {rule.slot: rule for rule in rules}
    slot = str(rng.choice(list(kept) if kept and rng.random() < 0.7 else problem.slot_names))
    other = random_rule(rng, problem, slot)
    if slot not in kept:
        kept[slot] = other
    elif len(kept) > 1 and rng.random() < 0.2:
        del kept[slot]
    else:
        names = rng.choice([name for name in asdict(other) if name != "slot"], int(rng.integers(1, 3)), False)
        kept[slot] = replace(kept[slot], **{str(name): getattr(other, str(name)) for name in names})
    return tuple(kept.values())


def variations(rules: Rules, problem: Problem) -> list[Rules]:
    """Every candidate that differs in one field of one rule, as far as that makes a difference, or lacks a rule."""
    slots = [rule.slot for rule in rules]
    found = [rules[:i] + rules[i + 1 :] for i in range(len(rules))] if len(rules) > 1 else []
    for i, rule in enumerate(rules):
        others = {
            name: [value for value in values if value != getattr(rule, name)]
            for name, values in _choices(rule, problem).items()
        }
        others["slot"] = [slot for slot in others["slot"] if slot not in slots]
        found += [
            (*rules[:i], replace(rule, **{name: value}), *rules[i + 1 :])
            for name, values in others.items()
            for value in values
        ]
    return found


def _choices(rule: Rule, problem: Problem) -> dict[str, Sequence[Any]]:
    """Values of each field of a rule that can make a difference."""
    config = problem.config
    choices: dict[str, Sequence[Any]] = {
        "slot": problem.slot_names,
        "blueprint": config.blueprints,
        "operator": config.operators,
        "tempo": config.tempos,
        "drop": DROPS,
        "prune_below": (-2.0, *CONTRIBUTIONS),
        "keep_above": (-2.0, *CONTRIBUTIONS, 2.0),
        "clock": range(0, config.horizon // 2, 3),
    }
    if rule.clock < NEVER:
        choices["clock"] = range(max(rule.clock - 2, 0), min(rule.clock + 3, config.horizon))
    if rule.drop <= 1:
        choices["drop_patience"] = PATIENCES
    if rule.clock < NEVER and rule.drop <= 1:  # one of the two is left out; without both it would never grow
        choices |= {"clock": (*choices["clock"], NEVER), "drop": (*DROPS, 2.0)}
    if rule.prune_below >= -1:
        choices |= {"prune_patience": PATIENCES, "prune_tempo": config.prune_tempos}
    if rule.keep_above <= 1:
        choices["keep_patience"] = KEEP_PATIENCES
    return choices


USUAL_RULE_EFFORT = Effort(
    num_structured=64,
    num_random=190,
    rounds=(
        Round(256, 0, 4),
        Round(48, 8, 12),
        Round(16, 8, 24),
        Round(8, 0, 48, variations=96),
        Round(16, 4, 96),
    ),
)


@dataclass(frozen=True)
class FoundRules:
    """The best candidate of a search, and its returns on the last round's episodes."""

    rules: Rules
    returns: FloatArray  # [E]


def search_rules(
    problem: Problem,
    known: Sequence[Rules] = (),
    seed: int = 0,
    on_step: OnStep | None = None,
    effort: Effort = USUAL_RULE_EFFORT,
    workers: Workers = ALONE,
) -> FoundRules:
    """Find good rules for the train instances. No rules at all, which means to wait, are one of the candidates.

    Args:
        problem: Problem of the rules.
        known: Further candidates to begin with, such as `rules_of` a good schedule.
        seed: Seed of the search; the episodes' seeds are drawn from it, below `MAX_SEED`.
        on_step: Callback for progress bars.
        effort: Numbers of candidates and episodes to try; see `Effort.on`.
        workers: Workers over which to spread the episodes.
    """
    rng, train = np.random.default_rng(seed), instances_of(problem, "train")
    effort = effort.on(problem)
    candidates = [(), *known, *structured_rules(rng, problem, effort.num_structured)]
    candidates += [random_rules(rng, problem) for _ in range(effort.num_random)]
    with closing(workers.make_env(num_rows(workers), problem)) as env:
        rules, returns = halve(
            candidates,
            effort.rounds,
            rng,
            train,
            lambda rules: neighbour(rng, rules, problem),
            lambda candidates, seeds, chosen: play_rules(env, candidates, seeds, chosen, on_step),
            lambda rules: variations(rules, problem),
        )
    return FoundRules(rules, returns)


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


def save_rules(path: Path, problem: Problem, found: FoundRules, about: Mapping[str, Any]) -> None:
    """Write rules as JSON."""
    about = {**about, "mean_return": float(found.returns.mean())}
    document = {"id": problem.id, "rules": [asdict(rule) for rule in found.rules], "about": about}
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
