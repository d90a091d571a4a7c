"""Rows of a group play the same episodes, and are measured against each other."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor

from kasmina_env import KasminaVecEnv
from kasmina_env.learning.group_baseline import Paired
from kasmina_env.learning.learner import learner_state, make_learner, set_learner_state
from kasmina_env.learning.time_spent import Clock
from kasmina_env.learning.train import train
from kasmina_env.learning.training_config import TrainingConfig
from tests.episodes import dead_row

MIX = "Kasmina/DigitsMix-v0"
SMALL = {"horizon": 4, "batches_per_step": 1, "batch_size": 4, "watch_samples": 8, "score_samples": 8}


BATCH = {"batch_size": 8}


def paired(num_envs=6, size=3, each_step=False):
    return Paired(VecMonitor(KasminaVecEnv(MIX, num_envs, warmup_batches=1, **SMALL)), size, each_step)


def grow(env, rows):
    """WAIT, but in some rows the first seed there is."""
    return np.where(np.isin(np.arange(env.num_envs), rows), 1, 0)


def play(env, rows):
    """One episode; rewards ``[T, N]``, true returns ``[N]``, and the last infos."""
    env.step_async(grow(env, rows))
    steps = [env.step_wait()]
    steps += [env.step(np.zeros(env.num_envs, dtype=np.int64)) for _ in range(SMALL["horizon"] - 1)]
    return np.stack([step[1] for step in steps]), np.array([i["episode"]["r"] for i in steps[-1][3]]), steps[-1][3]


def test_rows_of_a_group_have_the_same_episodes_one_after_the_other():
    env = paired()
    env.seed(5)
    seen = [env.reset()]
    for _ in range(3):
        _, returns, infos = play(env, [])
        seen.append(np.array([info["instance"] for info in infos]))
        assert returns[0] == pytest.approx(returns[1]) == pytest.approx(returns[2]) != pytest.approx(returns[3])
    assert np.allclose(seen[0][:3], seen[0][0], atol=1e-5)
    for instances in seen[1:]:
        assert len(set(instances[:3])) == len(set(instances[3:])) == 1
    assert len({tuple(instances) for instances in seen[1:]}) > 1


def test_rows_that_are_out_of_step_are_so_again_after_an_interruption():
    config = TrainingConfig(MIX, num_envs=4, group=2, group_each_step=True, settings=SMALL, hyperparameters=BATCH)
    with ExitStack() as stack:
        learner, again = (make_learner(config, 1, Clock()) for _ in range(2))
        for each in (learner, again):
            stack.callback(each.close)
            each.model.set_logger(configure(format_strings=[]))
        learner.monitor.episode_lengths, learner.paired.steps = np.array([3, 1, 0, 2]), np.array([3, 1, 0, 2])
        set_learner_state(again, learner_state(learner))
    assert again.paired.steps.tolist() == [3, 1, 0, 2]
    assert again.paired.steps is not again.monitor.episode_lengths


def test_the_last_reward_is_relative_to_what_the_others_earned():
    env = paired()
    env.seed(0)
    env.reset()
    for _ in range(2):
        rewards, returns, _ = play(env, [1, 3, 4])
        others = [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]]
        wanted = [returns[row] - returns[rest].mean() for row, rest in enumerate(others)]
        assert rewards.sum(axis=0) == pytest.approx(wanted, abs=1e-5)
        assert abs(rewards.sum(axis=0)).max() > 1e-3
        assert rewards.sum() == pytest.approx(0, abs=1e-5)


def test_each_reward_is_relative_to_what_the_others_earned_in_that_step():
    env = paired(each_step=True)
    plain = VecMonitor(KasminaVecEnv(MIX, 6, warmup_batches=1, **SMALL))
    env.seed(0), env.reset(), plain.seed([0, 0, 0, 1, 1, 1]), plain.reset()
    relative, rewards = play(env, [1, 3, 4])[0], play(plain, [1, 3, 4])[0]
    others = [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]]
    wanted = np.stack([rewards[:, row] - rewards[:, rest].mean(axis=1) for row, rest in enumerate(others)], axis=1)
    assert relative == pytest.approx(wanted, abs=1e-5)


def test_an_episode_that_ends_alone_is_measured_against_nothing():
    env = paired()
    env.seed(0)
    env.reset()
    dead_row(env.unwrapped.env, 1)
    _, rewards, dones, infos = env.step(np.zeros(6, dtype=np.int64))
    assert dones.tolist() == [False, True, False, False, False, False]
    assert rewards[1] == pytest.approx(infos[1]["episode"]["r"], abs=1e-5)


def test_a_group_must_divide_the_networks():
    with pytest.raises(ValueError, match="`group` must divide the 6 networks, got 4"):
        paired(size=4)


def test_an_algorithm_with_a_buffer_learns_in_no_groups(tmp_path):
    with pytest.raises(ValueError, match="`group` must be 1 for dqn"):
        train(TrainingConfig(MIX, "dqn", total_steps=16, num_envs=4, group=2, settings=SMALL), tmp_path / "run")


def test_a_config_trains_in_groups(tmp_path):
    config = TrainingConfig(
        MIX, total_steps=32, num_envs=4, group=2, settings=SMALL, hyperparameters={"batch_size": 16}
    )
    assert train(config, tmp_path / "run").num_timesteps == 32
