"""A large CNN on synthetic pictures: everything a preset with data files has, where there are none."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from kasmina_env.lifecycle.state import Op
from tests.episodes import SMALL, digest, lively_actions, play_lively

SIZES = {"train": 300, "inner_valid": 40, "outer_valid": 60, "test": 50}
SETTINGS = {
    **SMALL,
    "task": "synthetic",
    "task_settings": {"image_size": 28, "num_classes": 4, **SIZES},
    "augment": "shift_flip",
    "host_settings": {"image_size": 28, "num_classes": 4, "stem": 2, "norm": "batch", "slots_at": "both"},
}
SLOTS = ("block0", "block1", "block2", "pool0", "pool1", "pool2")


def make(num_envs: int = 0, **settings):
    """One environment, or a vector of some."""
    settings = {**SETTINGS, **settings}
    if num_envs:
        return gym.make_vec("Kasmina/Digits-v0", num_envs=num_envs, **settings)
    return gym.make("Kasmina/Digits-v0", **settings).unwrapped


@pytest.mark.parametrize("form", ["flat", "factored"])
def test_gymnasiums_checker_has_nothing_to_say(form):
    check_env(make(action_space=form))


def test_slots_before_and_after_each_pool_can_be_chosen_by_name():
    env = make()
    assert env.problem.slot_names == SLOTS
    germinations = [name for name in env.action_names if name.startswith("GERMINATE")]
    assert {name.split()[1] for name in germinations} == set(SLOTS)


def test_score_changes_sum_to_committed_minus_first_score():
    vec, rng, total = make(num_envs=12), np.random.default_rng(0), 0.0
    first = vec.reset(seed=0)[1]["score"]
    for _ in range(SMALL["horizon"]):
        infos = vec.step(lively_actions(rng, vec))[4]
        total = total + infos["reward_terms"]["score_change"]
    assert np.allclose(total, infos["committed_score"] - first, rtol=0, atol=1e-6)
    assert infos["num_fossilized"].sum() > 0


def test_the_same_seed_gives_the_same_episode():
    assert digest(play_lively(make(), seed=3)) == digest(play_lively(make(), seed=3))


def test_a_restored_episode_goes_on_bit_for_bit():
    env, rng = make(), np.random.default_rng(1)
    play_lively(env, num_steps=5)
    saved = env.snapshot()
    actions = []
    first = []
    for _ in range(5):
        actions.append(int(lively_actions(rng, env)[0]))
        first.append(env.step(actions[-1]))
    env.restore(saved)
    assert digest([env.step(action) for action in actions]) == digest(first)


def test_a_seed_after_a_pool_lives_its_whole_life():
    env = make()
    env.reset(seed=0)
    names = env.action_names
    plan = ["GERMINATE pool0 depthwise ADD tempo1", "WAIT", "ADVANCE pool0", "WAIT", "FOSSILIZE pool0"]
    infos = [env.step(names.index(name))[4] for name in plan]
    assert all(info["action_legal"] for info in infos)
    assert infos[-1]["num_fossilized"] == 1
    assert env.episodes.state().last_op[0] == Op.FOSSILIZE
