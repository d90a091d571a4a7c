"""Controls by name, and what the two that are given their seeds really get and pay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.comparison.controls import at_once, shipped_schedule
from kasmina_env.comparison.players import find_player
from kasmina_env.controllers.policy import CONTROLS, play
from kasmina_env.controllers.schedule import Planned, actions_of, plan_of, save_schedule
from kasmina_env.controllers.scripted import Keep
from kasmina_env.lifecycle.state import Op, Stage
from tests.episodes import digest

SPIRALS = "Kasmina/Spirals-v0"
SMALL = {"batches_per_step": 1, "batch_size": 8, "watch_samples": 16, "score_samples": 16}
PLAN = (Planned(0, "layer0", "mlp", "ADD", 3), Planned(1, "layer1", "lora", "GATE", 5))


def planted_env(**settings: object):
    """An environment in which seeds join at once, and the flat actions that plant those of the plan."""
    env = KasminaVectorEnv(2, SPIRALS, instant=True, **SMALL, **settings)
    return env, [seed.action(env.problem.actions) for seed in PLAN]


def keeper(env):
    return Keep(env.problem, [seed.slot for seed in PLAN])


def played_by(name: str, preset: str = SPIRALS):
    player = find_player(name, preset)
    return play(KasminaVectorEnv(2, player.problem), player.policy, np.arange(2), planted=player.planted)


def test_only_those_that_foresee_are_bounds():
    assert {name for name in CONTROLS if CONTROLS.get(name).is_bound} == {"lookahead", "oracle"}


@pytest.mark.parametrize("name", [name for name in CONTROLS if name not in ("lookahead", "oracle")])
@pytest.mark.parametrize("preset", [SPIRALS, "Kasmina/Digits-v0"])
def test_every_control_plays_its_environment_by_name(name, preset):
    assert played_by(name, preset).illegal.sum() == 0


@pytest.mark.parametrize("name", ["per_context", "instant_per_context", "static_final", "reactive", "learned"])
@pytest.mark.parametrize("family", ["Kasmina/DigitsMix-v0", "Kasmina/DigitsDrift-v0"])
def test_controls_of_a_family_play_it_by_name(name, family):
    assert played_by(name, family).illegal.sum() == 0


@pytest.mark.parametrize("name", ["fixed", "reactive", "learned"])
@pytest.mark.parametrize("preset", ["Kasmina/DigitsService-v0", "Kasmina/Text-v0", "Kasmina/FashionMNIST-v0"])
def test_what_comes_with_an_id_plays_it_by_name(name, preset):
    assert played_by(name, preset).illegal.sum() == 0


@pytest.mark.parametrize("name", [name for name in CONTROLS if CONTROLS.get(name).is_searched])
def test_what_was_searched_for_other_settings_is_refused(name):
    with pytest.raises(ValueError, match=r"`policies` must be searched for these settings, .* rent_price"):
        find_player(name, SPIRALS, rent_price=0.3)


@pytest.mark.parametrize("name", ["lookahead", "oracle"])
@pytest.mark.parametrize("preset", [SPIRALS, "Kasmina/DigitsMix-v0"])
def test_every_bound_is_found_by_name(name, preset):
    player = find_player(name, preset)
    assert (player.problem.id, player.planted) == (preset, None)


def test_planted_seeds_are_at_alpha_one_before_the_first_minibatch():
    env, planted = planted_env()
    env.reset(seed=0, options={"planted": planted})
    state = env.episodes.state()
    assert (state.step == 0).all()
    assert (state.lifecycle.stage == Stage.HOLDING).all()
    assert (state.lifecycle.alpha.value == 1).all()


def test_planted_seeds_are_kept_and_paid_for_like_grown_ones():
    env, planted = planted_env(operation_price=0.25, rent_price=0.5)
    policy, terms = keeper(env), []
    observation, _ = env.reset(seed=0, options={"planted": planted})
    for _ in range(env.problem.horizon):
        observation, *_, infos = env.step(policy.act(observation, env.action_masks()))
        terms.append(infos["reward_terms"])
    assert [float(step["operations"][0]) for step in terms] == [-0.5, *[0.0] * (len(terms) - 1)]
    assert infos["num_fossilized"].tolist() == [2, 2]
    growth = env.problem.costs.compute_growth(env.episodes.state().lifecycle)[0]
    assert [float(step["rent"][0]) for step in terms] == pytest.approx([-0.5 * growth / len(terms)] * len(terms))
    assert growth > 0


def test_a_planted_network_ends_with_the_parameters_of_the_plan():
    env, planted = planted_env()
    waited = played_by("wait")
    played = play(env, keeper(env), np.arange(2), planted=np.array(planted))
    costs = env.problem.costs
    expected = costs.seed_parameters[[0, 1], [3, 1], [0, 2]].sum() / costs.host_parameters
    assert played.param_growths == pytest.approx(expected)
    assert (played.curves[:, 0] == waited.curves[:, 0]).all()


def test_planting_in_some_rows_leaves_the_others_alone():
    env, planted = planted_env()
    env.reset(seed=0)
    before = env.snapshot([1])
    env.reset(seed=0, options={"planted": planted[:1], "reset_mask": np.array([True, False])})
    assert env.episodes.state().lifecycle.has_seed.sum(axis=1).tolist() == [1, 0]
    assert digest(env.snapshot([1])) == digest(before)


def test_staged_seeds_may_be_planted_too_and_live_like_grown_ones():
    env = KasminaVectorEnv(1, SPIRALS, **SMALL)
    env.reset(seed=0, options={"planted": [PLAN[0].action(env.problem.actions)]})
    assert env.episodes.state().lifecycle.stage.tolist() == [[Stage.TRAINING, Stage.DORMANT]]
    *_, infos = env.step([0])
    assert infos["reward_terms"]["operations"] == pytest.approx(-env.problem.config.operation_price)
    assert env.episodes.state().lifecycle.age.tolist() == [[1, 0]]


def test_a_second_seed_for_a_slot_changes_nothing():
    env, planted = planted_env()
    env.reset(seed=0, options={"planted": [planted[0], planted[0] + 1]})
    assert env.episodes.state().lifecycle.has_seed.sum(axis=1).tolist() == [1, 1]
    *_, infos = env.step([0, 0])
    assert infos["reward_terms"]["operations"] == pytest.approx(-env.problem.config.operation_price)


def test_episodes_that_follow_are_planted_no_more():
    env, planted = planted_env(horizon=2, embargo_steps=0)
    env.reset(seed=0, options={"planted": planted})
    for _ in range(3):
        env.step([0, 0])
    assert not env.episodes.state().lifecycle.has_seed.any()


@pytest.mark.parametrize("planted", [[0], [-1], [10_000], [1.5], 1, [[1]], "mlp", [True]])
def test_what_cannot_be_planted_is_refused_and_nothing_is_changed(planted):
    env, _ = planted_env()
    env.reset(seed=0)
    before = env.snapshot()
    with pytest.raises(ValueError, match="`planted` must be a list of flat GERMINATE actions"):
        env.reset(seed=1, options={"planted": planted})
    assert digest(env.snapshot()) == digest(before)


def test_instant_plays_the_schedule_without_stages():
    played, table = played_by("instant"), make_problem(SPIRALS).actions
    assert set(table.op[played.actions].ravel().tolist()) == {Op.WAIT, Op.GERMINATE, Op.FOSSILIZE}
    assert [find_player(name, SPIRALS).problem.config.instant for name in ("instant", "wait")] == [True, False]


def test_at_alpha_1_a_seed_does_not_queue_behind_ramps_that_are_not_there():
    problem = make_problem("Kasmina/DigitsMix-v0")
    plan = (Planned(0, "block1", "depthwise", "ADD", 1), Planned(1, "block0", "conv_light", "ADD", 1))
    starts = {}
    for delay in (0, 3):  # one that could not start sooner, and one that waited for something else
        staged = actions_of((plan[0], replace(plan[1], start=1 + delay)), problem)
        instant = at_once(staged, problem)
        starts[delay] = [
            np.flatnonzero(problem.actions.op[each] == Op.GERMINATE).tolist() for each in (staged, instant)
        ]
    assert starts == {0: [[0, 3], [0, 2]], 3: [[0, 4], [0, 4]]}  # a single action a step: FOSSILIZE comes before


def test_static_final_has_the_seeds_of_the_best_schedule_from_the_start():
    player, problem = find_player("static_final", SPIRALS), make_problem(SPIRALS)
    plan = plan_of(shipped_schedule(problem), problem.actions)
    assert player.planted.tolist() == [seed.action(problem.actions) for seed in plan] != []
    assert played_by("static_final").num_fossilized.tolist() == [len(plan)] * 2


def test_static_final_leaves_out_what_the_schedule_prunes(tmp_path, monkeypatch):
    problem = make_problem(SPIRALS)
    actions = actions_of((PLAN[0], replace(PLAN[1], prune=9)), problem)
    save_schedule(tmp_path / "configs" / "spirals-v0.schedule.json", problem, actions, {})
    monkeypatch.chdir(tmp_path)
    assert find_player("static_final", SPIRALS).planted.tolist() == [PLAN[0].action(problem.actions)]
    assert played_by("static_final").num_fossilized.tolist() == [1, 1]


def test_a_schedule_is_read_back_as_the_plan_it_was_written_from():
    problem = make_problem(SPIRALS)
    assert plan_of(actions_of(PLAN, problem), problem.actions) == PLAN


def test_a_seed_that_is_not_kept_is_no_part_of_the_plan():
    problem = make_problem(SPIRALS)
    actions = np.zeros(problem.horizon, dtype=np.int64)
    actions[0] = PLAN[0].action(problem.actions)
    assert plan_of(actions, problem.actions) == ()
