"""Reactive rules: rules that an engineer who watches the training would write, with numbers found by search.

A rule grows one kind of seed in one slot when accuracy has been below its best for some steps, or at a given step. It
prunes the seed when its contribution has been low for some steps, and fossilizes it when that has been high.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.controllers.halving import Round, halve, num_rows, play_side_by_side
from kasmina_env.controllers.policy import OnStep, Policy, instances_of
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray
from kasmina_env.lifecycle.transitions import Op
from kasmina_env.settings.config import check_nested
from kasmina_env.settings.documents import read_document

NEVER = 10**6  # a step that no episode reaches
DROPS = (0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24)  # of accuracy below its best
CONTRIBUTIONS = (-0.02, 0.0, 0.01, 0.02, 0.04, 0.08)
PATIENCES = (1, 2, 3, 4, 6)


@dataclass(frozen=True)
class Rule:
    """A rule for one kind of seed in one slot.

    Attributes:
        slot, blueprint, operator, tempo: Seed to grow.
        clock: Step from which the seed is grown in any case; `NEVER` for a rule that only watches.
        drop: Drop of accuracy below the best of the episode at which the seed is grown; above 1 for never.
        drop_patience: Number of steps that the drop must last.
        prune_below: Contribution below which the seed is pruned; below -1 for never.
        prune_patience: Number of steps that the low contribution must last.
        prune_tempo: Length of the ramp down in steps.
        keep_above: Contribution above which the seed is fossilized; above 1 for never.
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


class Reactive(Policy):
    """Policy that plays R rules: row i plays rule i modulo R.

    Args:
        problem: Problem it plays.
        rules: R rules.
    """

    def __init__(self, problem: Problem, rules: Sequence[Rule]) -> None:
        self._rules, self._horizon = list(rules), problem.horizon
        column, table = problem.observations.column, problem.actions
        self._progress, self._accuracy, self._best = map(column, ("progress", "accuracy", "best_accuracy"))
        self._contribution, self._measured, self._alpha = (
            np.array([column(f"{rule.slot}.{name}") for rule in rules])
            for name in ("contribution", "has_contribution", "alpha")
        )
        self._germinate = np.array(
            [table.find(Op.GERMINATE, r.slot, r.blueprint, r.operator, r.tempo)[0] for r in rules]
        )
        self._prune = np.array([table.find(Op.PRUNE, r.slot, tempo=r.prune_tempo)[0] for r in rules])
        self._advance, self._fossilize = (
            np.array([table.find(op, rule.slot)[0] for rule in rules]) for op in (Op.ADVANCE, Op.FOSSILIZE)
        )
        self._numbers = {
            field.name: np.array([getattr(rule, field.name) for rule in rules])
            for field in fields(Rule)
            if field.type in ("int", "float")
        }

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        self._dropped, self._low, self._high = np.zeros((3, len(seeds)), dtype=np.int64)  # steps it has lasted

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        rows = np.arange(len(observation))
        which = rows % len(self._rules)
        number = {name: values[which] for name, values in self._numbers.items()}
        step = np.rint(observation[:, self._progress] * self._horizon)
        loss = observation[:, self._best] - observation[:, self._accuracy]
        contribution = observation[rows, self._contribution[which]]
        is_full = (observation[rows, self._measured[which]] > 0) & (observation[rows, self._alpha[which]] >= 1)
        self._dropped = np.where(loss >= number["drop"], self._dropped + 1, 0)
        self._low = np.where(is_full & (contribution < number["prune_below"]), self._low + 1, 0)
        self._high = np.where(is_full & (contribution > number["keep_above"]), self._high + 1, 0)
        wishes = (
            (self._fossilize, self._high >= number["keep_patience"]),
            (self._prune, self._low >= number["prune_patience"]),
            (self._advance, True),
            (self._germinate, (self._dropped >= number["drop_patience"]) | (step >= number["clock"])),
        )
        actions = np.zeros(len(rows), dtype=np.int64)
        for candidates, is_wanted in reversed(wishes):
            chosen = candidates[which]
            actions = np.where(is_wanted & mask[rows, chosen], chosen, actions)
        return actions


# ── search ──────────────────────────────────────────────────────────────────────────────────────


def random_rule(rng: np.random.Generator, problem: Problem) -> Rule:
    """A random rule. Some only watch accuracy, some only the clock; some never prune, some never fossilize."""
    config = problem.config
    is_watching = rng.random() < 0.7
    return Rule(
        slot=str(rng.choice(problem.slot_names)),
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
        keep_patience=int(rng.choice((*PATIENCES, 10, 15))),
    )


def neighbours(rng: np.random.Generator, rule: Rule, problem: Problem, count: int) -> list[Rule]:
    """Rules that differ from the given one in one or two fields."""
    found: list[Rule] = []
    while len(found) < count:
        other = asdict(random_rule(rng, problem))
        chosen = [str(name) for name in rng.choice(list(other), size=int(rng.integers(1, 3)), replace=False)]
        candidate = replace(rule, **{name: other[name] for name in chosen})
        if candidate != rule:
            found.append(candidate)
    return found


@dataclass(frozen=True)
class RuleEffort:
    """Numbers of rules and episodes that a search tries.

    Attributes:
        num_random: Number of rules to begin with.
        rounds: Rounds of successive halving.
    """

    num_random: int = 256
    rounds: tuple[Round, ...] = (
        Round(257, 0, 4), Round(48, 8, 12), Round(16, 8, 24), Round(8, 6, 48), Round(6, 0, 128),
    )  # fmt: skip

    @property
    def num_episodes(self) -> int:
        """Upper bound of the number of episodes."""
        return sum(each.num_episodes for each in self.rounds)


USUAL_RULE_EFFORT = RuleEffort()


@dataclass(frozen=True)
class FoundRule:
    """The best rule of a search, and its returns on the last round's episodes."""

    rule: Rule
    returns: FloatArray  # [E]


def search_rule(
    problem: Problem, seed: int = 0, on_step: OnStep | None = None, effort: RuleEffort = USUAL_RULE_EFFORT
) -> FoundRule:
    """Find a good rule for the train instances. A rule that never grows is one of the candidates.

    Args:
        problem: Problem of the rule.
        seed: Seed of the search; the episodes' seeds are drawn from it, below `MAX_SEED`.
        on_step: Callback for progress bars.
        effort: Numbers of rules and episodes to try.
    """
    rng, train = np.random.default_rng(seed), instances_of(problem, "train")
    rules = [random_rule(rng, problem) for _ in range(effort.num_random)]
    rules.append(replace(rules[0], clock=NEVER, drop=2.0))
    with closing(KasminaVectorEnv(num_rows(), problem)) as env:
        rule, returns = halve(
            rules,
            effort.rounds,
            rng,
            train,
            lambda rule, count: neighbours(rng, rule, problem, count),
            lambda rules, seeds, chosen: play_rules(env, rules, seeds, chosen, on_step),
        )
    return FoundRule(rule, returns)


def play_rules(
    env: KasminaVectorEnv,
    rules: Sequence[Rule],
    seeds: IntArray,
    instances: IntArray | None = None,
    on_step: OnStep | None = None,
) -> FloatArray:
    """Returns ``[R, E]`` of every rule on the same episodes, which are played side by side.

    Args:
        env: Environment with any number of rows.
        rules: R rules.
        seeds: Seeds of E episodes.
        instances: Instances of a family ``[E]``; by default each seed draws one.
        on_step: Callback for progress bars.
    """

    def policy_of(rows: IntArray) -> Policy:
        return Reactive(env.problem, [rules[row] for row in rows.tolist()])

    return play_side_by_side(env, len(rules), policy_of, seeds, instances, on_step)


def save_rule(path: Path, problem: Problem, found: FoundRule, about: Mapping[str, Any]) -> None:
    """Write a rule as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {**about, "mean_return": float(found.returns.mean())}
    document = {"id": problem.id, "rule": asdict(found.rule), "about": about}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def load_rule(path: Path) -> Rule:
    """Read a rule back."""
    values = read_document(path, "rule")["rule"]
    check_nested("rule", Rule, values)
    return Rule(**values)
