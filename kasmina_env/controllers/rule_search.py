"""The search for good reactive rules: structured and random ones, improved field by field."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from kasmina_env.controllers.halving import Effort, Round, halve, num_rows, with_another_choice
from kasmina_env.controllers.policy import OnStep, instances_of
from kasmina_env.controllers.reactive import IDLE, NEVER, Rule, Rules, play_rules
from kasmina_env.envs.workers import ALONE, Workers
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import FloatArray

DROPS = (0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.4, 0.5, 0.6, 0.7)  # of accuracy below its best
CONTRIBUTIONS = (-0.02, 0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
PATIENCES = (1, 2, 3, 4, 6)
KEEP_PATIENCES = (*PATIENCES, 8, 10, 12, 15)


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
    taken = [rule.slot for rule in rules]
    free = [slot for slot in problem.slot_names if slot not in taken]
    smaller = [rules[:i] + rules[i + 1 :] for i in range(len(rules))] if len(rules) > 1 else []
    return smaller + with_another_choice(rules, [{"slot": free, **_choices(rule, problem)} for rule in rules])


def _choices(rule: Rule, problem: Problem) -> dict[str, Sequence[Any]]:
    """Values of each field of a rule, but for its slot, that can make a difference."""
    config = problem.config
    choices: dict[str, Sequence[Any]] = {
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
