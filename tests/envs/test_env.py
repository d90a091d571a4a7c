"""The Gymnasium environment: it keeps Gymnasium's contract and its own, whatever it is asked."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env, data_equivalence

from kasmina_env import PRESETS
from kasmina_env.lifecycle.state import Op
from tests.episodes import (
    ALWAYS_IDS,
    FORMS,
    IDS,
    INFO_KEYS,
    SMALL,
    TERMINAL_KEYS,
    WAIT,
    dead_row,
    digest,
    is_plain,
    lively_actions,
    op_actions,
    play,
    play_lively,
    run_python,
    small_env,
    small_settings,
    small_vec,
)

# ── Gymnasium's contract ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_checker_has_nothing_to_say(env_id, form):
    check_env(gym.make(env_id, action_space=form).unwrapped)


@pytest.mark.parametrize("render_mode", ["ansi", pytest.param("rgb_array", marks=pytest.mark.needs("matplotlib"))])
@pytest.mark.parametrize("env_id", IDS)
def test_checker_has_nothing_to_say_about_pictures(env_id, render_mode):
    check_env(small_env(env_id, render_mode=render_mode))


@pytest.mark.parametrize("env_id", IDS)
def test_checker_has_nothing_to_say_about_small_episodes_that_end_meanwhile(env_id):
    check_env(gym.make(env_id, **{**SMALL, "horizon": 2}).unwrapped)


@pytest.mark.parametrize("env_id", IDS)
def test_specification_survives_json_and_pickle_and_makes_the_same_environment(env_id):
    env = gym.make(env_id, action_space="factored", **SMALL)
    episode = digest(play_lively(env.unwrapped, seed=1))
    for spec in (EnvSpec.from_json(env.spec.to_json()), pickle.loads(pickle.dumps(env.spec))):
        assert json.loads(spec.to_json())["id"] == env_id
        again = gym.make(spec).unwrapped
        assert again.action_space == env.action_space
        assert digest(play_lively(again, seed=1)) == episode


@pytest.mark.parametrize("env_id", IDS)
def test_make_adds_no_time_limit_of_its_own(env_id):
    assert gym.spec(env_id).max_episode_steps is None
    assert PRESETS.get(env_id).description


def test_module_and_id_are_enough_in_a_fresh_process():
    code = f"""
import gymnasium
env = gymnasium.make("kasmina_env:{ALWAYS_IDS[-1]}")
env.reset(seed=0)
print(env.step(0)[4]["step"])
"""
    assert run_python(code) == "1"


@pytest.mark.slow  # each worker imports torch
@pytest.mark.parametrize("context", ["forkserver", "spawn"])
@pytest.mark.parametrize("env_id", IDS)
def test_subprocesses_make_it_by_id_and_give_the_same_episodes(env_id, context):
    make = partial(gym.make, f"kasmina_env:{env_id}", **SMALL)
    envs, alone = gym.vector.AsyncVectorEnv([make] * 2, context=context), gym.vector.SyncVectorEnv([make] * 2)
    actions = np.random.default_rng(0).integers(envs.single_action_space.n, size=(12, 2))
    assert data_equivalence(envs.reset(seed=3), alone.reset(seed=3))
    for action in actions:
        one, other = envs.step(action), alone.step(action)
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])
    envs.close()


@pytest.mark.parametrize("device", ["cudda", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(device, monkeypatch):
    rest = rf" must be a device that PyTorch can use here, got '{device}': .*\. Use 'cpu', or name another one\.$"
    with pytest.raises(ValueError, match="^`device`" + rest):
        gym.make(IDS[0], device=device)
    with pytest.raises(ValueError, match="^`device`" + rest):
        gym.make_vec(IDS[0], num_envs=2, devices=["cpu", device])
    monkeypatch.setenv("KASMINA_DEVICE", device)
    with pytest.raises(ValueError, match="^`KASMINA_DEVICE`" + rest):
        gym.make(IDS[0])
    assert gym.make(IDS[0], device="cpu").unwrapped.episodes.devices[0].type == "cpu"


# ── episodes ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_end_of_the_horizon_is_termination(env_id):
    env = small_env(env_id)
    env.reset(seed=0)
    steps = play(env, [WAIT] * 10)
    assert [step[2] for step in steps] == [False] * 9 + [True]
    assert not any(step[3] for step in steps)


@pytest.mark.parametrize("env_id", IDS)
def test_a_time_limit_is_not_termination(env_id):
    env = gym.make(env_id, max_episode_steps=3, **SMALL)
    env.reset(seed=0)
    assert [env.step(WAIT)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


def test_step_after_the_end_asks_for_a_reset():
    env = small_env(IDS[0], horizon=2)
    env.reset(seed=0)
    play(env, [WAIT] * 2)
    with pytest.raises(ResetNeeded, match=r"^The episode is over\. Call `reset\(\)` before the next step\.$"):
        env.step(WAIT)


def test_unknown_option_of_reset_is_refused():
    with pytest.raises(
        ValueError, match=r"^`options` must have only the keys instance, split, planted, got dificulty\.$"
    ):
        small_env(IDS[0]).reset(options={"dificulty": 3})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("env_id", IDS)
def test_no_action_of_the_space_ever_raises(env_id, form):
    env = small_env(env_id, action_space=form)
    env.action_space.seed(0)
    for seed in range(12):
        obs, info = env.reset(seed=seed)
        is_over = False
        while not is_over:
            mask = env.action_masks()
            obs, reward, is_over, _, info = env.step(env.action_space.sample())
            assert np.isfinite(obs).all()
            assert np.isfinite(reward)
        assert info["step"] == 10
        assert mask.shape == (sum(env.problem.actions.num_choices) if form == "factored" else env.action_space.n,)


@pytest.mark.parametrize("env_id", IDS)
def test_closing_twice_is_fine_and_an_environment_is_a_context(env_id):
    with gym.make(env_id, **SMALL) as env:
        env.reset(seed=0)
        env.close()


@pytest.mark.parametrize("copy", [deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copied", "pickled"])
@pytest.mark.parametrize("make", [small_env, small_vec])
@pytest.mark.parametrize("env_id", IDS)
def test_a_copy_of_an_environment_goes_on_like_it_and_alone(env_id, make, copy):
    env, rng = make(env_id), np.random.default_rng(0)
    fresh = copy(env)
    assert digest(fresh.reset(seed=1)) == digest(env.reset(seed=1))
    is_vector = make is small_vec
    for _ in range(6):
        actions = lively_actions(rng, env)
        env.step(actions if is_vector else actions[0])
    twin, actions = copy(env), [[1] * 4] * 4 if is_vector else [1] * 4
    expected = digest(play(env, actions), env.reset(), env.np_random.random(), env.network(0))
    assert digest(play(twin, actions), twin.reset(), twin.np_random.random(), twin.network(0)) == expected


# ── infos ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_infos_have_the_same_keys_and_plain_values_from_reset_to_the_end(env_id):
    steps = play_lively(small_env(env_id))
    infos = [step[-1] for step in steps]
    assert [set(info) for info in infos] == [INFO_KEYS] * 10 + [INFO_KEYS | TERMINAL_KEYS]
    assert all(is_plain(info) for info in infos)
    assert len({tuple(info["reward_terms"]) for info in infos}) == 1
    assert [info["step"] for info in infos] == list(range(11))
    assert [type(value) for value in steps[-1][1:4]] == [float, bool, bool]


@pytest.mark.parametrize("num_steps", [0, 4])
@pytest.mark.parametrize("env_id", IDS)
def test_terminal_info_is_complete_after_a_crash_too(env_id, num_steps):
    env = small_env(env_id)
    env.reset(seed=0)
    play(env, [WAIT] * num_steps)
    dead_row(env)
    info = env.step(WAIT)[4]
    assert set(info) == INFO_KEYS | TERMINAL_KEYS
    assert is_plain(info)
    assert info["actions"].tolist() == [WAIT] * (num_steps + 1) + [-1] * (9 - num_steps)


@pytest.mark.parametrize("env_id", IDS)
def test_terminal_info_tells_the_episode(env_id):
    env, rng, actions = small_env(env_id), np.random.default_rng(0), []
    env.reset(seed=0)
    for _ in range(10):
        actions.append(int(lively_actions(rng, env)[0]))
        info = env.step(actions[-1])[4]
    assert info["actions"].tolist() == actions
    assert info["committed_score"] == info["score"]
    assert 0 <= info["test_accuracy"] <= 1


def cut_short(env_id):
    """An episode that a wrapper ends after five steps, and the info of the last one."""
    env, rng = gym.make(env_id, max_episode_steps=5, **small_settings(env_id)), np.random.default_rng(0)
    env.reset(seed=2)
    for _ in range(5):
        *_, terminated, truncated, info = env.step(lively_actions(rng, env.unwrapped)[0])
    assert (terminated, truncated) == (False, True)
    return env.unwrapped, info


@pytest.mark.parametrize("env_id", IDS)
def test_an_episode_that_a_wrapper_ends_tells_its_end_when_asked(env_id):
    env, info = cut_short(env_id)
    assert set(info) == INFO_KEYS
    assert (info["actions"] < 0).tolist() == [False] * 5 + [True] * 5
    assert set(info) == INFO_KEYS | TERMINAL_KEYS
    assert is_plain(info)
    assert info["is_success"] == (info["committed_score"] >= env.problem.config.success_score)


@pytest.mark.parametrize("env_id", IDS)
def test_asking_for_the_end_in_the_middle_changes_nothing(env_id):
    (asked, info), (other, _) = cut_short(env_id), cut_short(env_id)
    assert 0 <= info["test_accuracy"] <= 1
    assert digest(play(asked, [1, 0, 1, 0, 1]), asked.reset()) == digest(play(other, [1, 0, 1, 0, 1]), other.reset())


def test_the_end_cannot_be_asked_for_once_the_episode_went_on_and_nothing_else_can():
    env, info = cut_short(ALWAYS_IDS[0])
    with pytest.raises(KeyError, match="no_such_fact"):
        info["no_such_fact"]
    env.step(WAIT)
    with pytest.raises(KeyError, match="The episode has gone on since"):
        info["committed_score"]


def test_infos_travel_as_what_is_known():
    _, info = cut_short(ALWAYS_IDS[0])
    travelled = pickle.loads(pickle.dumps(info))
    assert type(travelled) is dict
    assert digest(travelled) == digest(dict(info))


@pytest.mark.parametrize("env_id", IDS)
def test_growth_counts_all_seeds_until_the_end_and_then_what_is_kept(env_id):
    env = small_env(env_id)
    env.reset(seed=0)
    germinate, advance, fossilize = (op_actions(env, op)[0] for op in (Op.GERMINATE, Op.ADVANCE, Op.FOSSILIZE))
    other = next(a for a in op_actions(env, Op.GERMINATE) if env.problem.actions.slot[a] == 1)
    infos = [step[4] for step in play(env, [germinate, advance, fossilize, other, *[WAIT] * 6])]
    growth = [info["param_growth"] for info in infos]
    assert [info["num_fossilized"] for info in infos] == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert [info["num_alive"] for info in infos] == [1, 1, 0, 1, 1, 1, 1, 1, 1, 1]
    assert growth[0] == growth[2] == growth[-1] < growth[3] == growth[-2]


@pytest.mark.parametrize("score, is_success", [(-1.0, True), (1.0, False)])
def test_success_is_a_committed_score_of_at_least_the_setting(score, is_success):
    steps = play_lively(small_env(IDS[0], success_score=score))
    assert steps[-1][4]["is_success"] is is_success
