"""The comparison on episodes made up by hand, whose table is known."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from kasmina_env import make_problem
from kasmina_env.comparison.arms import Arm, compare_arms, num_runs
from kasmina_env.comparison.players import Swapped
from kasmina_env.comparison.table import best_control, table, write
from kasmina_env.controllers.policy import CONTROLS, HELD_OUT, Played, register_policy
from kasmina_env.controllers.scripted import Wait
from kasmina_env.lifecycle.state import Op

PROBLEM = make_problem("Kasmina/Spirals-v0", horizon=2, embargo_steps=0, min_training_steps=0)
TABLE = PROBLEM.actions
GROW, PRUNE = (int(TABLE.find(op)[0]) for op in (Op.GERMINATE, Op.PRUNE))
SMALL = {"horizon": 8, "batches_per_step": 1, "batch_size": 8, "watch_samples": 16, "score_samples": 16}


def episodes(returns, actions=(0, 0), test=0.5, illegal=0, instances=None, kept=0) -> Played:
    count = len(returns)
    return Played(
        seeds=np.arange(count),
        instances=np.zeros(count, dtype=int) if instances is None else np.array(instances),
        returns=np.array(returns, dtype=float),
        scores=np.array(returns, dtype=float),
        test_accuracies=np.full(count, test),
        num_fossilized=np.full(count, kept),
        param_growths=np.zeros(count),
        computes=np.zeros(count),
        illegal=np.full(count, illegal),
        actions=np.tile(actions, (count, 1)),
        curves=np.zeros((count, 3)),
    )


ARMS = [
    Arm("wait", [episodes([0.0, 0.0, 0.2, 0.2])]),
    Arm("fixed", [episodes([0.4, 0.5, 0.5, 0.6])]),
    Arm("random", [episodes([-1.0, 0.0, 0.0, -1.0], actions=(GROW, PRUNE), illegal=1)]),
    Arm("lookahead", [episodes([0.7, 0.7, 0.7, 0.7])]),
    Arm("oracle", [episodes([0.8, 0.8, 0.9, 0.9])]),
    Arm("mine", [episodes([0.6, 0.5, 0.7, 0.8]), episodes([0.4, 0.7, 0.5, 0.6])]),
]


def row_of(name: str):
    rows, _ = table(ARMS, TABLE)
    return next(row for row in rows if row.arm == name)


def test_the_best_control_foresees_nothing_and_is_not_learned():
    assert best_control(ARMS).name == "fixed"
    assert best_control([arm for arm in ARMS if arm.name in ("mine", "oracle")]) is None


def test_differences_are_paired_over_episodes_and_averaged_over_runs():
    mine = row_of("mine")
    assert mine.minus_best.value == pytest.approx(np.mean([0.2, 0.0, 0.2, 0.2, 0.0, 0.2, 0.0, 0.0]))
    assert mine.improves == pytest.approx((3 + 0.5 + 1 + 0.5 * 3) / 8)
    assert (row_of("fixed").minus_best.low, row_of("fixed").minus_best.high) == (0, 0)


def test_shares_of_the_way_are_those_of_the_means():
    assert row_of("mine").share_of_fixed == pytest.approx((0.6 - 0.1) / (0.5 - 0.1))
    assert row_of("mine").gap_closed == pytest.approx((0.6 - 0.5) / (0.85 - 0.5))
    assert (row_of("wait").share_of_fixed, row_of("fixed").gap_closed, row_of("oracle").gap_closed) == (0, 0, 1)


def test_each_run_of_an_arm_has_its_own_return_and_share():
    assert row_of("mine").returns_of_runs == pytest.approx((0.65, 0.55))
    assert row_of("mine").shares_of_runs == pytest.approx((0.55 / 0.4, 0.45 / 0.4))


def test_illegal_and_prune_are_counted():
    assert row_of("random").illegal == 4
    assert row_of("random").prune_share == 0.5


def test_arms_are_listed_best_first():
    rows, best = table(ARMS, TABLE)
    assert [row.arm for row in rows] == ["oracle", "lookahead", "mine", "fixed", "wait", "random"]
    assert best == "fixed"


def test_shares_are_left_out_where_an_arm_was_not_played():
    rows, best = table([arm for arm in ARMS if arm.name == "mine"], TABLE)
    assert (rows[0].minus_best, rows[0].improves, rows[0].share_of_fixed, rows[0].gap_closed, best) == (None,) * 5
    assert rows[0].shares_of_runs == (None, None)


def test_instances_are_the_strata_of_the_interval():
    of_instance = [0, 0, 1, 1]
    arm = Arm("wait", [episodes([0.0, 0.0, 1.0, 1.0], instances=of_instance)])
    (row,), _ = table([arm], TABLE)
    assert (row.mean_return.low, row.mean_return.high) == (0.5, 0.5)


def test_what_is_written_is_what_was_played(tmp_path):
    rows, best = table(ARMS, TABLE)
    write(tmp_path, PROBLEM, rows, ARMS, best)
    found = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert found["id"] == PROBLEM.id
    assert (found["best_control"], [row["arm"] for row in found["rows"]]) == ("fixed", [row.arm for row in rows])
    with (tmp_path / "episodes.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 * 7
    assert [float(line["returns"]) for line in lines if line["run"] == "1"] == [0.4, 0.7, 0.5, 0.6]


def test_every_arm_plays_the_same_episodes():
    arms = compare_arms("Kasmina/DigitsMix-v0", {"wait": ["wait"], "both": ["wait", "random"]}, 5, **SMALL)
    runs = [run for arm in arms for run in arm.runs]
    assert len(runs) == 3
    assert all((run.seeds == runs[0].seeds).all() and (run.instances == runs[0].instances).all() for run in runs)
    assert (runs[0].returns == runs[1].returns).all()


@pytest.mark.parametrize("settings", [{"horizon": 4}, {"tempos": (4,)}])
def test_a_control_that_brings_other_decisions_is_not_compared(settings, monkeypatch):
    monkeypatch.setattr(CONTROLS, "_infos", dict(CONTROLS._infos))  # forgotten again
    register_policy("hasty", settings=settings)(Wait)
    with pytest.raises(
        ValueError, match=r"`hasty` must decide among the actions of Kasmina/Spirals-v0 at each of its 8"
    ):
        compare_arms("Kasmina/Spirals-v0", {"wait": ["wait"], "hasty": ["hasty"]}, 2, **SMALL)


def test_an_arm_plays_a_seed_alike_whatever_the_rows_and_episodes_beside_it():
    def played(num_episodes, num_envs=64):
        (arm,) = compare_arms("Kasmina/Spirals-v0", {"random": ["random"]}, num_episodes, num_envs, **SMALL)
        return arm.runs[0]

    six, nine, in_fours = played(6), played(9), played(6, 4)
    assert six.seeds.tolist() == list(range(HELD_OUT, HELD_OUT + 6))
    assert (six.actions == nine.actions[:6]).all()
    assert (six.actions == in_fours.actions).all()
    assert six.returns == pytest.approx(nine.returns[:6], abs=1e-3)  # floats are rounded otherwise
    assert six.returns == pytest.approx(in_fours.returns, abs=1e-3)


@pytest.mark.needs("matplotlib")
def test_nothing_on_the_pareto_front_is_beaten_in_both():
    from kasmina_env.comparison.plots import pareto_front

    points = [(1.0, 0.2), (3.0, 0.5), (2.0, 0.6), (1.0, 0.3), (4.0, 0.6), (5.0, 0.9)]
    assert pareto_front(points) == [(1.0, 0.3), (2.0, 0.6), (5.0, 0.9)]


@pytest.mark.needs("matplotlib")
def test_names_of_levels_stand_apart_in_their_order_around_where_they_belong():
    from kasmina_env.comparison.plots import apart

    assert apart([0.9, 0.1, 0.9, 0.5], 0.2) == pytest.approx([0.8, 0.1, 1.0, 0.5])
    assert apart([], 0.2) == []


def test_a_policy_sees_a_swapped_group_as_it_is_in_the_row_before():
    seen = []
    policy = Swapped(SimpleNamespace(begin=lambda *_: None, act=lambda obs, mask: seen.append(obs)), np.array([1]))
    policy.act(np.array([[1, 10], [2, 20], [3, 30]], dtype=np.float32), np.ones((3, 2), dtype=bool))
    assert seen[0].tolist() == [[1, 30], [2, 10], [3, 20]]


def test_a_learned_arm_plays_once_more_without_each_group(monkeypatch):
    monkeypatch.setattr(CONTROLS, "_infos", dict(CONTROLS._infos))  # forgotten again
    register_policy("mine", is_learned=True)(Wait)
    players, without, steps = {"wait": ["wait"], "mine": ["mine"]}, ("gradients",), []
    arms = compare_arms("Kasmina/Spirals-v0", players, 2, on_step=steps.append, without=without, **SMALL)
    assert [arm.name for arm in arms] == ["wait", "mine", "mine without gradients"]
    assert sum(steps) == 2 * SMALL["horizon"] * num_runs(players, without)
    with pytest.raises(ValueError, match=r"^`without` must have another episode to take values from, got 1 episode"):
        compare_arms("Kasmina/Spirals-v0", players, 1, without=without, **SMALL)
