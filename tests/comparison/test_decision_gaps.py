"""Decision gaps: pools hold a restricted candidate for each free one, and gaps are right where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kasmina_env import make_problem
from kasmina_env.comparison.calibrate import Sizes, calibrate, num_calibration_steps
from kasmina_env.comparison.calibration_sizes import USUAL_SIZES
from kasmina_env.comparison.candidates import Contenders
from kasmina_env.comparison.decision_gaps import (
    DECISIONS,
    DIMENSIONS,
    VALUE_MEANINGS,
    candidates_by_value,
    find_decision_gaps,
    find_value_gaps,
    held,
    make_pool,
    most_candidates,
)
from kasmina_env.controllers.reactive import NEVER, Reactive, Rule
from kasmina_env.controllers.schedule import Planned, actions_of
from kasmina_env.lifecycle.state import Op
from kasmina_env.settings.presets import PRESETS, Preset
from tests.episodes import SMALL

SPIRALS = "Kasmina/Spirals-v0"
PROBLEM = make_problem(SPIRALS, targets=(0.5, 1.0))
PLAN = (Planned(0, "layer0", "mlp", "ADD", 3, prune=9), Planned(2, "layer1", "lora", "GATE", 5))
RULES = (Rule("layer0", "mlp", "ADD", 3, NEVER, 0.1, 2, 0.0, 1, 0, 0.05, 2),)
SIGMA = 0.1


def returns_of(means, num_seeds: int = 200):
    """Returns [P, I, S] around means [P, I]."""
    means = np.asarray(means, dtype=np.float64)[..., None]
    return means + SIGMA * np.random.default_rng(0).standard_normal((*means.shape[:2], num_seeds))


def gap_of(means, *groups):
    return find_decision_gaps(returns_of(means), {"it": [np.array(group) for group in groups]})["it"]


def test_a_value_that_is_best_in_all_instances_is_held_at_no_cost():
    found = gap_of([[1.0, 1.0], [0.5, 0.7]], [0], [1])
    assert (found.difference.value, found.noise, found.in_noise) == (0, 0, 0)


def test_a_gap_is_what_the_best_of_each_instance_is_worth_above_the_one_best_value():
    found = gap_of([[1.0, 0.2], [0.4, 0.8]], [0], [1])
    assert found.difference.value == pytest.approx(0.9 - 0.6, abs=0.03)
    assert found.noise == pytest.approx(SIGMA * np.sqrt(2) / 4, rel=0.15)


def test_within_a_value_the_choice_is_free():
    means = [[1.0, 0.0], [0.0, 1.0], [0.9, 0.9]]
    assert gap_of(means, [0, 1], [2]).difference.value == 0
    assert gap_of(means, [0], [2]).difference.value == pytest.approx(0.1, abs=0.03)


def test_a_mixture_of_values_is_a_candidate_only_where_none_is_held():
    assert gap_of([[0.2], [0.3], [0.8]], [0], [1]).difference.value == pytest.approx(0.5, abs=0.03)


def test_candidates_that_play_alike_differ_in_nothing():
    returns = np.repeat(returns_of([[0.5]]), 2, axis=0)
    found = find_decision_gaps(returns, {"it": [np.array([1])], "none": None})
    assert found["it"].in_noise == found["it"].noise == 0
    assert found["none"] is None


def test_a_maximum_of_noise_opens_no_gap():
    draws = [np.random.default_rng(i).standard_normal((60, 4, 4)) for i in range(40)]
    groups = {"it": [np.arange(30), np.arange(30, 45)]}
    values = [find_decision_gaps(draw, groups)["it"].difference.value for draw in draws]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


MEANS = [[1.0, 0.2], [0.4, 0.9], [0.3, 0.3]]


def test_a_value_gap_is_what_the_best_value_is_worth_above_the_mean_of_all():
    groups = [np.array([i]) for i in range(3)]
    found = find_value_gaps(returns_of(MEANS), {"tempo": groups, "slot": None})
    assert found["tempo"].difference.value == pytest.approx(0.65 - (0.6 + 0.65 + 0.3) / 3, abs=0.03)
    assert found["tempo"].noise == pytest.approx(SIGMA * np.sqrt(2) / 4 * np.sqrt(2 / 3), rel=0.15)  # no third of it
    assert found["slot"] is None


def test_a_value_gap_is_that_of_one_candidate_for_all_instances():
    """Without PRUNE the best of each instance is as good, but no single one is."""
    means = [[0.9, 0.9], [1.0, 0.2], [0.4, 1.0]]  # the first prunes
    groups = {"prune": [np.array([1, 2])]}
    assert find_decision_gaps(returns_of(means), groups)["prune"].difference.value == 0
    found = find_value_gaps(returns_of(means), groups)["prune"]
    assert found.difference.value == pytest.approx(0.9 - 0.7, abs=0.03)
    assert found.noise == pytest.approx(SIGMA * np.sqrt(2) / 4, rel=0.15)


@pytest.mark.parametrize("base", [PLAN, RULES])
def test_a_pool_holds_a_restricted_candidate_for_each_base(base):
    pool = make_pool([base], PROBLEM, 3)
    assert len(pool) <= most_candidates(1, PROBLEM, 3)
    for name, groups in candidates_by_value(pool, PROBLEM, 3).items():
        assert (groups is None) == (name == "curve"), name
        grown = [i for group in groups or () for i in group if pool[i]]
        assert grown or (isinstance(base[0], Rule) and name == "target") or groups is None, name


@pytest.mark.parametrize("base", [PLAN, RULES])
def test_all_of_a_pool_is_played_legally(base):
    pool = make_pool([base], PROBLEM, 3)
    for candidate in pool:
        if candidate and isinstance(candidate[0], Planned):
            actions_of(candidate, PROBLEM)
        else:
            Reactive(PROBLEM, [candidate])


def test_a_seed_moved_to_another_start_lives_as_long():
    moved = held(PLAN, "start", 4, PROBLEM)
    assert [(seed.start, seed.prune) for seed in moved] == [(4, 13), (4, None)]
    assert held(RULES, "start", 4, PROBLEM)[0].drop > 1


def test_without_fossilize_nothing_is_made_permanent_and_without_prune_nothing_is_taken_away():
    plans = [held(PLAN, name, False, PROBLEM) for name in ("fossilize", "prune")]
    unfossilized, unpruned = (PROBLEM.actions.op[actions_of(plan, PROBLEM)] for plan in plans)
    assert Op.FOSSILIZE not in unfossilized
    assert Op.PRUNE not in unpruned
    assert held(RULES, "fossilize", False, PROBLEM)[0].keep_above > 1
    assert held(RULES, "prune", False, PROBLEM)[0].prune_below < -1


def test_what_a_problem_has_no_choice_of_has_no_gap():
    one = make_problem(SPIRALS, blueprints=("mlp",), operators=("ADD",), tempos=(3,), targets=(1.0,))
    groups = candidates_by_value(make_pool([(replace(PLAN[0]),)], one, 1), one, 1)
    assert {name for name, of_values in groups.items() if of_values is None} == {
        "blueprint", "operator", "start", "tempo", "curve", "target",
    }  # fmt: skip
    assert candidates_by_value(make_pool([PLAN], PROBLEM, 2), make_problem(SPIRALS, curves=("LINEAR", "COSINE")), 2)[
        "curve"
    ]


def test_decision_gaps_are_measured_with_the_rest(monkeypatch):
    monkeypatch.setattr(PRESETS, "_infos", dict(PRESETS._infos))  # forgotten again
    settings = {**PRESETS.get(SPIRALS).settings, **SMALL, "tempos": (3, 5), "operators": ("ADD", "GATE")}
    PRESETS.register("Small-v0", Preset("Small-v0", "", settings))
    sizes = Sizes(schedules=4, screening=1, kept=1, random=1, varied=1, starts=2, seeds=4)
    calibration = calibrate("Small-v0", sizes, 0, Contenders((PLAN,), ((),)))
    assert calibration.decision_gaps.keys() == DECISIONS.keys() == DIMENSIONS.keys() == VALUE_MEANINGS.keys()
    assert calibration.value_gaps.keys() == VALUE_MEANINGS.keys()
    for found in (calibration.decision_gaps, calibration.value_gaps):
        assert found["curve"] is None
        assert all(np.isfinite(gap.in_noise) for name, gap in found.items() if name != "curve")


@pytest.mark.parametrize("preset", ["Kasmina/DigitsDrift-v0", "Kasmina/Digits-v0"])
def test_a_calibration_of_usual_size_is_a_matter_of_minutes(preset):
    """An upper bound, for a fifth of the candidates are equal. An episode of DigitsDrift takes 70 ms of a core."""
    assert num_calibration_steps(preset, USUAL_SIZES) < 12_000 * make_problem(preset).horizon
