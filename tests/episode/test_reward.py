"""Rewards: they telescope to the score of the network that is kept, and what else there is are costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kasmina_env.episode.reward import REWARDS
from kasmina_env.lifecycle.state import Op
from tests.episodes import (
    IDS,
    NON_FINITE,
    PRICED_ALIKE,
    WAIT,
    dead_row,
    lively_actions,
    mixed_actions,
    op_actions,
    play,
    play_lively,
    same_step_vec,
    small_env,
    small_vec,
)

NUM_ROWS, NUM_EPISODES = {"score": 70, "sparse": 24}, 3  # at least 200 episodes of the reward that all are made of
COSTS = ("rent", "upkeep", "operations")


def random_episodes(env_id, reward):
    """First scores, sums of the terms, sums of the rewards and last infos of many random episodes."""
    vec, rng = same_step_vec(env_id, NUM_ROWS[reward], reward=reward), np.random.default_rng(0)
    score, episodes = vec.reset(seed=0)[1]["score"], []
    for _ in range(NUM_EPISODES):
        sums, total = dict.fromkeys(REWARDS.get(reward).terms, 0.0), 0.0
        for _ in range(vec.problem.config.horizon):
            _, rewards, terminated, _, infos = vec.step(mixed_actions(rng, vec))
            terms = (infos["final_info"] if terminated.all() else infos)["reward_terms"]
            assert np.allclose(sum(terms[name] for name in sums), rewards, rtol=0, atol=1e-12)
            assert all((terms[name] <= 0).all() for name in COSTS)
            sums = {name: sums[name] + terms[name] for name in sums}
            total = total + rewards
        episodes.append((score, sums, total, infos["final_info"]))
        score = infos["score"].copy()
    return episodes


@pytest.mark.parametrize("reward", ["score", "sparse"])
@pytest.mark.parametrize("env_id", IDS)
def test_score_changes_sum_to_committed_minus_first_score_whatever_was_done(env_id, reward):
    num_fossilized = num_operations = 0
    for first, sums, total, last in random_episodes(env_id, reward):
        assert np.allclose(sums["score_change"], last["committed_score"] - first, rtol=0, atol=1e-6)
        paid = sum(sums[name] for name in COSTS)
        assert np.allclose(total, last["committed_score"] - first + paid, rtol=0, atol=1e-6)
        num_fossilized += last["num_fossilized"].sum()
        num_operations += (sums["operations"] < 0).sum()
    assert min(num_fossilized, num_operations) > NUM_ROWS[reward] / 4  # the episodes were eventful


@pytest.mark.parametrize("reward", list(REWARDS))
@pytest.mark.parametrize("env_id", IDS)
def test_terms_sum_to_the_reward_and_costs_are_never_positive(env_id, reward):
    env = small_env(env_id, reward=reward)
    steps = play_lively(env, seed=3)
    assert steps[0][1]["reward_terms"] == dict.fromkeys(REWARDS.get(reward).terms, 0.0)
    for _, value, _, _, info in steps[1:]:
        assert sum(info["reward_terms"].values()) == pytest.approx(value, abs=1e-12)
        assert np.isfinite(value)
        assert all(info["reward_terms"][name] <= 0 for name in COSTS)


@pytest.mark.parametrize("env_id", IDS)
def test_sparse_reward_pays_everything_at_the_end_and_the_same_sum(env_id):
    dense, sparse = ([step[1] for step in play_lively(small_env(env_id, reward=r))[1:]] for r in ("score", "sparse"))
    assert sum(dense) == pytest.approx(sum(sparse), abs=1e-6)
    assert max(sparse[:-1]) <= 0
    assert dense[:-1] != sparse[:-1]


@pytest.mark.parametrize("env_id", IDS)
def test_score_changes_telescope_through_a_crash(env_id):
    env = small_env(env_id)
    steps = play_lively(env, num_steps=4)
    dead_row(env)
    last = env.step(WAIT)
    change = sum(step[4]["reward_terms"]["score_change"] for step in [*steps[1:], last])
    assert last[4]["failure"] == NON_FINITE
    assert change == pytest.approx(last[4]["committed_score"] - steps[0][1]["score"], abs=1e-6)


# ── what is measured ────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def quality_of(network, split):
    """Quality of an ordinary module, computed here: accuracy, and for text the share of bits saved."""
    logits = network(split.x)
    if logits.ndim == 2:
        return (logits.argmax(dim=1) == split.y).double().mean().item()
    bits = -logits.log_softmax(dim=2).gather(2, split.y.unsqueeze(2)).mean() / np.log(2)
    return max(0.0, 1 - bits.item() / np.log2(logits.shape[2]))


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_first_and_last_quality_are_those_of_the_ordinary_networks(env_id, seed):
    env = small_env(env_id, dtype="float64")
    first, rng = env.reset(seed=seed)[1], np.random.default_rng(seed)
    splits, seen_by = env.episodes.local.data.splits, env.episodes.local.population.seen_by
    of_first = quality_of(env.network(), seen_by(0, splits["outer_valid"]))
    assert first["quality"] == first["score"] == pytest.approx(of_first)
    for _ in range(env.problem.config.horizon):
        last = env.step(lively_actions(rng, env)[0])[4]
    of_last = {name: quality_of(env.network(committed=True), seen_by(0, splits[name])) for name in splits}
    assert last["quality"] == pytest.approx(of_last["outer_valid"])
    assert last["test_accuracy"] == pytest.approx(of_last["test"])


@pytest.mark.parametrize("env_id", IDS)
def test_figures_of_an_episode_that_is_cut_off_are_those_of_the_network_that_is_kept(env_id):
    env = small_env(env_id, dtype="float64", param_price=0.1, **PRICED_ALIKE)
    info = play_lively(env, seed=1, num_steps=7)[-1][4]
    kept = env.network(committed=True)
    outer, test = (env.episodes.local.data.splits[name] for name in ("outer_valid", "test"))
    growth = sum(p.numel() for p in kept.parameters()) / env.problem.costs.host_parameters
    assert info["test_accuracy"] == pytest.approx(quality_of(kept, test))
    assert info["committed_score"] == pytest.approx(quality_of(kept, outer) - 0.1 * np.log2(growth))


@pytest.mark.parametrize("env_id", IDS)
def test_score_is_quality_minus_the_price_of_what_is_kept(env_id):
    vec = small_vec(env_id, num_envs=32, param_price=0.1, **PRICED_ALIKE)
    last = play_lively(vec)[-1][4]
    price = 0.1 * np.log2(1 + last["param_growth"])
    assert np.allclose(last["committed_score"], last["quality"] - price)
    assert ((last["param_growth"] > 0) == (last["num_fossilized"] > 0)).all()
    assert 0 < (last["num_fossilized"] > 0).sum() < 32


@pytest.mark.parametrize("env_id", IDS)
def test_seed_that_is_not_fossilized_is_lost_at_the_end(env_id):
    env = small_env(env_id, objective="final")
    env.reset(seed=0)
    germinate, advance = op_actions(env, Op.GERMINATE)[0], op_actions(env, Op.ADVANCE)[0]
    *_, last = play(env, [germinate, advance] + [WAIT] * 8)
    assert last[4]["num_alive"] == 1
    assert last[4]["param_growth"] == 0
    assert last[4]["committed_score"] == last[4]["quality"]


# ── what it costs ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("env_id", IDS)
def test_germination_is_paid_once_and_only_if_it_happens(env_id):
    env = small_env(env_id, operation_price=0.25, **PRICED_ALIKE)
    env.reset(seed=0)
    germinate = op_actions(env, Op.GERMINATE)[0]
    infos = [step[4] for step in play(env, [germinate, germinate, WAIT])]
    assert [info["reward_terms"]["operations"] for info in infos] == [-0.25, 0, 0]
    assert [info["action_legal"] for info in infos] == [True, False, True]


@pytest.mark.parametrize("env_id", IDS)
def test_rent_is_paid_from_germination_to_removal(env_id):
    env = small_env(env_id, rent_price=1.0, **PRICED_ALIKE)
    env.reset(seed=0)
    germinate, prune = op_actions(env, Op.GERMINATE)[0], op_actions(env, Op.PRUNE)[0]
    rents = [step[4]["reward_terms"]["rent"] for step in play(env, [WAIT, germinate, WAIT, prune, WAIT])]
    slot, blueprint, operator = (
        getattr(env.problem.actions.commands, n)[germinate] for n in ("slot", "blueprint", "operator")
    )
    rent = env.problem.costs.seed_compute[slot, blueprint, operator] / env.problem.costs.host_compute / 10
    assert rents == pytest.approx([0, -rent, -rent, 0, 0])


def test_upkeep_is_paid_from_germination_until_the_seed_is_fossilized():
    env = small_env("Kasmina/Digits-v0", upkeep_price=1.0, instant=True, **PRICED_ALIKE)
    env.reset(seed=0)
    germinate, fossilize = (op_actions(env, op)[0] for op in (Op.GERMINATE, Op.FOSSILIZE))
    terms = [step[4]["reward_terms"] for step in play(env, [WAIT, germinate, WAIT, fossilize, WAIT])]
    assert [term["upkeep"] for term in terms] == pytest.approx([0, -0.1, -0.1, 0, 0])
    assert all(term["rent"] < 0 for term in terms[1:])


@pytest.mark.parametrize("env_id", IDS)
def test_prices_of_zero_leave_the_score_alone(env_id):
    prices = dict.fromkeys(("rent_price", "upkeep_price", "operation_price", "param_price"), 0)
    env = small_env(env_id, **prices, **PRICED_ALIKE)
    steps = play_lively(env)
    assert sum(step[1] for step in steps[1:]) == pytest.approx(steps[-1][4]["quality"] - steps[0][1]["quality"])
