"""Controls by name, and what the two that are given their seeds really get and pay."""

from __future__ import annotations

import numpy as np
import pytest

from kasmina_env.comparison.arms import CONTROLS, make_player, settings_of
from kasmina_env.controllers.policy import make_env, names_of, play
from kasmina_env.controllers.schedule import Planned, actions_of, plan_of
from kasmina_env.controllers.scripted import Given
from kasmina_env.lifecycle.transitions import Stage

SPIRALS = "Kasmina/Spirals-v0"
SMALL = {"batches_per_step": 1, "batch_size": 8, "watch_samples": 16, "score_samples": 16}
PLAN = (Planned(0, "layer0", "mlp", "ADD", 3), Planned(1, "layer1", "lora", "GATE", 5))


def given(num_envs: int = 2, **settings: object):
    env = make_env(SPIRALS, num_envs, instant=True, **SMALL, **settings)
    return env, Given(env, PLAN)


def test_only_those_that_foresee_are_bounds():
    assert {name for name in CONTROLS if CONTROLS.get(name).is_bound} == {"lookahead", "oracle"}


@pytest.mark.parametrize("name", [name for name in CONTROLS if name not in ("lookahead", "oracle")])
@pytest.mark.parametrize("preset", [SPIRALS, "Kasmina/Digits-v0"])
def test_every_control_plays_its_environment_by_name(name, preset):
    env, policy = make_player(name, preset, 2, **SMALL)
    assert play(env, policy, np.arange(2)).illegal.sum() == 0


def test_given_seeds_are_at_alpha_one_before_the_first_minibatch():
    env, policy = given()
    observation, _ = env.reset(seed=0)
    policy.act(observation, env.action_masks())
    state = env.episodes.state().lifecycle
    assert (env.episodes.state().step == 0).all()
    assert (state.stage == Stage.HOLDING).all()
    assert (state.alpha.value == 1).all()


def test_given_seeds_are_kept_and_paid_for_like_grown_ones():
    env, policy = given(operation_price=0.25, rent_price=0.5)
    observation, _ = env.reset(seed=0)
    terms = []
    for _ in range(env.problem.config.horizon):
        *_, infos = env.step(policy.act(observation, env.action_masks()))
        observation, terms = _[0], [*terms, infos.get("final_info", infos)["reward_terms"]]
    germinations = [float(step["operations"][0]) for step in terms]
    assert germinations == [-0.5, *[0.0] * (len(terms) - 1)]
    rents = {round(float(step["rent"][0]), 9) for step in terms}
    assert len(rents) == 1
    assert rents.pop() < 0


def test_a_given_network_ends_with_the_parameters_of_the_plan():
    env, policy = given()
    grown_env = make_env(SPIRALS, 2, **SMALL)
    grown = play(grown_env, CONTROLS.get("wait").make(grown_env), np.arange(2))
    episodes = play(env, policy, np.arange(2))
    costs = env.problem.costs
    expected = costs.seed_parameters[[0, 1], [3, 1], [0, 2]].sum() / costs.host_parameters
    assert episodes.param_growths == pytest.approx(expected)
    assert (episodes.curves[:, 0] == grown.curves[:, 0]).all()


def test_planting_in_some_rows_leaves_the_others_alone():
    env, _ = given()
    env.reset(seed=0)
    action = env.action_names.index(PLAN[0].action)
    env.core.plant(np.array([action, 0]))
    assert env.episodes.state().lifecycle.has_seed.sum(axis=1).tolist() == [1, 0]


def test_instant_plays_the_schedule_without_stages():
    env, policy = make_player("instant", SPIRALS, 2, **SMALL)
    episodes = play(env, policy, np.arange(2))
    ops = {names_of(env).action[action].split()[0] for action in episodes.actions.ravel()}
    assert ops == {"WAIT", "GERMINATE", "FOSSILIZE"}
    assert settings_of("instant") == {"instant": True}
    assert settings_of("wait") == {}


def test_a_schedule_is_read_back_as_the_plan_it_was_written_from():
    names = names_of(make_env(SPIRALS, 1))
    assert plan_of(actions_of(PLAN, names, 2, instant=False), names) == PLAN


def test_a_seed_that_is_not_kept_is_no_part_of_the_plan():
    names = names_of(make_env(SPIRALS, 1))
    actions = np.zeros(names.horizon, dtype=np.int64)
    actions[0] = names.action.index(PLAN[0].action)
    assert plan_of(actions, names) == ()
