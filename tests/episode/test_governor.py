"""The governor: what counts as divergence, the way back to the last good state, and what it costs."""

from __future__ import annotations

import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from kasmina_env import DIVERGENCES, FAILURES, make_problem
from kasmina_env.cli.show import sections_of
from kasmina_env.episode.governor import (
    SYMPTOMS,
    Guess,
    Record,
    Signs,
    has_diverged,
    measure_guess,
    next_record,
    suspicion,
)
from kasmina_env.lifecycle.state import Op, Stage
from kasmina_env.tasks import TASKS, Split, classify
from tests.cli.running import said
from tests.contract import stacks_of
from tests.episodes import (
    NON_FINITE,
    WAIT,
    assert_close,
    dead_row,
    dead_seeds,
    digest,
    lively_actions,
    networks_of,
    op_actions,
    play,
    play_lively,
    same_step_vec,
    shown,
    small_env,
    small_vec,
)

SPIRALS, DIGITS, TEXT = "Kasmina/Spirals-v0", "Kasmina/Digits-v0", "Kasmina/Text-v0"
MIX, SERVICE, DRIFT = "Kasmina/DigitsMix-v0", "Kasmina/DigitsService-v0", "Kasmina/DigitsDrift-v0"
DIVERGED = FAILURES.index("diverged")
GUESS = Guess(loss=2.0, quality=0.2)
CONFIG = make_problem(SPIRALS, governor=True).config
ON = {"governor": True, "rollback_price": 0.25, "max_rollbacks": 3, "rollback_factor": 0.5}

every_id = pytest.mark.parametrize("env_id", [SPIRALS, DIGITS, TEXT])
every_engine = pytest.mark.parametrize("engine", ["torch", "fused"])


def hosts(env):
    """Weights of all hosts; may be changed in place."""
    return env.episodes.local.population._networks.hosts.parameters


def lifecycle(env):
    return env.episodes.state().lifecycle


# ── what counts as divergence ───────────────────────────────────────────────────────────────────


def suspected(loss, quality, best_loss, is_finite=True, num_rollbacks=0):
    """Name of the rule that holds for one network."""
    record = Record(np.array([best_loss]), np.array([num_rollbacks]), np.array([0]))
    signs = Signs(np.array([loss]), np.array([quality]), np.array([is_finite]), record)
    return DIVERGENCES[suspicion(signs, GUESS, CONFIG)[0]]


@pytest.mark.parametrize(
    "signs, name",
    [
        ((2.1, 0.1, 2.1), ""),  # a fresh host
        ((4.1, 0.2, 2.1), "useless"),
        ((4.1, 0.3, 2.1), ""),  # sure of itself, and of use
        ((3.9, 0.2, 2.1), ""),
        ((9.0, 0.6, 2.1), "rising"),
        ((2.1, 0.5, 0.5), "rising"),
        ((1.9, 0.5, 0.1), ""),  # better than a guess
        ((2.1, 0.5, 0.7), ""),
        ((1.95, 0.2, 1.0), "collapsed"),
        ((1.95, 0.2, 1.3), ""),  # had hardly learned anything
        ((1.95, 0.3, 1.0), ""),
        ((1.0, 0.5, 1.0, False), "non_finite"),
        ((np.nan, 0.0, 1.0, False), "non_finite"),
        ((2.1, 0.1, 2.1, True, 1), "relapsed"),
        ((1.9, 0.1, 2.1, True, 1), ""),
        ((2.1, 0.3, 2.1, True, 1), ""),
    ],
)
def test_rules_are_relative_to_a_guess_and_to_the_past(signs, name):
    assert suspected(*signs) == name


def test_a_suspicion_is_right_where_the_last_good_state_is_better_today():
    codes = np.array(
        [DIVERGENCES.index(name) for name in ("non_finite", "non_finite", "useless", "useless", "relapsed")]
    )
    loss, good_loss = np.array([np.nan, 1.0, 5.0, 5.0, 2.1]), np.array([1.0, np.nan, 2.0, 4.9, 2.0])
    assert has_diverged(codes, loss, good_loss).tolist() == [True, False, True, False, True]


def test_the_best_recent_loss_forgets_and_begins_anew_after_a_suspicion():
    record = Record(np.array([1.0, 1.0, 1.0]), np.array([0, 1, 0]), np.array([0, 2, 0]))
    signs = Signs(np.array([0.5, 3.0, 9.0]), np.zeros(3), np.ones(3, dtype=bool), record)
    after = next_record(signs, np.array([0, 0, 3]), np.array([False, False, True]), np.array([0.5, 3.0, 2.0]))
    assert after.best_loss.tolist() == pytest.approx([0.5, 1.1, 2.0])
    assert (after.num_rollbacks.tolist(), after.divergence.tolist()) == ([0, 1, 1], [0, 0, 3])


def test_a_guess_is_measured_on_the_task_s_own_samples():
    skewed = Split(torch.zeros(100, 2), (torch.arange(100) < 10).long())
    guess = measure_guess(skewed, 2, classify)
    assert guess.loss == pytest.approx(np.log(2))
    assert guess.quality == pytest.approx(0.9 + 2 * 0.03)
    text = TASKS.get("text")(context=8)
    assert measure_guess(text.splits["inner_valid"].head(30), 97, text.criterion).loss == pytest.approx(np.log(97))


# ── the way back ────────────────────────────────────────────────────────────────────────────────


def plant_nan(env):
    dead_row(env)


def plant_minus_infinity(env):
    hosts(env)[0, 3] = -torch.inf


def plant_large_weights(env):
    hosts(env)[0] *= 1e4


def plant_bad_gradients(env):
    env.episodes.local.population._networks.hosts.moments[:, 0] = torch.inf


@pytest.mark.parametrize("plant", [plant_nan, plant_minus_infinity, plant_large_weights, plant_bad_gradients])
@every_engine
@every_id
def test_a_network_that_was_spoilt_goes_back_to_its_last_good_state_and_learns_on(env_id, engine, plant):
    env = small_env(env_id, engine=engine, **ON)
    env.reset(seed=0)
    play(env, [WAIT] * 3)
    good = stacks_of(networks_of(env))
    plant(env)
    obs, _, terminated, _, info = env.step(WAIT)
    assert all(torch.equal(one, other) for one, other in zip(stacks_of(networks_of(env)), good, strict=True))
    assert (info["num_rollbacks"], info["failure"], info["step"], terminated) == (1, 0, 4, False)
    assert info["divergence"] > 0
    assert info["reward_terms"]["rollbacks"] == -0.25
    assert env.observation_space.contains(obs)
    assert not env.step(WAIT)[4]["divergence"]
    assert not torch.equal(hosts(env), good[2])


def grown(env_id, engine="torch"):
    """An environment with a FOSSILIZED seed in the first slot and a live one in the second, if there is one."""
    env = small_env(env_id, engine=engine, **ON)
    env.reset(seed=0)
    table, slots = env.problem.actions, env.problem.slot_names
    ops = [(Op.GERMINATE, slots[0]), (Op.ADVANCE, slots[0]), None, (Op.FOSSILIZE, slots[0])]
    ops += [(Op.GERMINATE, slots[1]), (Op.ADVANCE, slots[1])]
    play(env, [WAIT if op is None else table.find(op[0], slot=op[1])[0] for op in ops])
    assert lifecycle(env).stage[0, 0] == Stage.FOSSILIZED
    assert lifecycle(env).is_live[0, 1]
    return env


@every_engine
@every_id
def test_fossilized_seeds_are_kept_and_live_ones_pruned(env_id, engine):
    env = grown(env_id, engine)
    before = {part: cell.weights.parameters.clone() for part, cell in networks_of(env).networks.cells.items()}
    dead_row(env)
    info = env.step(WAIT)[4]
    after = networks_of(env).networks
    assert (info["num_fossilized"], info["num_alive"]) == (1, 0)
    assert lifecycle(env).stage[0, :2].tolist() == [Stage.FOSSILIZED, Stage.EMBARGOED]
    assert {part.slot for part in after.cells} == {0}
    assert all(torch.equal(cell.weights.parameters, before[part]) for part, cell in after.cells.items())


@every_id
def test_a_fossilization_in_the_step_that_is_undone_counts(env_id):
    env = small_env(env_id, **ON)
    env.reset(seed=0)
    play(env, [op_actions(env, op)[0] for op in (Op.GERMINATE, Op.ADVANCE)] + [WAIT])
    dead_row(env)
    info = env.step(op_actions(env, Op.FOSSILIZE)[0])[4]
    assert (info["num_rollbacks"], info["num_fossilized"], info["action_legal"]) == (1, 1, True)
    assert np.isfinite(play(env, [WAIT] * 3)[-1][4]["train_loss"])


@every_id
def test_seeds_that_act_and_are_not_finite_are_pruned_and_those_in_training_left_alone(env_id):
    for ops, num_rollbacks in (([Op.GERMINATE], 0), ([Op.GERMINATE, Op.ADVANCE], 1)):
        env = small_env(env_id, **ON)
        env.reset(seed=0)
        play(env, [op_actions(env, op)[0] for op in ops])
        dead_seeds(env)
        info = env.step(WAIT)[4]
        assert (info["num_rollbacks"], info["num_alive"]) == (num_rollbacks, 1 - num_rollbacks)


def test_a_network_on_its_way_up_goes_back_to_where_it_was_before_that():
    env = small_env(SPIRALS, **ON, learning_rate=1e-7, watch_samples=100)
    env.reset(seed=0)
    env.step(WAIT)
    good, found = hosts(env).clone(), []
    for factor in (2.2, 3.0):
        hosts(env)[:] *= factor
        found.append(DIVERGENCES[env.step(WAIT)[4]["divergence"]])
    assert found == ["", "useless"]
    assert torch.equal(hosts(env), good)


@every_id
def test_the_learning_rate_is_cut_at_each_rollback_and_whole_again_in_the_next_episode(env_id):
    env = small_env(env_id, **ON)
    env.reset(seed=0)
    whole, rates = env.episodes.local.population.learning_rate.copy(), []
    for _ in range(2):
        dead_row(env)
        env.step(WAIT)
        rates.append(env.episodes.local.population.learning_rate / whole)
    env.reset(seed=1)
    assert np.concatenate([*rates, env.episodes.local.population.learning_rate / whole]).tolist() == [0.5, 0.25, 1.0]


@every_id
def test_one_rollback_too_many_ends_the_episode_with_the_network_that_was_good(env_id):
    env = small_env(env_id, **{**ON, "max_rollbacks": 1})
    env.reset(seed=0)
    play(env, [WAIT] * 2)
    good = stacks_of(networks_of(env))
    for _ in range(2):
        dead_row(env)
        _, _, terminated, truncated, info = env.step(WAIT)
    assert (terminated, truncated, info["failure"], info["is_success"]) == (True, False, DIVERGED, False)
    assert all(torch.equal(one, other) for one, other in zip(stacks_of(networks_of(env)), good, strict=True))
    assert info["committed_score"] == info["quality"]


def test_a_network_that_died_before_its_first_step_has_nothing_to_go_back_to():
    wild = {"warmup_batches": 20, "warmup_learning_rate": 1e3, "optimizer": "sgd", "clip_norm": 0.0}
    env = small_env(SPIRALS, **ON, **wild)
    env.reset(seed=0)
    _, _, terminated, _, info = env.step(WAIT)
    assert (terminated, info["failure"], info["num_rollbacks"]) == (True, NON_FINITE, 0)


# ── what is no divergence ───────────────────────────────────────────────────────────────────────


@every_engine
@every_id
def test_a_governor_that_has_nothing_to_do_changes_nothing(env_id, engine):
    governed, plain = (small_vec(env_id, engine=engine, governor=on) for on in (True, False))
    governed.reset(seed=2), plain.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(9):
        actions = lively_actions(rng, governed)
        one, other = governed.step(actions), plain.step(actions)
        assert not one[4]["num_rollbacks"].any()
        assert digest(one[1], one[4]["score"], networks_of(governed)) == digest(
            other[1], other[4]["score"], networks_of(plain)
        )


def suspected_rows(env, step):
    """Rows whose past begins anew after a step, and that nothing else happens to."""
    before = env.episodes.state().record
    infos, state = step()[4], env.episodes.state()
    assert not infos["num_rollbacks"].any()
    return (state.record.best_loss > 1.2 * before.best_loss).tolist()


def test_data_that_change_are_a_suspicion_and_no_divergence(tmp_path):
    path, entries = tmp_path / "family.json", [{"events": [[3, "turn", 180.0]]}, {"events": []}]
    path.write_text(json.dumps({"visible": [], "train": entries, "test": entries}), encoding="utf-8")
    mature = {"task": "digits", "task_settings": {}, "warmup_batches": 150, "batch_size": 32, "watch_samples": 64}
    env = small_vec("Kasmina/DigitsService-v0", **ON, **mature, instances=str(path))
    env.reset(seed=0, options={"instance": [0, 1] * 2})
    suspicions = [suspected_rows(env, lambda: env.step([WAIT] * 4)) for _ in range(6)]
    assert [any(rows) for rows in suspicions] == [False, False, False, True, False, False]
    assert suspicions[3] == [True, False] * 2


def test_a_seed_that_a_network_needs_may_be_pruned():
    env = small_vec(DIGITS, **ON, batches_per_step=30, batch_size=32, watch_samples=64, learning_rate=0.01)
    env.reset(seed=0)
    table = env.problem.actions
    germinate = table.find(Op.GERMINATE, slot="block0", blueprint="depthwise")[0]
    play(env, [[action] * 4 for action in (germinate, op_actions(env, Op.ADVANCE)[0], WAIT, WAIT, WAIT)])
    prune = table.find(Op.PRUNE, slot="block0", tempo=0)[0]
    assert any(suspected_rows(env, lambda: env.step([prune] * 4)))


# ── what it costs ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reward", ["score", "sparse"])
@every_id
def test_the_return_is_what_is_kept_minus_costs_and_rollbacks_are_one(env_id, reward):
    vec, rng = same_step_vec(env_id, 16, reward=reward, **ON), np.random.default_rng(0)
    first, sums = vec.reset(seed=0)[1]["score"], dict.fromkeys(vec.problem.reward.terms, 0.0)
    for step in range(10):
        for row in rng.choice(16, 3) if step else ():
            dead_row(vec, row)
        infos = vec.step(lively_actions(rng, vec))[4]
        last = infos["final_info"] if step == 9 else infos
        sums = {name: sums[name] + last["reward_terms"][name] for name in sums}
    assert 0 < last["num_rollbacks"].max() <= 3
    assert np.allclose(sums["score_change"], last["committed_score"] - first, rtol=0, atol=1e-6)
    assert np.allclose(sums["rollbacks"], -0.25 * last["num_rollbacks"])


def test_rollbacks_are_observed_and_a_cost_only_with_a_governor():
    governed, plain = make_problem(SPIRALS, **ON), make_problem(SPIRALS)
    assert set(governed.observations.names) - set(plain.observations.names) == {"rollbacks"}
    assert set(governed.reward.terms) - set(plain.reward.terms) == {"rollbacks"}
    env = small_env(SPIRALS, **ON)
    env.reset(seed=0)
    dead_row(env)
    assert env.step(WAIT)[0][env.observation_names.index("rollbacks")] == 1 / 4


SEEDS = {
    SPIRALS: "mlp",
    DIGITS: "depthwise",
    TEXT: "shift",
    MIX: "depthwise",
    SERVICE: "conv_light",
    DRIFT: "conv_light",
}
every_embedded_id = pytest.mark.parametrize("env_id", SEEDS)


def grow_one(vec, blueprint):
    """Actions that grow a seed in the first slot and keep it, again where it was pruned."""
    table, slot = vec.problem.actions, vec.problem.slot_names[0]
    actions = np.full(vec.num_envs, WAIT)
    for op, more in ((Op.GERMINATE, {"blueprint": blueprint}), (Op.ADVANCE, {}), (Op.FOSSILIZE, {})):
        action = table.find(op, slot=slot, **more)[0]
        actions[vec.action_masks()[:, action]] = action
    return actions


def mean_return(env_id, factor=1.0, fault=None, **settings):
    """Mean return of eight episodes in which one seed is grown.

    Args:
        env_id: Registered id.
        factor: Multiplier on the learning rate, which seeds and host have in common here: with a host factor of 0.02,
            as in service, no host diverges.
        fault: Value that is planted in a weight of every host before the eighth step.
        **settings: Settings of the problem.
    """
    vec = gym.make_vec(env_id, num_envs=8, horizon=14, host_factor=1.0, **settings).unwrapped
    vec.reset(seed=0)
    vec.episodes.local.population.learning_rate[:] *= factor
    total, is_over = np.zeros(8), np.zeros(8, dtype=bool)
    for step in range(14):
        if step == 7 and fault is not None:
            hosts(vec)[:, 3] = fault
        _, rewards, terminated, _, _ = vec.step(grow_one(vec, SEEDS[env_id]))
        total += np.where(is_over, 0.0, rewards)
        is_over |= terminated
    return total.mean()


def returns_without_and_with(env_id, factor=1.0, fault=None, **settings):
    """Mean returns without and with a governor; the table in docs/environment.md is made of them."""
    found = [mean_return(env_id, factor, fault, **settings, governor=on) for on in (False, True)]
    print(env_id, factor, fault, settings, "{:+.3f}, {:+.3f}".format(*found))
    return found


@pytest.mark.parametrize("clip_norm", [1.0, 0.0])
@every_embedded_id
def test_returns_at_a_thousand_times_the_learning_rate_are_above_those_without(env_id, clip_norm):
    plain, governed = returns_without_and_with(env_id, 1000, clip_norm=clip_norm)
    assert governed > plain + 0.05


def lost_to_bad_samples(**settings):
    """Number of 8 networks that are lost where every 25th sample to learn from is NaN."""
    vec = small_vec(SPIRALS, 8, **settings)
    vec.reset(seed=0)
    splits = vec.episodes.local.data.splits
    x = splits["train"].x.clone()
    x[::25] = torch.nan
    splits["train"] = replace(splits["train"], x=x)
    return sum(step[4]["failure"] for step in play(vec, [[WAIT] * 8] * 9)).astype(bool).sum()


def test_bad_samples_cost_rollbacks_and_no_network():
    assert lost_to_bad_samples(governor=True, max_rollbacks=9) == 0
    assert lost_to_bad_samples() > 4


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
@every_embedded_id
def test_returns_with_a_weight_gone_bad_are_above_those_without(env_id, fault):
    plain, governed = returns_without_and_with(env_id, fault=fault)
    assert governed > plain + 0.05


# ── rows ────────────────────────────────────────────────────────────────────────────────────────


@every_engine
@every_id
def test_other_rows_are_bit_identical_beside_one_that_goes_back(env_id, engine):
    hurt, well = (small_vec(env_id, engine=engine, **ON) for _ in range(2))
    play_lively(hurt, num_steps=5), play_lively(well, num_steps=5)
    dead_row(hurt, 1)
    rng, others = np.random.default_rng(1), [0, 2, 3]
    actions = lively_actions(rng, well)
    one, other = hurt.step(actions), well.step(actions)
    assert one[4]["num_rollbacks"].tolist() == [0, 1, 0, 0]
    assert digest(hurt.snapshot(others), one[0][others]) == digest(well.snapshot(others), other[0][others])
    well.restore(hurt.snapshot([1]), [1])
    actions = rng.integers(well.single_action_space.n, size=(12, 4))
    assert digest(play(hurt, actions)) == digest(play(well, actions))


@every_id
def test_rows_live_the_life_of_single_environments(env_id):
    vec = small_vec(env_id, num_envs=3, dtype="float64", **ON)
    singles = [small_env(env_id, dtype="float64", **ON) for _ in range(3)]
    vec.reset(seed=4)
    for row, env in enumerate(singles):
        env.reset(seed=4 + row)
    for step in range(6):
        if step in (2, 4):
            dead_row(vec, 1), dead_row(singles[1])
        actions = lively_actions(np.random.default_rng(step), vec)
        found = shown(vec.step(actions), slice(None))
        for row, env in enumerate(singles):
            obs, _, _, _, info = env.step(actions[row])
            assert np.allclose(found["obs"][row], obs, atol=1e-6)
            assert (found["num_rollbacks"][row], found["divergence"][row]) == (
                info["num_rollbacks"],
                info["divergence"],
            )


def test_slots_and_networks_agree_whatever_happens():
    vec, rng = small_vec(DIGITS, 12, **{**ON, "max_rollbacks": 9}, learning_rate=3.0), np.random.default_rng(0)
    vec.reset(seed=0)
    rollbacks = np.zeros(12, dtype=int)
    for _ in range(30):
        dead_row(vec, rng.integers(12))
        obs, reward, _, _, infos = vec.step(lively_actions(rng, vec))
        rollbacks = np.maximum(rollbacks, infos["num_rollbacks"])
        networks = networks_of(vec).networks
        assert (networks.has_seed == lifecycle(vec).has_seed).all()
        assert (networks.in_training == (lifecycle(vec).stage == Stage.TRAINING)).all()
        assert vec.observation_space.contains(obs)
        assert np.isfinite(reward).all()
    assert (rollbacks > 1).all()


# ── episodes as values ──────────────────────────────────────────────────────────────────────────


def spoilt(make, env_id=SPIRALS, **settings):
    """An environment in the middle of an episode that has gone back once, and will again with its next step."""
    env = make(env_id, **ON, **settings)
    play_lively(env, seed=3, num_steps=4)
    dead_row(env)
    env.step(lively_actions(np.random.default_rng(0), env)[0] if make is small_env else [WAIT] * 4)
    dead_row(env)
    return env


def future(env):
    """Everything that is seen of the next steps, in which the first row goes back."""
    rng, seen = np.random.default_rng(7), []
    for step in range(4):
        actions = lively_actions(rng, env)
        seen.append(env.step(actions if hasattr(env, "num_envs") else actions[0]))
        assert step or np.ravel(seen[0][4]["num_rollbacks"])[0] == 2
    return digest(seen, env.snapshot())


@pytest.mark.parametrize("make", [small_env, small_vec])
@every_engine
@every_id
def test_the_last_good_state_goes_with_its_row_bit_for_bit(env_id, engine, make, tmp_path):
    env = spoilt(make, env_id, engine=engine)
    saved, restored, loaded = env.snapshot(), make(env_id, engine=engine, **ON), make(env_id, engine=engine, **ON)
    env.save(tmp_path / "a.safetensors")
    restored.restore(saved), loaded.load(tmp_path / "a.safetensors")
    wanted = future(env)
    assert future(restored) == future(loaded) == wanted
    env.restore(saved)
    assert future(env) == wanted


def test_rows_go_on_in_other_numbers_of_workers(tmp_path):
    vecs = [small_vec(SPIRALS, num_workers=n, dtype="float64", **ON) for n in (2, 4)]
    here = spoilt(small_vec, dtype="float64")
    here.save(tmp_path / "a.safetensors")
    rng = np.random.default_rng(2)
    vecs[0].load(tmp_path / "a.safetensors"), vecs[1].load(tmp_path / "a.safetensors")
    vecs[1].restore(vecs[0].snapshot([3, 0, 1, 2]), [3, 0, 1, 2])
    for _ in range(5):
        actions = lively_actions(rng, here)
        one, *others = (shown(vec.step(actions), slice(None)) for vec in (here, *vecs))
        for other in others:
            assert_close(other, one)
    assert one["num_rollbacks"].tolist() == [2, 0, 0, 0]
    for vec in vecs:
        vec.close()


def test_copies_of_a_row_go_back_alike():
    vec = spoilt(small_vec, dtype="float64")
    vec.copy_rows([0, 0], [2, 3])
    infos = vec.step([WAIT] * 4)[4]
    assert infos["num_rollbacks"].tolist() == [2, 0, 2, 2]
    assert digest(vec.episodes.snapshot([2])) == digest(vec.episodes.snapshot([3]))


def test_describe_says_whether_there_is_a_governor_and_what_it_goes_by(capsys):
    assert "networks that diverge stay as they are" in said(capsys, "describe", SPIRALS)
    (section,) = [found for found in sections_of(make_problem(SPIRALS, **ON)) if found.name == "governor"]
    known = {row["setting"]: (row["value"], row["meaning"]) for row in section.records()}
    assert set(SYMPTOMS) < set(known)
    assert known["rollback_price"][0] == 0.25
    assert "3 times the best recent one" in known["rising"][1]
