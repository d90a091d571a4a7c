"""Reactive rules: what they do with what they see, and the search for one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.controllers.halving import Effort, Round, halve
from kasmina_env.controllers.policy import play
from kasmina_env.controllers.reactive import (
    NEVER,
    Reactive,
    Rule,
    load_rules,
    play_rules,
    rules_of,
    save_rules,
)
from kasmina_env.controllers.rule_search import search_rules, structured_rules, variations
from kasmina_env.controllers.schedule import Planned
from kasmina_env.controllers.search import play_plans
from kasmina_env.lifecycle.state import Op
from tests.episodes import SMALL

PROBLEM = make_problem("Kasmina/Spirals-v0", **SMALL)
WATCHING = Rule("layer0", "mlp", "ADD", 1, NEVER, 0.1, 2, 0.0, 1, 0, 0.05, 2)


def decide(rule, *looks):
    """Operations chosen after looks: accuracy, best accuracy, contribution (or None), legal operations."""
    policy, column = Reactive(PROBLEM, [(rule,)]), PROBLEM.observations.column
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
    rules = [(dataclasses.replace(WATCHING, clock=step, drop=2.0),) for step in (0, 2, NEVER)]
    env, seeds = KasminaVectorEnv(3, PROBLEM), np.arange(2)
    together = play_rules(env, rules, seeds)
    alone = np.concatenate([play_rules(env, [each], seeds) for each in rules])
    assert np.allclose(together, alone, atol=1e-5)
    assert len(np.unique(together[:, 0])) == 3


@pytest.mark.parametrize("prune", [None, 5])
def test_rules_that_keep_or_prune_what_a_clock_grows_play_a_schedule(prune):
    first = Planned(0, "layer0", "mlp", "ADD", 1, prune=prune)
    plan = (first, Planned(1, "layer1", "lora", "GATE", 2))
    env, seeds = KasminaVectorEnv(2, PROBLEM), np.arange(2)
    as_rules = play_rules(env, [rules_of(plan, PROBLEM)], seeds)
    assert np.array_equal(as_rules, play_plans(env, [plan], seeds))


def test_where_growing_only_costs_the_search_finds_rules_that_never_grow():
    dear = make_problem("Kasmina/Spirals-v0", **SMALL, operation_price=100.0)
    found = search_rules(dear, effort=Effort(num_random=6, rounds=(Round(7, 0, 2),)))
    assert found.returns.min() > -50


def test_structured_rules_differ_and_watch_each_slot_for_each_blueprint():
    found = structured_rules(np.random.default_rng(0), PROBLEM, 1000)
    assert len(set(found)) == len(found) == 3 * 3 * len(PROBLEM.slot_names) * len(PROBLEM.config.blueprints)
    assert all(rule.drop < 1 and rule.prune_below > 0 for (rule,) in found)
    assert len(structured_rules(np.random.default_rng(0), PROBLEM, 5)) == 5


def test_variations_differ_from_rules_in_one_field_and_none_is_missed():
    kept = dataclasses.replace(WATCHING, slot="layer1", clock=2, drop=2.0)
    found = variations((WATCHING, kept), PROBLEM)
    assert len(set(found)) == len(found)
    assert found[:2] == [(kept,), (WATCHING,)]
    for rules in found[2:]:
        pairs = zip(rules, (WATCHING, kept), strict=True)
        changed = [name for rule, old in pairs for name, value in vars(rule).items() if value != getattr(old, name)]
        assert len(changed) == 1
    varied = {name for rules in found[2:] for name, value in vars(rules[0]).items() if value != getattr(WATCHING, name)}
    assert all(rule.drop <= 1 or rule.clock < NEVER for rules in found for rule in rules)  # none that never grows
    assert varied == {field.name for field in dataclasses.fields(Rule)} - {"slot"}  # no slot is left


def test_a_round_with_variations_finds_what_no_random_neighbour_would():
    def returns_of(numbers, seeds, instances):
        return -np.abs(np.array(numbers, dtype=float) - 7)[:, None] + np.zeros(len(seeds))

    rounds = (Round(2, 0, 3, variations=2), Round(3, 0, 5, variations=2))
    best, returns = halve(
        [5, 0], rounds, np.random.default_rng(0), None, lambda n: n, returns_of, lambda n: (n - 1, n + 1)
    )
    assert best == 7
    assert returns.shape == (5,)
    assert sum(each.num_episodes for each in rounds) == 4 * 3 + 5 * 5


def test_variations_of_several_candidates_leave_a_dead_end():
    worth = {0: 5.0, 1: 4.0, 10: 4.5, 11: 9.0}  # the best has no better variation, the next best has

    def returns_of(numbers, seeds, instances):
        return np.array([worth.get(n, 0.0) for n in numbers])[:, None] + np.zeros(len(seeds))

    def search(varied):
        rounds = (Round(2, 0, 2), Round(2, 0, 2, variations=2, varied=varied))
        return halve([0, 10], rounds, np.random.default_rng(0), None, lambda n: n, returns_of, lambda n: (n - 1, n + 1))

    assert [search(varied)[0] for varied in (1, 2)] == [0, 11]
    assert Round(2, 0, 2, variations=2, varied=2).num_episodes == (2 + 2 * 2) * 2


@pytest.mark.parametrize(("problem", "factor"), [(PROBLEM, 1), (make_problem("Kasmina/DigitsMix-v0"), 3)])
def test_what_must_serve_a_whole_family_is_searched_on_more_episodes(problem, factor):
    assert Effort(num_random=2, rounds=(Round(2, 0, 4),)).on(problem).num_episodes == factor * 8


def test_a_search_finds_rules_that_are_read_back_as_they_were(tmp_path):
    found = search_rules(PROBLEM, effort=Effort(num_random=6, rounds=(Round(7, 0, 1), Round(3, 1, 2))))
    save_rules(tmp_path / "rules.json", PROBLEM, found.rules, {"command": "kasmina search"})
    env, policy = KasminaVectorEnv(2, PROBLEM), load_rules(tmp_path / "rules.json", PROBLEM)
    assert np.array_equal(play(env, policy, np.arange(2)).returns, play_rules(env, [found.rules], np.arange(2))[0])


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"rules": 7}, "must hold a list of rules"),
        ({"rules": [{"slot": "layer0", "colour": "red"}]}, "colour"),
        ({"rules": [dataclasses.asdict(WATCHING)] * 2}, "each in one rule"),
        ({"rules": [{**dataclasses.asdict(WATCHING), "blueprint": "conv"}]}, "`blueprint` must be one of"),
        ({"rules": [{**dataclasses.asdict(WATCHING), "prune_tempo": 9}]}, "`tempo` must be one of"),
        (
            {"rules": [{**dataclasses.asdict(WATCHING), "tempo": 0}]},
            "GERMINATE layer0 blueprint mlp, operator ADD, tempo 0",
        ),
        ({"rules": [{**dataclasses.asdict(WATCHING), "prune_tempo": 2}]}, "PRUNE layer0 tempo 2"),
        ({"rules": [{"slot": "layer0"}]}, "must have all fields each"),
    ],
)
def test_a_file_that_holds_no_rules_of_the_problem_is_one_sentence(written, words, tmp_path):
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        load_rules(path, PROBLEM)
