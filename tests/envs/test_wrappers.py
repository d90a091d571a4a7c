"""Gymnasium's own wrappers work on the native vector: all that accept a Box and a Discrete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RecordVideo, vector

from kasmina_env.envs.render import RENDER_FPS
from tests.episodes import WAIT, small_env, small_vec

SPIRALS = "Kasmina/Spirals-v0"
WAITING = np.full(3, WAIT)


@dataclass(frozen=True)
class Case:
    """A wrapper, and what it makes of observations and rewards; None where that depends on what came before."""

    wrap: Callable[[gym.vector.VectorEnv], Any]
    observe: Callable[[Any], Any] | None = lambda seen: seen
    reward: Callable[[Any], Any] | None = lambda reward: reward
    action: int = WAIT


def rescaled(seen):
    """Observations whose bounds are -1 and 1."""
    space = small_vec(SPIRALS, 1).single_observation_space
    return 2 * (seen - space.low) / (space.high - space.low) - 1


CASES = {
    "ClipReward": Case(lambda env: vector.ClipReward(env, -0.01, 0.01), reward=lambda r: np.clip(r, -0.01, 0.01)),
    "DictInfoToList": Case(vector.DictInfoToList),
    "DtypeObservation": Case(
        lambda env: vector.DtypeObservation(env, np.float16), observe=lambda seen: seen.astype(np.float16)
    ),
    "FlattenObservation": Case(vector.FlattenObservation),
    "NormalizeObservation": Case(vector.NormalizeObservation, observe=None),
    "NormalizeReward": Case(vector.NormalizeReward, reward=None),
    "RecordEpisodeStatistics": Case(vector.RecordEpisodeStatistics),
    "RescaleObservation": Case(lambda env: vector.RescaleObservation(env, -1.0, 1.0), observe=rescaled),
    "ReshapeObservation": Case(
        lambda env: vector.ReshapeObservation(env, (2, env.single_observation_space.shape[0] // 2)),
        observe=lambda seen: seen.reshape(3, 2, -1),
    ),
    "TransformAction": Case(lambda env: vector.TransformAction(env, lambda actions: actions * 0), action=1),
    "TransformObservation": Case(
        lambda env: vector.TransformObservation(env, lambda seen: 0.5 * seen), observe=lambda seen: 0.5 * seen
    ),
    "TransformReward": Case(lambda env: vector.TransformReward(env, lambda r: 2 * r), reward=lambda r: 2 * r),
    "VectorizeTransformAction": Case(
        lambda env: vector.VectorizeTransformAction(
            env, gym.wrappers.TransformAction, func=lambda a: 0 * a, action_space=None
        ),
        action=1,
    ),
    "VectorizeTransformObservation": Case(
        lambda env: vector.VectorizeTransformObservation(
            env, gym.wrappers.TransformObservation, func=lambda seen: 0.5 * seen, observation_space=None
        ),
        observe=lambda seen: 0.5 * seen,
    ),
    "VectorizeTransformReward": Case(
        lambda env: vector.VectorizeTransformReward(env, gym.wrappers.TransformReward, func=lambda r: 2 * r),
        reward=lambda r: 2 * r,
    ),
}
ELSEWHERE = {
    *("GrayscaleObservation", "ResizeObservation", "ClipAction", "RescaleAction"),  # pictures, actions in a Box
    *("HumanRendering", "JaxToNumpy", "JaxToTorch", "ArrayConversion"),  # a window, environments of another library
    *("FilterObservation", "NumpyToTorch", "RecordVideo"),  # below
}


def test_every_wrapper_of_gymnasium_has_a_case():
    assert set(CASES) | ELSEWHERE == set(vector.__all__)


@pytest.mark.filterwarnings("ignore:.*precision lowered")  # Gymnasium computes bounds in float64
@pytest.mark.parametrize("name", CASES)
def test_a_wrapper_shows_the_episodes_it_wraps(name):
    case, plain = CASES[name], small_vec(SPIRALS, 3)
    wrapped = case.wrap(small_vec(SPIRALS, 3))
    expected, found = plain.reset(seed=0)[0], wrapped.reset(seed=0)[0]
    for _ in range(12):  # an episode, the reset, and the beginning of another
        assert np.shape(found) == wrapped.observation_space.shape
        if case.observe is not None:
            assert np.allclose(found, case.observe(expected), atol=1e-6)
        expected, reward, terminated, _, _ = plain.step(WAITING)
        found, wrapped_reward, wrapped_terminated, _, _ = wrapped.step(np.full(3, case.action))
        assert np.array_equal(wrapped_terminated, terminated)
        if case.reward is not None:
            assert np.allclose(wrapped_reward, case.reward(reward), atol=1e-6)


def test_the_observation_can_be_filtered_out_of_the_dictionary():
    wrapped = vector.FilterObservation(small_vec(SPIRALS, 3, observation="dict"), ["observations"])
    seen, _ = wrapped.reset(seed=0)
    assert list(seen) == ["observations"]
    assert np.array_equal(seen["observations"], small_vec(SPIRALS, 3).reset(seed=0)[0])


@pytest.mark.parametrize("num_envs", [None, 3])
def test_numpy_to_torch_shows_the_same_numbers_as_tensors(num_envs):
    pytest.importorskip("array_api_compat", reason="array_api_compat is not installed: pip install 'gymnasium[torch]'")
    make = small_env if num_envs is None else small_vec
    wrappers = gym.wrappers if num_envs is None else vector
    plain, wrapped = make(SPIRALS), wrappers.NumpyToTorch(make(SPIRALS))
    pairs = [(plain.reset(seed=0), wrapped.reset(seed=0))]
    action = 0 if num_envs is None else np.zeros(4, dtype=np.int64)
    pairs += [(plain.step(action), wrapped.step(torch.as_tensor(action))) for _ in range(10)]
    for expected, found in pairs:
        assert torch.equal(found[0], torch.from_numpy(expected[0]))
        assert torch.equal(found[-1]["action_mask"], torch.from_numpy(expected[-1]["action_mask"]))


def test_videos_have_the_frames_per_second_of_the_environment(tmp_path):
    pytest.importorskip("moviepy", reason="moviepy is not installed: pip install 'gymnasium[other]'")
    recorder = RecordVideo(small_env(SPIRALS, render_mode="rgb_array", horizon=3), str(tmp_path / "new"))
    recorder.reset(seed=0)
    for _ in range(3):
        recorder.step(WAIT)
    recorder.close()
    from moviepy.video.io.VideoFileClip import VideoFileClip

    (path,) = tmp_path.rglob("*.mp4")
    with VideoFileClip(str(path)) as video:
        assert video.fps == RENDER_FPS
