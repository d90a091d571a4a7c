"""The vector environment: row by row the single one, in all three autoreset modes."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from kasmina_env import KasminaVectorEnv
from tests.episodes import (
    FORMS,
    IDS,
    NON_FINITE,
    SMALL,
    TERMINAL_KEYS,
    WAIT,
    assert_close,
    dead_row,
    digest,
    in_form,
    mixed_actions,
    play,
    play_lively,
    same_step_vec,
    small_env,
    small_settings,
    small_vec,
)

SAME_STEP, NEXT_STEP, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED
WAITING = [WAIT] * 3


def staggered(env_id, mode, num_steps=4):
    """Three rows, the middle one of which ends earlier than the others: its network has died in the last step."""
    vec = small_vec(env_id, num_envs=3, autoreset_mode=mode)
    vec.reset(seed=0)
    play(vec, [WAITING] * (num_steps - 1))
    dead_row(vec, 1)
    return vec, vec.step(WAITING)


# ── the same as the single environment ──────────────────────────────────────────────────────────


def row_info(infos, row):
    """The info of one row, without masks."""
    return {key: value[row] for key, value in infos.items() if not key.startswith("_") and key != "reward_terms"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("env_id", IDS)
def test_row_follows_the_single_environment_of_its_seed(env_id, form):
    settings = {"action_space": form, "dtype": "float64"}
    vec, rng = small_vec(env_id, num_envs=3, **settings), np.random.default_rng(0)
    singles = [small_env(env_id, **settings) for _ in range(3)]
    firsts, seen = [env.reset(seed=7 + i) for i, env in enumerate(singles)], vec.reset(seed=7)
    for _ in range(10):
        for row, (env, first) in enumerate(zip(singles, firsts, strict=True)):
            assert np.array_equal(vec.action_masks()[row], env.action_masks())
            assert digest(vec.episodes.state().lifecycle.stage[row]) == digest(env.episodes.state().lifecycle.stage[0])
            assert_close(row_info(seen[-1], row), {k: v for k, v in first[-1].items() if k != "reward_terms"})
            assert np.allclose(seen[0][row], first[0], atol=1e-6)
        actions = in_form(vec, mixed_actions(rng, vec))
        seen = vec.step(actions)
        firsts = [env.step(action) for env, action in zip(singles, actions, strict=True)]
    assert seen[2].all()
    assert all(first[2] for first in firsts)


@pytest.mark.parametrize("env_id", IDS)
def test_last_step_is_that_of_the_single_environment_too(env_id):
    vec, env = same_step_vec(env_id, num_envs=2, dtype="float64"), small_env(env_id, dtype="float64")
    steps = play_lively(vec, seed=5)
    env.reset(seed=5)
    infos = steps[-1][4]
    alone = play(env, infos["final_info"]["actions"][0])[-1]
    assert np.allclose(infos["final_obs"][0], alone[0], atol=1e-6)
    assert row_info(infos["final_info"], 0).keys() == alone[4].keys() - {"reward_terms"}
    assert_close(row_info(infos["final_info"], 0), {k: v for k, v in alone[4].items() if k != "reward_terms"})


@pytest.mark.parametrize("env_id", IDS)
def test_integer_seed_gives_each_row_its_own(env_id):
    vec = small_vec(env_id, num_envs=3)
    by_integer = vec.reset(seed=11)[0].copy()
    assert len({row.tobytes() for row in by_integer}) == 3
    assert np.array_equal(vec.reset(seed=[11, 12, 13])[0], by_integer)
    assert np.array_equal(vec.reset(seed=12)[0][:2], by_integer[1:])


@pytest.mark.parametrize("seed", [[1, 2], [1, 2, 3, 4]])
def test_list_of_seeds_of_another_length_is_refused(seed):
    with pytest.raises(ValueError, match=r"^`seed` must be .*3"):
        small_vec(IDS[0], num_envs=3).reset(seed=seed)


def test_rows_without_a_seed_are_random():
    first, second = (small_vec(IDS[0], num_envs=2).reset(seed=[None, 3])[0] for _ in range(2))
    assert not np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    unseeded, other = (small_vec(IDS[0], num_envs=2).reset()[0] for _ in range(2))
    assert len({row.tobytes() for row in (*unseeded, *other)}) == 4


# ── autoreset ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env_id", IDS)
def test_a_time_limit_is_not_termination(env_id, mode):
    vec = small_vec(env_id, num_envs=3, max_episode_steps=4, autoreset_mode=mode)
    vec.reset(seed=0)
    steps = play(vec, [WAITING] * 4)
    assert not any(step[2].any() for step in steps)
    assert [step[3].all() for step in steps] == [False, False, False, True]
    vec = small_vec(env_id, num_envs=3, max_episode_steps=10, autoreset_mode=mode)
    *_, last = play_lively(vec)
    assert (last[2].all(), last[3].any()) == (True, False)  # the horizon comes first


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env_id", IDS)
def test_rows_cut_off_by_a_time_limit_tell_the_end_of_their_episodes(env_id, mode):
    vec = small_vec(env_id, num_envs=3, max_episode_steps=4, autoreset_mode=mode, dtype="float64")
    env = gym.make(env_id, max_episode_steps=4, **{**small_settings(env_id), "dtype": "float64"})
    vec.reset(seed=0), env.reset(seed=2)
    play(vec, [WAITING] * 3)
    dead_row(vec, 0)  # which ends by itself
    *_, truncated, infos = vec.step(WAITING)
    last, alone = infos.get("final_info", infos), play(env, [WAIT] * 4)[-1][4]
    assert truncated.tolist() == [False, True, True]
    assert all(last[f"_{key}"].all() for key in TERMINAL_KEYS)
    assert_close({key: last[key][2] for key in TERMINAL_KEYS}, {key: alone[key] for key in TERMINAL_KEYS})


@pytest.mark.parametrize("env_id", IDS)
def test_the_last_observation_survives_the_reset(env_id):
    vec, (obs, _, terminated, _, infos) = staggered(env_id, SAME_STEP)
    last = staggered(env_id, DISABLED)[1][0]
    assert terminated.tolist() == infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [False, True, False]
    assert np.array_equal(infos["final_obs"][1], last[1])
    assert [infos["final_obs"][row] for row in (0, 2)] == [None, None]
    assert infos["final_info"]["failure"][1] == NON_FINITE
    assert (infos["final_info"]["step"][1], infos["step"].tolist()) == (4, [4, 0, 4])
    assert obs[1, vec.observation_names.index("progress")] == 0


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env_id", IDS)
def test_rows_that_do_not_reset_go_on(env_id, mode):
    vec, _ = staggered(env_id, mode)
    if mode is DISABLED:
        vec.reset(options={"reset_mask": np.array([False, True, False])})
    plain = small_vec(env_id, num_envs=3)
    plain.reset(seed=0)
    play(plain, [WAITING] * 4)
    for step, other in zip(play(vec, [WAITING] * 5), play(plain, [WAITING] * 5), strict=True):
        assert step[4]["step"][[0, 2]].tolist() == other[4]["step"][[0, 2]].tolist()
        assert np.array_equal(step[0][[0, 2]], other[0][[0, 2]])
        assert np.array_equal(step[1][[0, 2]], other[1][[0, 2]])


@pytest.mark.parametrize("env_id", IDS)
def test_next_step_gives_the_new_episode_with_reward_zero_and_ignores_the_action(env_id):
    vec, (obs, _, terminated, _, infos) = staggered(env_id, NEXT_STEP)
    assert (terminated[1], infos["step"][1], infos["failure"][1]) == (True, 4, NON_FINITE)
    obs, reward, terminated, truncated, infos = vec.step([WAIT, 1, WAIT])
    assert (reward[1], terminated[1], truncated[1], infos["step"][1]) == (0.0, False, False, 0)
    assert all(terms[1] == 0 for key, terms in infos["reward_terms"].items() if key[0] != "_")
    assert infos["failure"].tolist() == [0] * 3
    assert obs[1, vec.observation_names.index("progress")] == 0
    assert vec.step(WAITING)[4]["step"].tolist() == [6, 1, 6]


@pytest.mark.parametrize("env_id", IDS)
def test_all_modes_draw_the_same_next_episode(env_id):
    seen = {}
    for mode in AutoresetMode:
        vec, step = staggered(env_id, mode)
        if mode is NEXT_STEP:
            step = vec.step(WAITING)
        seen[mode] = (vec.reset(options={"reset_mask": step[2]}) if mode is DISABLED else step)[0][1]
    assert np.array_equal(seen[SAME_STEP], seen[NEXT_STEP])
    assert np.array_equal(seen[SAME_STEP], seen[DISABLED])


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env_id", IDS)
def test_terminal_growth_is_that_of_the_committed_network_in_all_modes(env_id, mode):
    vec = small_vec(env_id, num_envs=16, autoreset_mode=mode)
    infos = play_lively(vec)[-1][4]
    last = infos.get("final_info", infos)
    assert last["_test_accuracy"].all()
    assert ((last["param_growth"] > 0) == (last["num_fossilized"] > 0)).all()


@pytest.mark.parametrize("env_id", IDS)
def test_finished_row_is_not_stepped_when_autoreset_is_off(env_id):
    vec, _ = staggered(env_id, DISABLED)
    with pytest.raises(ResetNeeded, match=r"^The episodes of rows \[1\] are over\. Call `reset\(\)`\.$"):
        vec.step(WAITING)
    options = {"reset_mask": np.array([False, True, False])}
    infos = vec.reset(options=options)[1]
    assert options["reset_mask"].tolist() == infos["_step"].tolist() == [False, True, False]
    assert infos["step"].tolist() == [4, 0, 4]
    assert vec.step(WAITING)[4]["step"].tolist() == [5, 1, 5]


@pytest.mark.parametrize("mode", [NEXT_STEP, DISABLED])
def test_restored_row_that_was_truncated_is_still_over(mode):
    vec = small_vec(IDS[0], num_envs=3, max_episode_steps=2, autoreset_mode=mode)
    vec.reset(seed=0)
    play(vec, [WAITING] * 2)
    saved = vec.snapshot()
    vec.reset(seed=1)
    vec.restore(saved)
    if mode is NEXT_STEP:
        assert vec.step(WAITING)[4]["step"].tolist() == [0, 0, 0]
    else:
        with pytest.raises(ResetNeeded):
            vec.step(WAITING)


@pytest.mark.parametrize(
    "options", [{"mask": [True] * 3}, {"reset_mask": [True]}, {"reset_mask": [False] * 3}], ids=str
)
def test_options_that_mean_nothing_are_refused(options):
    vec = small_vec(IDS[0], num_envs=3)
    vec.reset(seed=0)
    with pytest.raises(ValueError, match=r"^`\w+` must .*, got .*"):
        vec.reset(options=options)


@pytest.mark.parametrize("use", [lambda vec: vec.step(WAITING), lambda vec: vec.action_masks()], ids=["step", "masks"])
def test_vector_asks_for_its_first_reset(use):
    with pytest.raises(RuntimeError, match=r"^There are no episodes yet\. Call `reset\(\)` first\.$"):
        use(small_vec(IDS[0], num_envs=3))


@pytest.mark.parametrize("env_id", IDS)
def test_reset_of_some_rows_starts_these_with_their_own_seeds_and_leaves_the_others(env_id):
    vec, plain = (small_vec(env_id, num_envs=4, autoreset_mode=DISABLED, dtype="float64") for _ in range(2))
    mask = np.array([True, False, True, False])
    before, _ = (play_lively(env, num_steps=5)[-1][0] for env in (vec, plain))
    observed, infos = vec.reset(seed=100, options={"reset_mask": mask})
    assert np.array_equal(observed[~mask], before[~mask])
    for row in np.flatnonzero(mask):
        assert np.allclose(observed[row], small_env(env_id, dtype="float64").reset(seed=100 + int(row))[0], atol=1e-6)
    assert infos["_score"].tolist() == infos["_action_mask"].tolist() == mask.tolist()
    for _ in range(4):
        assert np.allclose(vec.step([WAIT] * 4)[0][~mask], plain.step([WAIT] * 4)[0][~mask], atol=1e-6)


# ── Gymnasium's contract ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_make_vec_gives_one_population_or_separate_environments(env_id):
    vec = gym.make_vec(env_id, num_envs=4, **SMALL)
    assert isinstance(vec, KasminaVectorEnv)
    sync = gym.make_vec(env_id, num_envs=4, vectorization_mode="sync", **SMALL)
    assert isinstance(sync, SyncVectorEnv)
    assert vec.single_observation_space == sync.single_observation_space
    assert vec.single_action_space == sync.single_action_space
    assert vec.observation_space == sync.observation_space
    assert (len(vec.reset(seed=0)[0]), len(sync.reset(seed=0)[0])) == (4, 4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("env_id", IDS)
def test_vector_has_the_types_that_gymnasium_asks_for(env_id, form):
    vec = small_vec(env_id, action_space=form)
    vec.action_space.seed(0)
    step = vec.reset(seed=0)
    for _ in range(12):
        keys = {key for key in step[-1] if not key.startswith("_")}
        assert set(step[-1]) == keys | {f"_{key}" for key in keys}
        assert vec.observation_space.contains(step[0])
        step = vec.step(vec.action_space.sample())
        assert [array.dtype for array in step[1:4]] == [np.float64, np.bool_, np.bool_]


@pytest.mark.parametrize("env_id", IDS)
def test_what_is_returned_is_the_callers_to_change(env_id):
    vec, plain = small_vec(env_id, num_envs=3), small_vec(env_id, num_envs=3)
    step = vec.reset(seed=0)
    plain.reset(seed=0)
    for _ in range(11):
        arrays = [*step[:-1], *(value for key, value in step[-1].items() if key in ("score", "step", "_step"))]
        for array in arrays:
            array[...] = 1
        step = vec.step(WAITING)
        assert digest(step) == digest(plain.step(WAITING))


def test_metadata_belong_to_the_instance():
    first, second = (small_vec(IDS[0], autoreset_mode=mode) for mode in (NEXT_STEP, DISABLED))
    assert (first.metadata["autoreset_mode"], second.metadata["autoreset_mode"]) == (NEXT_STEP, DISABLED)
    assert "autoreset_mode" not in KasminaVectorEnv.metadata
    assert small_vec(IDS[0]).metadata["autoreset_mode"] is NEXT_STEP


def test_metadata_tell_how_fast_pictures_follow_each_other():
    vec, env = small_vec(IDS[0], render_mode="rgb_array"), small_env(IDS[0], render_mode="rgb_array")
    assert vec.metadata["render_fps"] == env.metadata["render_fps"] > 0
    assert vec.metadata["render_modes"] == env.metadata["render_modes"]


def test_the_generator_of_the_vector_is_that_of_its_seed():
    first, second, env = small_vec(IDS[0]), small_vec(IDS[0]), small_env(IDS[0])
    for one in (first, second, env):
        one.reset(seed=42)
    assert first.np_random_seed == second.np_random_seed == env.np_random_seed == 42
    assert first.np_random.random() == second.np_random.random()
    first.reset()
    assert first.np_random_seed == 42


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_is_rebuilt_from_its_specification(mode):
    vec = small_vec(IDS[0], num_envs=3, autoreset_mode=mode)
    again = gym.make_vec(vec.spec)
    assert (again.num_envs, again.autoreset_mode) == (3, mode)


WRAPPER_IS_RIGHT = gym.__version__ >= "1.4"  # before, it counted the reset of SAME_STEP as a step
SAME_STEP_SINCE_1_4 = pytest.param(SAME_STEP, marks=pytest.mark.skipif(not WRAPPER_IS_RIGHT, reason="gymnasium < 1.4"))


@pytest.mark.parametrize("mode", [SAME_STEP_SINCE_1_4, NEXT_STEP])
@pytest.mark.parametrize("env_id", IDS)
def test_recorded_statistics_are_right(env_id, mode):
    vec = RecordEpisodeStatistics(small_vec(env_id, num_envs=3, autoreset_mode=mode))
    vec.reset(seed=0)
    rewards, lengths = np.zeros(3), []
    for _ in range(25):
        _, reward, terminated, _, infos = vec.step(WAITING)
        rewards += reward
        if terminated.any():
            lengths.append(infos["episode"]["l"].tolist())
            assert np.allclose(infos["episode"]["r"], rewards)
            rewards[:] = 0
    assert lengths == [[10] * 3] * 2


@pytest.mark.parametrize("num_envs", [0, -1, 2.0])
def test_number_of_environments_must_be_positive(num_envs):
    with pytest.raises(ValueError, match=r"^`num_envs` must be an integer from 1 to 1048576, got"):
        small_vec(IDS[0], num_envs=num_envs)


@pytest.mark.parametrize("limit", [0, -3])
def test_time_limit_must_be_positive(limit):
    with pytest.raises(ValueError, match=r"^`max_episode_steps` must be an integer of at least 1, or None, got"):
        small_vec(IDS[0], max_episode_steps=limit)


# ── what must not happen ────────────────────────────────────────────────────────────────────────


def test_a_reset_of_some_rows_leaves_the_split_of_others_alone_and_one_that_fails_that_of_all():
    vec = small_vec("Kasmina/DigitsMix-v0", num_envs=3, autoreset_mode=DISABLED)
    vec.reset(seed=0, options={"split": "test"})
    vec.reset(options={"reset_mask": [True, False, False]})
    assert vec._streams.is_test.tolist() == [False, True, True]
    with pytest.raises(ValueError, match="`instance` must be"):
        vec.reset(options={"instance": 9999})
    assert vec._streams.is_test.tolist() == [False, True, True]


@pytest.mark.parametrize("mode", [SAME_STEP, NEXT_STEP, DISABLED], ids=str)
def test_a_host_that_dies_in_its_warm_up_ends_its_episode_with_the_first_step(mode):
    deadly = {"warmup_batches": 3, "warmup_learning_rate": 1e3, "optimizer": "sgd", "clip_norm": 0}
    vec = small_vec("Kasmina/Spirals-v0", num_envs=2, autoreset_mode=mode, **deadly)
    vec.reset(seed=0)
    _, _, terminated, _, infos = vec.step([WAIT, WAIT])
    last = infos["final_info"] if mode is SAME_STEP else infos
    assert terminated.all()
    assert (last["failure"] == NON_FINITE).all()


@pytest.mark.parametrize(
    "form, actions",
    [
        ("flat", [0, 100000, 0]),
        ("flat", [0, -7, 0]),
        ("flat", [0, 0]),
        ("flat", [0.0, 1.9, 0.0]),
        ("factored", [[0] * 3] * 3),
        ("factored", [[0] * 6 + [99]] * 3),
    ],
    ids=str,
)
def test_actions_outside_the_space_are_refused_in_one_sentence(form, actions):
    vec = small_vec("Kasmina/Spirals-v0", num_envs=3, action_space=form)
    vec.reset(seed=0)
    before = digest(vec.snapshot())
    with pytest.raises(ValueError, match=r"^`action` must be 3 times [17] integers below .* Take one from"):
        vec.step(actions)
    assert digest(vec.snapshot()) == before


def test_episodes_of_another_problem_or_number_are_refused_and_change_nothing():
    vec, other = small_vec("Kasmina/Spirals-v0", num_envs=3), small_vec("Kasmina/Spirals-v0", num_envs=2, horizon=12)
    for env in (vec, other):
        env.reset(seed=0)
    before = digest(vec.snapshot())
    with pytest.raises(ValueError, match="`saved` must be of an equal problem, got one with another horizon"):
        vec.restore(other.snapshot(), [0, 1])
    with pytest.raises(ValueError, match="`saved` must hold 3 episodes, got 2"):
        vec.restore(vec.snapshot([0, 1]))
    precise = small_vec("Kasmina/Spirals-v0", num_envs=3, dtype="float64")
    precise.reset(seed=0)
    with pytest.raises(ValueError, match=r"`saved` must hold networks in torch\.float32, got torch\.float64"):
        vec.restore(precise.snapshot())
    assert digest(vec.snapshot()) == before


@pytest.mark.parametrize("name", ["SAME_STEP", "SameStep", SAME_STEP], ids=str)
def test_modes_go_by_either_of_their_names(name):
    assert small_vec("Kasmina/Spirals-v0", autoreset_mode=name).autoreset_mode is SAME_STEP
    with pytest.raises(ValueError, match="`autoreset_mode` must be one of"):
        small_vec("Kasmina/Spirals-v0", autoreset_mode="Never")
