"""A Minari dataset holds the episodes that the policy plays in the plain loop."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from kasmina_env.comparison.players import Source, find_player
from tests.cli.running import complaint, said
from tests.episodes import SMALL

minari = pytest.importorskip("minari", reason="minari is not installed: pip install 'kasmina-env[minari]'")
pytest.importorskip("h5py", reason="h5py is not installed: pip install 'kasmina-env[minari]'")

SPIRALS = "Kasmina/Spirals-v0"
NAME = "kasmina/spirals/test-v0"


@pytest.fixture(autouse=True)
def datasets(tmp_path, monkeypatch):
    """Datasets of a test lie in a folder of its own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def record(policy, num_episodes=5, **settings):
    from kasmina_env.comparison.minari_dataset import record_dataset

    source = Source(policy, SPIRALS, settings)
    record_dataset(NAME, source, num_episodes, first_seed=7, num_envs=3, author="me")
    return minari.load_dataset(NAME), find_player(policy, SPIRALS, **settings)


@pytest.mark.parametrize("policy", ["random", "static_final"])
def test_episodes_are_those_of_the_plain_loop(policy):
    dataset, player = record(policy)
    env = dataset.recover_environment()
    for number, episode in enumerate(dataset.iterate_episodes()):
        options = None if player.planted is None else {"planted": player.planted}
        observation, info = env.reset(seed=7 + number, options=options)
        player.policy.begin(np.array([7 + number]), env.unwrapped.episodes)
        for step, action in enumerate(episode.actions):
            assert np.allclose(episode.observations[step], observation, atol=1e-4)
            assert np.array_equal(episode.infos["action_mask"][step], info["action_mask"])
            assert action == player.policy.act(observation[None], info["action_mask"][None] > 0)[0]
            observation, reward, terminated, _, info = env.step(action)
            assert np.isclose(episode.rewards[step], reward, atol=1e-5)
            assert episode.terminations[step] == terminated
        assert terminated
        assert np.allclose(episode.observations[-1], observation, atol=1e-4)
        assert np.isclose(episode.infos["score"][-1], info["committed_score"], atol=1e-5)


def test_the_environment_that_is_recovered_has_the_settings_that_were_played():
    dataset, player = record("wait", num_episodes=2, **SMALL)
    env = dataset.recover_environment()
    assert env.unwrapped.problem.config == player.problem.config
    assert env.observation_space == dataset.observation_space
    assert isinstance(env.action_space, gym.spaces.Discrete)
    assert dataset.storage.metadata["author"] == {"me"}


def test_the_command_records_once_and_says_how_to_load(capsys):
    words = ("record", SPIRALS, "--policy", "wait", "--episodes", "2", "-o", NAME)
    assert f"2 episodes, 48 steps: minari.load_dataset('{NAME}')" in said(capsys, *words)
    assert f"`dataset_id` must be new, got '{NAME}', which exists." in complaint(capsys, *words)
    assert "`dataset_id` must be like" in complaint(capsys, *words[:-1], "not an id")
