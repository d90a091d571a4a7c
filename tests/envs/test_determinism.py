"""The same seed is the same episode, whatever else the process does; and the process does not feel the library."""

from __future__ import annotations

import gc
import random
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.episodes import ALWAYS_IDS, IDS, SMALL, digest, lively_actions, play_lively, run_python, small_env, small_vec


@contextmanager
def default_dtype(dtype):
    """Floating-point type of tensors that nobody says anything about."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64_default": lambda: default_dtype(torch.float64),
    "other_device": lambda: torch.device("meta"),  # stands for an accelerator that is the default
}


def global_state():
    """Everything global that a library could disturb."""
    return {
        "torch": digest(torch.get_rng_state()),
        "numpy": digest(np.random.get_state(legacy=False)),  # noqa: NPY002
        "random": digest(random.getstate()),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": torch.is_autocast_enabled("cpu"),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "errors": np.geterr(),
    }


# ── seeds ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_seed_gives_the_same_episode_in_the_same_and_in_a_new_environment(env_id):
    env = small_env(env_id)
    first = digest(play_lively(env, seed=5))
    assert digest(play_lively(env, seed=5)) == first
    assert digest(play_lively(small_env(env_id), seed=5)) == first


@pytest.mark.parametrize("env_id", IDS)
def test_seed_gives_the_same_episode_of_the_preset_itself(env_id):
    episodes = [play_lively(gym.make(env_id, horizon=6).unwrapped, seed=5) for _ in range(2)]
    assert digest(episodes[0]) == digest(episodes[1])


def test_seed_gives_the_same_episode_in_another_process():
    code = f"""
import torch
torch.set_num_threads({torch.get_num_threads()})
from tests.episodes import ALWAYS_IDS, digest, play_lively, small_env, small_vec
print(digest([[play_lively(make(i), seed=5) for make in (small_env, small_vec)] for i in ALWAYS_IDS]))
"""
    episodes = [[play_lively(make(i), seed=5) for make in (small_env, small_vec)] for i in ALWAYS_IDS]
    assert run_python(code) == digest(episodes)


@pytest.mark.parametrize("env_id", IDS)
def test_later_episodes_follow_from_the_seed_too(env_id):
    one, other = small_env(env_id), small_env(env_id)
    one.reset(seed=5), other.reset(seed=5)
    other.step(lively_actions(np.random.default_rng(0), other)[0])  # however far the first one went
    later = [(digest(one.reset()), digest(other.reset())) for _ in range(3)]
    assert all(mine == yours for mine, yours in later)
    assert len(set(later)) == 3


@pytest.mark.parametrize("env_id", IDS)
def test_different_seeds_give_different_episodes(env_id):
    env = small_env(env_id)
    losses = [env.reset(seed=seed)[1]["train_loss"] for seed in range(20)]
    assert len(set(losses)) == 20


@pytest.mark.parametrize("env_id", IDS)
def test_environment_without_a_seed_is_random(env_id):
    assert len({small_env(env_id).reset()[1]["train_loss"] for _ in range(4)}) == 4


@pytest.mark.parametrize("env_id", IDS)
def test_vector_reproduces_itself_through_resets(env_id):
    episodes = [play_lively(small_vec(env_id), seed=5, num_steps=22) for _ in range(2)]
    assert digest(episodes[0]) == digest(episodes[1])


# ── what is global ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_nothing_global_is_touched(env_id):
    before = global_state()
    for env in (gym.make(env_id, render_mode="ansi", **SMALL), small_vec(env_id, render_mode="ansi")):
        shell = env.unwrapped
        play_lively(shell, num_steps=5)
        saved = shell.snapshot()
        play_lively(shell, num_steps=10)
        shell.restore(saved)
        shell.network(0)
        assert shell.render()
        assert shell.action_masks().any()
        env.close()
    assert global_state() == before


def test_nothing_global_is_touched_by_the_first_call_of_a_process():
    code = """
from tests.conftest import missing_data  # which settles the number of threads
from tests.envs.test_determinism import global_state
before = global_state()
import gymnasium as gym, kasmina_env, tests.episodes
for env_id in filter(lambda name: not missing_data(name), tests.episodes.IDS):
    tests.episodes.play_lively(tests.episodes.small_env(env_id, render_mode="ansi"), num_steps=2)
    assert global_state() == before, env_id
"""
    assert run_python(code) == ""


@pytest.mark.parametrize("env_id", IDS)
def test_random_states_of_the_caller_do_not_matter(env_id):
    first = digest(play_lively(small_env(env_id), seed=5))
    torch.rand(3), np.random.random(3), random.random()  # noqa: NPY002
    assert digest(play_lively(small_env(env_id), seed=5)) == first


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", IDS)
def test_modes_of_the_caller_do_not_matter(env_id, mode):
    env = small_env(env_id)
    expected = digest(play_lively(env, seed=5))
    with MODES[mode]():
        assert digest(play_lively(env, seed=5)) == expected
        made_here = small_env(env_id)
        assert digest(play_lively(made_here, seed=5)) == expected
    assert digest(play_lively(made_here, seed=5)) == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", IDS)
def test_snapshots_cross_the_modes_of_the_caller(env_id, mode):
    env, actions = small_env(env_id), [0, 1, 0, 0]
    play_lively(env, num_steps=5)
    saved = env.snapshot()
    expected = digest([env.step(action) for action in actions], env.network().state_dict())
    with MODES[mode]():
        env.restore(saved)
        inside = env.snapshot()
        assert digest([env.step(action) for action in actions], env.network().state_dict()) == expected
    env.restore(inside)
    assert digest([env.step(action) for action in actions], env.network().state_dict()) == expected


@pytest.mark.parametrize("env_id", IDS)
def test_nothing_is_kept_from_episodes_that_are_over(env_id):
    vec, num_objects = small_vec(env_id, num_envs=2, horizon=3), []
    for _ in range(3):
        play_lively(vec, num_steps=12)
        gc.collect()
        num_objects.append(len(gc.get_objects()))
    assert num_objects[2] - num_objects[1] < 100
