"""stable-baselines3: the checker, masks, monitors, normalisers and learning, on one population."""

from __future__ import annotations

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

pytest.importorskip("sb3_contrib")
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize

from kasmina_env.envs.sb3 import KasminaVecEnv
from tests.episodes import (
    FORMS,
    IDS,
    INFO_KEYS,
    SMALL,
    TERMINAL_KEYS,
    WAIT,
    dead_row,
    digest,
    in_form,
    is_plain,
    lively_actions,
    same_step_vec,
    small_env,
    small_settings,
    small_vec,
)

TINY = {"n_steps": 10, "batch_size": 20, "n_epochs": 1, "device": "cpu", "seed": 0}
OURS = ("test_accuracy", "committed_score", "is_success", "failure", "param_growth")


def sb3_env(env_id, num_envs=4, **settings):
    return KasminaVecEnv(small_vec(env_id, num_envs, **{"autoreset_mode": AutoresetMode.SAME_STEP, **settings}))


class Legality(BaseCallback):
    """Collects whether actions were legal."""

    def __init__(self):
        super().__init__()
        self.is_legal = []

    def _on_step(self):
        self.is_legal += [info["action_legal"] for info in self.locals["infos"]]
        return True


# ── the single environment ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("render_mode", [None, "ansi"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("env_id", IDS)
def test_checker_of_stable_baselines3_has_nothing_to_say(env_id, form, render_mode):
    check_env(gym.make(env_id, action_space=form, render_mode=render_mode).unwrapped)


@pytest.mark.parametrize("num_steps", [10, 2])
@pytest.mark.parametrize("env_id", IDS)
def test_monitor_finds_its_keywords_at_the_end_and_after_a_crash(env_id, num_steps):
    env = Monitor(small_env(env_id), info_keywords=OURS)
    env.reset(seed=0)
    for step in range(num_steps):
        if step == 1 and num_steps < 10:
            dead_row(env.unwrapped)
        *_, info = env.step(WAIT)
    assert info["episode"]["l"] == num_steps
    assert {key: info["episode"][key] for key in OURS} == {key: info[key] for key in OURS}


@pytest.mark.parametrize("env_id", IDS)
def test_monitors_find_their_keywords_where_a_limit_ends_the_episode(env_id, tmp_path):
    limited = {**small_settings(env_id), "max_episode_steps": 3, "dtype": "float64"}
    env, venv = Monitor(gym.make(env_id, **limited), info_keywords=OURS), sb3_env(env_id, 2, **limited)
    venv = VecMonitor(venv, str(tmp_path / "vector"), info_keywords=OURS)
    venv.seed(4), venv.reset(), env.reset(seed=5)
    for _ in range(3):
        *_, info = env.step(WAIT)
        *_, infos = venv.step([WAIT] * 2)
    assert infos[1]["TimeLimit.truncated"]
    assert infos[1]["episode"]["l"] == info["episode"]["l"] == 3
    for key in OURS:
        assert infos[1]["episode"][key] == pytest.approx(info["episode"][key], abs=1e-6)
    env.close(), venv.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("env_id", IDS)
def test_ordinary_ppo_runs_without_masks(env_id, form):
    model = PPO("MlpPolicy", DummyVecEnv([partial(small_env, env_id, action_space=form)] * 2), **TINY)
    assert model.learn(40).num_timesteps == 40


@pytest.mark.parametrize("form", FORMS)
def test_make_vec_env_by_id_is_maskable(form):
    venv = make_vec_env(IDS[0], n_envs=2, env_kwargs={**SMALL, "render_mode": None, "action_space": form})
    assert is_masking_supported(venv)
    MaskablePPO("MlpPolicy", venv, **TINY).learn(20)


def test_make_vec_env_by_id_needs_no_arguments():
    make_vec_env(IDS[0], n_envs=1)


@pytest.mark.slow  # each worker imports torch
@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
@pytest.mark.parametrize("env_id", IDS)
def test_subprocesses_give_the_same_episodes(env_id, start_method):
    makers = [partial(gym.make, f"kasmina_env:{env_id}", **SMALL)] * 2
    workers, alone = SubprocVecEnv(makers, start_method=start_method), DummyVecEnv(makers)
    workers.seed(3), alone.seed(3)
    assert np.array_equal(workers.reset(), alone.reset())
    for action in range(12):
        for mine, theirs in zip(workers.step([WAIT, action])[:3], alone.step([WAIT, action])[:3], strict=True):
            assert np.array_equal(mine.astype(np.float32), theirs.astype(np.float32))
    assert np.array_equal(workers.env_method("action_masks"), alone.env_method("action_masks"))
    workers.close()


# ── the vector environment as a VecEnv ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_steps_are_those_of_the_vector_environment(env_id):
    venv, vec, rng = sb3_env(env_id), same_step_vec(env_id), np.random.default_rng(0)
    venv.seed(5)
    obs, _ = vec.reset(seed=5)
    assert np.array_equal(venv.reset(), obs)
    assert [info["step"] for info in venv.reset_infos] == [0] * 4
    for _ in range(12):
        actions = lively_actions(rng, vec)
        mine, (obs, rewards, terminated, _, infos) = venv.step(actions), vec.step(actions)
        assert np.array_equal(mine[0], obs)
        assert np.array_equal(mine[1], rewards.astype(np.float32))
        assert mine[1].dtype == np.float32
        assert mine[2].tolist() == terminated.tolist()
        scores = infos["final_info"]["score"] if terminated.any() else infos["score"]
        assert [info["score"] for info in mine[3]] == scores.tolist()


def test_each_row_may_be_given_its_own_seed():
    one, each = sb3_env(IDS[0]), sb3_env(IDS[0])
    one.seed(5)
    each.seed([6, 5, 6, 8])
    first, own = one.reset(), each.reset()
    assert np.array_equal(own[[1, 0, 3]], first[[0, 1, 3]])
    assert np.array_equal(own[2], own[0])
    with pytest.raises(ValueError, match=r"`seed` must be one number or 4, got 3\. Give each row one\."):
        each.seed([1, 2, 3])


@pytest.mark.parametrize("env_id", IDS)
def test_infos_are_plain_and_complete(env_id):
    venv = sb3_env(env_id)
    venv.reset()
    assert [set(info) for info in venv.reset_infos] == [INFO_KEYS] * 4
    for step in range(1, 11):
        infos = venv.step([WAIT] * 4)[3]
        extras = TERMINAL_KEYS | {"terminal_observation", "TimeLimit.truncated"} if step == 10 else set()
        assert [set(info) for info in infos] == [INFO_KEYS | extras] * 4
        assert all(is_plain({k: v for k, v in info.items() if k != "terminal_observation"}) for info in infos)


@pytest.mark.parametrize("env_id", IDS)
def test_terminal_observation_is_the_last_one_and_not_the_first_of_the_next(env_id):
    venv, off = sb3_env(env_id), small_vec(env_id, autoreset_mode=AutoresetMode.DISABLED)
    venv.seed(2), venv.reset(), off.reset(seed=2)
    for _ in range(10):
        obs, _, dones, infos = venv.step([WAIT] * 4)
        last = off.step([WAIT] * 4)[0]
    assert dones.all()
    assert np.array_equal([info["terminal_observation"] for info in infos], last)
    assert not np.array_equal(obs, last)


@pytest.mark.parametrize("limit, is_truncated", [(4, True), (10, False), (None, False)])
def test_only_a_time_limit_is_marked_as_truncation(limit, is_truncated):
    venv = sb3_env(IDS[0], max_episode_steps=limit)
    venv.reset()
    for _ in range(limit or 10):
        _, _, dones, infos = venv.step([WAIT] * 4)
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [is_truncated] * 4
    assert all(set(info) >= TERMINAL_KEYS for info in infos)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("env_id", IDS)
def test_masks_and_attributes_answer_for_every_row(env_id, form):
    venv = sb3_env(env_id, action_space=form)
    venv.reset()
    venv.step(in_form(venv.env, lively_actions(np.random.default_rng(0), venv.env)))
    masks = venv.env.action_masks()
    assert venv.has_attr("action_masks")
    assert is_masking_supported(venv)
    assert np.array_equal(get_action_masks(venv), masks)
    assert np.array_equal(venv.env_method("action_masks", indices=[2, 0]), masks[[2, 0]])
    assert venv.get_attr("render_mode") == [None] * 4
    assert venv.get_attr("action_names", indices=1) == [venv.env.action_names]
    assert [type(network).__name__ for network in venv.env_method("network", committed=True)] == ["GrownNetwork"] * 4
    assert venv.env_is_wrapped(Monitor) == [False] * 4


def test_what_is_not_there_is_an_attribute_error():
    venv = sb3_env(IDS[0])
    assert not venv.has_attr("no_such_thing")
    with pytest.raises(AttributeError):
        venv.get_attr("no_such_thing")
    with pytest.raises(AttributeError, match=r"^`horizon` must not be set through a VecEnv"):
        venv.set_attr("horizon", 3)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused_in_one_sentence(mode):
    with pytest.raises(
        ValueError, match=r"^`env` must reset in the same step, got .*\. Use AutoresetMode.SAME_STEP\.$"
    ):
        sb3_env(IDS[0], autoreset_mode=mode)


def test_anything_but_the_vector_environment_is_refused():
    for env in (small_env(IDS[0]), gym.make_vec(IDS[0], num_envs=2, vectorization_mode="sync", **SMALL)):
        with pytest.raises(ValueError, match=r"^`env` must be an unwrapped KasminaVectorEnv, got"):
            KasminaVecEnv(env)


# ── learning ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("env_id", IDS)
def test_maskable_ppo_learns_with_monitor_and_normaliser_and_uses_masks(env_id, form):
    venv = VecNormalize(VecMonitor(sb3_env(env_id, action_space=form), info_keywords=OURS))
    model, legality = MaskablePPO("MlpPolicy", venv, **TINY), Legality()
    model.learn(120, callback=legality)
    assert len(legality.is_legal) == 120
    if form == "flat":  # the factored form can mask only each head by itself
        assert all(legality.is_legal)
    assert [episode["l"] for episode in model.ep_info_buffer] == [10] * 12
    assert set(OURS) <= set(model.ep_info_buffer[0])


@pytest.mark.parametrize("env_id", IDS)
def test_learning_resumes_from_what_was_saved(env_id, tmp_path):
    venv = VecNormalize(VecMonitor(sb3_env(env_id)))
    model = MaskablePPO("MlpPolicy", venv, **TINY).learn(80)
    model.save(tmp_path / "model.zip")
    venv.save(tmp_path / "normaliser.pkl")
    resumed = VecNormalize.load(tmp_path / "normaliser.pkl", VecMonitor(sb3_env(env_id)))
    again = MaskablePPO.load(tmp_path / "model.zip", env=resumed, device="cpu")
    assert digest(again.policy.state_dict()) == digest(model.policy.state_dict())
    assert again.learn(40, reset_num_timesteps=False).num_timesteps == 120
    assert digest(again.policy.state_dict()) != digest(model.policy.state_dict())


@pytest.mark.parametrize("env_id", IDS)
def test_learning_twice_with_a_seed_gives_the_same_policy(env_id):
    policies = [MaskablePPO("MlpPolicy", sb3_env(env_id), **TINY).learn(80).policy for _ in range(2)]
    assert digest(policies[0].state_dict()) == digest(policies[1].state_dict())


@pytest.mark.parametrize("env_id", IDS)
def test_masked_evaluation_runs_on_the_population(env_id):
    venv = VecMonitor(sb3_env(env_id))
    model = MaskablePPO("MlpPolicy", venv, **TINY)
    rewards, lengths = evaluate_policy(model, venv, n_eval_episodes=8, return_episode_rewards=True)
    assert lengths == [10] * 8
    assert len(set(rewards)) > 1


# ── options, pictures, methods ──────────────────────────────────────────────────────────────────


def test_options_set_before_a_reset_are_those_of_the_next_episodes():
    venv = sb3_env("Kasmina/DigitsMix-v0", num_envs=3)
    venv.set_options({"split": "test", "instance": 200})
    venv.reset()
    assert venv.env.episodes.state().instance.tolist() == [200] * 3
    venv.set_options([{"instance": 1}, {"instance": 2}, {}])
    venv.reset()
    assert venv.env.episodes.state().instance.tolist()[:2] == [1, 2]
    venv.set_options([{"split": "test"}, {"split": "train"}, {}])
    with pytest.raises(ValueError, match=r"`options` must have one 'split' for all rows"):
        venv.reset()


@pytest.mark.needs("matplotlib")
def test_pictures_of_all_rows_are_rendered_as_one():
    venv = sb3_env("Kasmina/Spirals-v0", num_envs=2, render_mode="rgb_array")
    venv.reset()
    height, width, _ = venv.get_images()[0].shape
    assert venv.render().size == 2 * 3 * height * width
    assert sb3_env("Kasmina/Spirals-v0").get_images() == [None] * 4


def test_methods_of_the_whole_vector_give_every_row_what_they_return():
    venv = sb3_env("Kasmina/Spirals-v0")
    venv.reset()
    assert venv.env_method("copy_rows", [0, 1], [2, 3]) == [None] * 4
    assert len(venv.env_method("snapshot", indices=[1])) == 1
    assert np.array_equal(venv.env_method("action_masks", indices=[2])[0], venv.env.action_masks()[2])


def test_infos_of_resets_are_those_of_the_latest_ones():
    venv = sb3_env("Kasmina/Spirals-v0")
    venv.reset()
    first = [info["score"] for info in venv.reset_infos]
    for _ in range(SMALL["horizon"]):
        *_, infos = venv.step(np.zeros(4, dtype=np.int64))
    assert "terminal_observation" in infos[0]
    assert [info["step"] for info in venv.reset_infos] == [0] * 4
    assert [info["score"] for info in venv.reset_infos] != first
