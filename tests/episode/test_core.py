"""The decision problem: episodes as values, forks, deaths, and the order in which it must be used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kasmina_env.lifecycle.state import Op
from tests.episodes import (
    IDS,
    NON_FINITE,
    WAIT,
    assert_close,
    dead_row,
    dead_seeds,
    digest,
    lively_actions,
    mixed_actions,
    networks_of,
    op_actions,
    play,
    play_lively,
    same_step_vec,
    shown,
    small_env,
    small_vec,
)

CUTS = [0, 1, 5, 9]  # steps after which an episode of ten is cut


# ── snapshot and restore ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("env_id", IDS)
def test_restored_episode_goes_on_bit_for_bit(env_id, cut):
    env, rng = small_env(env_id), np.random.default_rng(cut)
    env.reset(seed=cut)
    for _ in range(cut):
        env.step(lively_actions(rng, env)[0])
    saved = env.snapshot()
    actions = rng.integers(env.action_space.n, size=10 - cut)
    first = digest(play(env, actions), env.reset()[0])
    env.restore(saved)
    assert digest(play(env, actions), env.reset()[0]) == first


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("env_id", IDS)
def test_snapshot_goes_on_bit_for_bit_in_an_equal_environment(env_id, cut):
    here, there, rng = small_env(env_id), small_env(env_id), np.random.default_rng(cut)
    play_lively(there, seed=77)
    here.reset(seed=cut)
    for _ in range(cut):
        here.step(lively_actions(rng, here)[0])
    there.restore(here.snapshot())
    actions = rng.integers(here.action_space.n, size=10 - cut)
    assert digest(play(here, actions), here.reset()[0]) == digest(play(there, actions), there.reset()[0])


@pytest.mark.parametrize("cut", [3, 14])
@pytest.mark.parametrize("env_id", IDS)
def test_restored_vector_goes_on_bit_for_bit_through_resets(env_id, cut):
    vec, there, rng = small_vec(env_id), small_vec(env_id), np.random.default_rng(cut)
    vec.reset(seed=cut), there.reset(seed=99)
    for _ in range(cut):
        vec.step(mixed_actions(rng, vec))
    saved = vec.snapshot()
    actions = rng.integers(vec.single_action_space.n, size=(12, 4))
    first = digest(play(vec, actions))
    for env in (vec, there):
        env.restore(saved)
        assert digest(play(env, actions)) == first


@pytest.mark.parametrize("env_id", IDS)
def test_snapshot_is_not_changed_by_what_happens_later(env_id):
    env, rng = small_env(env_id), np.random.default_rng(0)
    play_lively(env, num_steps=5)
    saved = env.snapshot()
    before = digest(saved)
    for _ in range(2):
        env.step(lively_actions(rng, env)[0])
    env.restore(saved)
    env.step(lively_actions(rng, env)[0])
    assert digest(saved) == before


@pytest.mark.parametrize("env_id", IDS)
def test_taking_a_snapshot_changes_nothing(env_id):
    plain, watched = small_env(env_id), small_env(env_id)
    plain.reset(seed=0), watched.reset(seed=0)
    for action in np.random.default_rng(0).integers(plain.action_space.n, size=10):
        watched.snapshot()
        assert digest(plain.step(action)) == digest(watched.step(action))


# ── forks ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_copied_rows_stay_equal_under_equal_actions_through_resets(env_id):
    vec, rng = small_vec(env_id, num_envs=4, dtype="float64"), np.random.default_rng(0)
    play_lively(vec, num_steps=4)
    vec.copy_rows([0, 0, 2], [1, 3, 0])
    assert digest(vec.episodes.snapshot([1])) == digest(vec.episodes.snapshot([3]))
    for _ in range(14):
        step = vec.step(mixed_actions(rng, vec)[[0, 1, 0, 1]])
        assert_close(shown(step, [0, 1]), shown(step, [2, 3]))


@pytest.mark.parametrize("env_id", IDS)
def test_copied_rows_part_with_random_seeds_of_their_own(env_id):
    vec = small_vec(env_id, num_envs=3)
    play_lively(vec, num_steps=4)
    vec.copy_rows([0, 0], [1, 2], rng_seeds=[1, 2])
    observation = vec.episodes.report.observation
    assert (observation == observation[0]).all()
    loss = vec.step([WAIT] * 3)[4]["train_loss"]
    assert len(set(loss)) == 3


@pytest.mark.parametrize("env_id", IDS)
def test_rows_that_are_not_copied_to_are_untouched(env_id):
    forked, plain = small_vec(env_id, dtype="float64"), small_vec(env_id, dtype="float64")
    play_lively(forked, num_steps=4), play_lively(plain, num_steps=4)
    forked.copy_rows([0, 3], [1, 2])
    assert digest(forked.episodes.snapshot([0, 3])) == digest(plain.episodes.snapshot([0, 3]))
    for actions in np.random.default_rng(0).integers(forked.single_action_space.n, size=(12, 4)):
        one, other = forked.step(actions), plain.step(actions)
        assert_close(shown(one, [0, 3]), shown(other, [0, 3]))


@pytest.mark.parametrize("env_id", IDS)
def test_copies_of_one_row_can_go_different_ways(env_id):
    vec = small_vec(env_id, num_envs=3)
    vec.reset(seed=0)
    vec.copy_rows([0, 0], [1, 2])
    germinate = op_actions(vec, Op.GERMINATE)
    infos = vec.step([WAIT, germinate[0], germinate[-1]])[4]
    assert infos["num_alive"].tolist() == [0, 1, 1]
    assert len(set(infos["param_growth"])) == 3


# ── deaths ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_network_that_dies_ends_its_episode_with_a_finite_observation(env_id):
    env = small_env(env_id)
    play_lively(env, num_steps=3)
    dead_row(env)
    obs, reward, terminated, truncated, info = env.step(WAIT)
    assert (terminated, truncated) == (True, False)
    assert info["failure"] == NON_FINITE
    assert info["is_success"] is False
    assert env.observation_space.contains(obs)
    assert np.isfinite([reward, info["score"], info["quality"], info["train_loss"]]).all()


@pytest.mark.parametrize("env_id", IDS)
def test_dead_row_does_not_touch_the_others_by_a_single_bit(env_id):
    hurt, well, others = same_step_vec(env_id), same_step_vec(env_id), [0, 2, 3]
    play_lively(hurt, num_steps=4), play_lively(well, num_steps=4)
    dead_row(hurt, 1)
    actions = np.random.default_rng(0).integers(hurt.single_action_space.n, size=(12, 4))
    one, other = hurt.step(actions[0]), well.step(actions[0])
    assert one[2].tolist() == [False, True, False, False]
    assert digest(one[0][others], one[1][others]) == digest(other[0][others], other[1][others])
    well.reset(options={"reset_mask": one[2]})
    assert digest(play(hurt, actions[1:])) == digest(play(well, actions[1:]))


@pytest.mark.parametrize("env_id", IDS)
def test_row_that_died_starts_a_healthy_episode(env_id):
    vec = same_step_vec(env_id, num_envs=2)
    vec.reset(seed=0)
    dead_row(vec, 0)
    infos = vec.step([WAIT, WAIT])[4]
    assert infos["final_info"]["failure"][0] == NON_FINITE
    assert infos["failure"].tolist() == [0, 0]
    steps = play(vec, [[WAIT, WAIT]] * 9)
    assert not any(step[2][0] for step in steps)
    assert all(step[4]["failure"][0] == 0 for step in steps[:-2])


@pytest.mark.parametrize("env_id", IDS)
def test_seed_that_dies_in_training_may_not_advance_and_its_host_does_not_feel_it(env_id):
    sick, well = small_env(env_id), small_env(env_id)
    germinate, advance = (op_actions(sick, op)[-1] for op in (Op.GERMINATE, Op.ADVANCE))
    for env in (sick, well):
        env.reset(seed=0)
        env.step(germinate)
    dead_seeds(sick)
    for one, other in zip(play(sick, [WAIT] * 5), play(well, [WAIT] * 5), strict=True):
        assert one[4]["train_loss"] == other[4]["train_loss"]
    assert one[0][sick.observation_names.index(f"{sick.problem.slot_names[-1]}.exploding")] > 0
    assert (sick.action_masks()[advance], well.action_masks()[advance]) == (False, True)


@pytest.mark.parametrize("env_id", IDS)
def test_seed_that_dies_in_the_network_ends_the_episode(env_id):
    env = small_env(env_id)
    env.reset(seed=0)
    play(env, [op_actions(env, op)[0] for op in (Op.GERMINATE, Op.ADVANCE)])
    dead_seeds(env)
    *_, terminated, _, info = env.step(WAIT)
    assert terminated
    assert info["failure"] == NON_FINITE


@pytest.mark.parametrize("env_id", IDS)
def test_network_that_diverges_by_itself_dies_without_an_error(env_id):
    vec, rng = (
        small_vec(env_id, num_envs=8, clip_norm=0, optimizer="sgd", learning_rate=1e3, host_factor=1.0, instances=""),
        np.random.default_rng(0),
    )
    vec.reset(seed=0)
    deaths = [vec.step(mixed_actions(rng, vec))[2] for _ in range(8)]
    assert np.any(deaths)


# ── how it is used ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("use", ["action_masks", "snapshot", "network"])
def test_nothing_can_be_asked_before_the_first_reset(use):
    with pytest.raises(RuntimeError, match=r"^There are no episodes yet\. Call `reset\(\)` first\.$"):
        getattr(small_env(IDS[0]), use)()


@pytest.mark.parametrize("env_id", IDS)
def test_network_is_an_ordinary_module_with_its_own_weights(env_id):
    env = small_env(env_id)
    play_lively(env, num_steps=5)
    network, before = env.network(), digest(env.snapshot())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert digest(env.snapshot()) == before
    assert sum(p.numel() for p in env.network(committed=True).parameters()) >= env.problem.costs.host_parameters


def moved(decay):
    """Mean distance by which the weights of a host moved in its first and in its last step."""
    env = small_env("Kasmina/Digits-v0", decay=decay)
    env.reset(seed=0)
    weights = [networks_of(env).networks.hosts.parameters]
    for _ in range(10):
        env.step(WAIT)
        weights.append(networks_of(env).networks.hosts.parameters)
    return [float((weights[i] - weights[i - 1]).abs().mean()) for i in (1, 10)]


def test_a_linear_decay_begins_at_the_whole_learning_rate_and_ends_at_a_tenth_of_it():
    constant, linear = moved("none"), moved("linear")
    assert linear[0] == constant[0]
    assert linear[1] < 0.4 * constant[1]
