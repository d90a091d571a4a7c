"""Reactive rules: what they do with what they see, and the search for one."""

from __future__ import annotations

import dataclasses

import numpy as np

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.controllers.halving import Round
from kasmina_env.controllers.reactive import (
    NEVER,
    Reactive,
    Rule,
    RuleEffort,
    load_rule,
    play_rules,
    save_rule,
    search_rule,
)
from kasmina_env.lifecycle.transitions import Op
from tests.episodes import SMALL

PROBLEM = make_problem("Kasmina/Spirals-v0", **SMALL)
WATCHING = Rule("layer0", "mlp", "ADD", 1, NEVER, 0.1, 2, 0.0, 1, 0, 0.05, 2)


def decide(rule, *looks):
    """Operations chosen after looks: accuracy, best accuracy, contribution (or None), legal operations."""
    policy, column = Reactive(PROBLEM, [rule]), PROBLEM.observations.column
    policy.begin(np.zeros(1, dtype=np.int64), None)
    found = []
    for accuracy, best, contribution, legal in looks:
        seen = np.zeros((1, len(PROBLEM.observations.names)), dtype=np.float32)
        seen[0, column("accuracy")], seen[0, column("best_accuracy")] = accuracy, best
        if contribution is not None:
            for name, value in (("contribution", contribution), ("has_contribution", 1), ("alpha", 1)):
                seen[0, column(f"layer0.{name}")] = value
        found.append(Op(int(PROBLEM.actions.op[policy.act(seen, np.isin(PROBLEM.actions.op, legal)[None])[0]])))
    return found


def test_it_grows_when_accuracy_has_been_below_its_best_for_long_enough():
    legal = (Op.WAIT, Op.GERMINATE)
    looks = [(0.5, 0.5, None, legal), (0.35, 0.5, None, legal), (0.35, 0.5, None, legal)]
    assert decide(WATCHING, *looks) == [Op.WAIT, Op.WAIT, Op.GERMINATE]


def test_it_advances_prunes_what_does_not_help_and_keeps_what_does():
    alive = (Op.WAIT, Op.PRUNE, Op.FOSSILIZE)
    assert decide(WATCHING, (0.5, 0.5, None, (Op.WAIT, Op.ADVANCE))) == [Op.ADVANCE]
    assert decide(WATCHING, (0.5, 0.5, -0.01, alive)) == [Op.PRUNE]
    assert decide(WATCHING, (0.5, 0.5, 0.1, alive), (0.5, 0.5, 0.1, alive)) == [Op.WAIT, Op.FOSSILIZE]


def test_a_clock_is_a_rule_that_does_not_watch():
    clock = dataclasses.replace(WATCHING, clock=0, drop=2.0)
    assert decide(clock, (0.5, 0.5, None, (Op.WAIT, Op.GERMINATE))) == [Op.GERMINATE]


def test_rules_beside_each_other_play_as_they_do_alone():
    rules = [dataclasses.replace(WATCHING, clock=step, drop=2.0) for step in (0, 2, NEVER)]
    env, seeds = KasminaVectorEnv(3, PROBLEM), np.arange(2)
    together = play_rules(env, rules, seeds)
    alone = np.concatenate([play_rules(env, [rule], seeds) for rule in rules])
    assert np.allclose(together, alone, atol=1e-5)
    assert len(np.unique(together[:, 0])) == 3


def test_where_growing_only_costs_the_search_finds_a_rule_that_never_grows():
    dear = make_problem("Kasmina/Spirals-v0", **SMALL, operation_price=100.0)
    found = search_rule(dear, effort=RuleEffort(num_random=6, rounds=(Round(7, 0, 2),)))
    assert (found.rule.clock, found.returns.min() > -50) == (NEVER, True)


def test_a_search_finds_a_rule_that_is_read_back_as_it_was(tmp_path):
    found = search_rule(PROBLEM, effort=RuleEffort(num_random=6, rounds=(Round(7, 0, 1), Round(3, 1, 2))))
    save_rule(tmp_path / "rule.json", PROBLEM, found, {"command": "kasmina search"})
    assert load_rule(tmp_path / "rule.json") == found.rule
    assert found.returns.shape == (2,)
