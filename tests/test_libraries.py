"""RL libraries learn here, and what they see of episodes is what the plain loop of Gymnasium sees."""

from __future__ import annotations

from itertools import count, pairwise
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.test_agents import ID, load

SHORT = {"horizon": 6, "batches_per_step": 1, "watch_samples": 16, "score_samples": 16}
LIBRARIES = {"rllib_ppo": "ray.rllib", "torchrl_ppo": "torchrl", "tianshou_ppo": "tianshou"}
SEED = 3


class Seen(NamedTuple):
    """An episode as a library saw it, of T steps."""

    actions: NDArray[np.int64]  # [T]
    rewards: NDArray[np.float64]  # [T]
    masks: NDArray[np.int8]  # [T, A] before each action


def agent(name):
    """An agent, or a skip that says what is missing."""
    extra = name.removesuffix("_ppo")
    pytest.importorskip(LIBRARIES[name], reason=f"{extra} is not installed: pip install 'kasmina-env[{extra}]'")
    return load(name)


@pytest.fixture
def ray():
    """Ray on this machine, for one test."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'kasmina-env[rllib]'")
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def assert_plain(seed, episodes, num_resets=1):
    """Compare successive episodes of one row with the plain loop, which takes the same actions.

    Args:
        seed: Seed of the first reset.
        episodes: What a library saw of the row.
        num_resets: Number of resets before the first of these episodes.
    """
    env = gym.make(ID, **SHORT)
    for _ in range(num_resets - 1):
        env.reset(seed=seed)
        seed = None
    for seen in episodes:
        _, info = env.reset(seed=seed)
        seed = None
        for step in count():
            assert np.array_equal(seen.masks[step], info["action_mask"])
            assert info["action_mask"][seen.actions[step]]
            _, reward, terminated, _, info = env.step(seen.actions[step])
            assert np.isclose(seen.rewards[step], reward, atol=1e-5)
            if terminated:
                break
        assert len(seen.actions) == step + 1
    assert len(episodes) > 1


def rows_of(actions, rewards, masks, dones):
    """Episodes of each row, from arrays ``[N, T, ...]`` of steps."""
    for row, done in enumerate(np.asarray(dones)):
        parts = [slice(start, stop) for start, stop in pairwise([0, *(np.flatnonzero(done) + 1)])]
        yield [Seen(*(np.asarray(column)[row][part] for column in (actions, rewards, masks))) for part in parts]


# ── RLlib ───────────────────────────────────────────────────────────────────────────────────────


def test_rllib_learns(ray):
    algorithm, mean_return = agent("rllib_ppo").train(ID, 240, num_envs=4, seed=SEED, **SHORT)
    assert np.isfinite(mean_return)
    algorithm.stop()


def test_rllib_sees_the_episodes_of_the_plain_loop():
    rllib = agent("rllib_ppo")
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    runner = SingleAgentEnvRunner(config=rllib.configure(ID, num_envs=4, seed=SEED, **SHORT))
    batches = [runner.sample() for _ in range(3)]
    assert [[len(episode) for episode in batch] for batch in batches] == [[SHORT["horizon"]] * 4] * 3
    for row in range(4):
        episodes = [batch[row] for batch in batches]
        masks = [episode.get_observations()["action_mask"] for episode in episodes]
        seen = [Seen(e.get_actions(), e.get_rewards(), mask) for e, mask in zip(episodes, masks, strict=True)]
        assert_plain(SEED + row, seen)


# ── TorchRL ─────────────────────────────────────────────────────────────────────────────────────


def test_torchrl_learns_in_episodes_of_the_plain_loop():
    torchrl = agent("torchrl_ppo")
    actor, mean_return = torchrl.train(ID, 240, num_envs=4, seed=SEED, **SHORT)
    assert np.isfinite(mean_return)
    env = torchrl.make_env(ID, 3, **SHORT)
    steps = env.rollout(18, actor, auto_reset=False, tensordict=env.reset(seed=SEED), break_when_any_done=False)
    masks, rewards, dones = steps["action_mask"], steps["next", "reward"][..., 0], steps["next", "done"][..., 0]
    for row, episodes in enumerate(rows_of(steps["action"], rewards, masks, dones)):
        assert [len(episode.actions) for episode in episodes] == [SHORT["horizon"]] * 3
        assert_plain(SEED + row, episodes)


def test_random_actions_of_torchrl_in_a_single_environment_are_legal():
    agent("torchrl_ppo")
    from torchrl.envs import ActionMask, GymEnv, TransformedEnv

    single = GymEnv(ID, observation="dict", categorical_action_encoding=True, **SHORT)
    env = TransformedEnv(single, ActionMask())
    steps = env.rollout(18, auto_reset=False, tensordict=env.reset(seed=SEED), break_when_any_done=False)
    columns = (steps["action"], steps["next", "reward"][:, 0], steps["action_mask"], steps["next", "done"][:, 0])
    (episodes,) = rows_of(*(column[None] for column in columns))
    assert_plain(SEED, episodes)


# ── Tianshou ────────────────────────────────────────────────────────────────────────────────────


def test_tianshou_learns_and_sees_the_episodes_of_the_plain_loop():
    tianshou = agent("tianshou_ppo")
    from tianshou.data import Collector, VectorReplayBuffer

    _, mean_return = tianshou.train(ID, 240, num_envs=4, seed=SEED, **SHORT)
    assert np.isfinite(mean_return)
    algorithm, made = tianshou.make(ID, 3, SEED, **SHORT)
    collector = Collector(algorithm, made.env, VectorReplayBuffer(36, 3))
    found = collector.collect(n_episode=6, reset_before_collect=True)
    assert found.lens.tolist() == [SHORT["horizon"]] * 6
    steps = collector.buffer[:]
    by_row = (x.reshape(3, 12, *x.shape[1:]) for x in (steps.act, steps.rew, steps.obs.action_mask, steps.done))
    for row, episodes in enumerate(rows_of(*by_row)):
        assert_plain(SEED + row, episodes, num_resets=2)
