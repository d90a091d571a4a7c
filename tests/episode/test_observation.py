"""Observations: named, bounded and finite, alive in every entry, and true to what they describe."""

from __future__ import annotations

import numpy as np
import pytest

from kasmina_env import KasminaVectorEnv
from kasmina_env.episode.features import FEATURES, GROUPS
from kasmina_env.lifecycle.state import Op, Stage
from kasmina_env.settings.config import SIGNALS
from kasmina_env.settings.presets import PRESETS
from tests.contract import plant
from tests.episodes import (
    IDS,
    PRICED_ALIKE,
    SMALL,
    WAIT,
    lively_actions,
    mixed_actions,
    op_actions,
    play_lively,
    small_env,
    small_vec,
)

OF_LIVES = ("horizon", "tempos", "prune_tempos", "min_training_steps", "min_prune_age", "embargo_steps")
CAN_BE_CONSTANT = (".exploding", ".vanishing")  # gradients of healthy networks do neither


def column(env, obs, name):
    """One entry of the observations, by name."""
    return obs[..., env.observation_names.index(name)]


@pytest.mark.parametrize("env_id", IDS)
def test_every_entry_has_a_name_a_meaning_and_finite_bounds(env_id):
    env = small_env(env_id)
    table, space = env.problem.observations, env.observation_space
    assert len(set(env.observation_names)) == len(env.observation_names) == len(table.meanings) == space.shape[0]
    assert space.dtype == np.float32
    assert np.isfinite([space.low, space.high]).all()
    assert (space.low < space.high).all()


@pytest.mark.parametrize("env_id", IDS)
def test_names_are_those_of_the_table_of_features(env_id):
    env = small_env(env_id)
    features = [f for f in FEATURES if f.labels(env.problem.config, env.problem.instances) != ()]
    scopes = {f.name: env.problem.slot_names if f.is_per_slot else ("",) for f in features}
    facts = [f"instance.{fact}" for fact in env.problem.instances.visible]
    stems = {"instance" if name in facts else name.partition("=")[0] for name in env.observation_names}
    assert stems == {f"{scope}.{name}".lstrip(".") for name, of in scopes.items() for scope in of}
    assert all(feature.meaning.endswith(".") for feature in features)


@pytest.mark.parametrize("settings", [{}, {"instant": True}, {"learning_rate": 30.0}, {"optimizer": "sgd"}], ids=str)
@pytest.mark.parametrize("env_id", IDS)
def test_observation_is_finite_float32_and_within_its_bounds(env_id, settings):
    vec, rng = small_vec(env_id, num_envs=16, **settings), np.random.default_rng(0)
    seen = [vec.reset(seed=0)[0], *(vec.step(mixed_actions(rng, vec))[0] for _ in range(22))]
    assert all(obs.dtype == np.float32 and vec.observation_space.contains(obs) for obs in seen)
    assert np.isfinite(seen).all()


@pytest.mark.parametrize("env_id", IDS)
def test_no_entry_of_a_preset_is_constant(env_id):
    kept = {name: getattr(PRESETS.get(env_id).config(), name) for name in OF_LIVES}
    vec, rng = small_vec(env_id, num_envs=24, **kept, watch_samples=32), np.random.default_rng(0)
    seen = [vec.reset(seed=0)[0]]
    seen += [vec.step(mixed_actions(rng, vec))[0] for _ in range(vec.problem.config.horizon)]
    obs = np.concatenate(seen)
    constant = np.array(vec.observation_names)[np.ptp(obs, axis=0) == 0]
    assert [name for name in constant if not name.endswith(CAN_BE_CONSTANT)] == []


@pytest.mark.parametrize("value, entry", [(0.0, "vanishing"), (np.nan, "exploding")], ids=str)
@pytest.mark.parametrize("env_id", IDS)
def test_sick_gradients_are_told_of_their_slot(env_id, value, entry):
    vec = small_vec(env_id, num_envs=4, min_training_steps=3)
    vec.reset(seed=0)
    germinate = op_actions(vec, Op.GERMINATE)
    for slot, name in enumerate(vec.problem.slot_names):
        vec.step(np.where(np.arange(4) == slot, germinate[vec.problem.actions.slot[germinate] == slot][-1], WAIT))
        plant(vec.episodes.local.population, slot, value, slots=[slot])
        obs = vec.step(np.full(4, WAIT))[0]
        assert np.array_equal(column(vec, obs, f"{name}.{entry}") > 0, np.arange(4) == slot)


def test_the_gradient_of_a_seed_is_per_parameter_of_what_was_measured_whatever_its_operator():
    vec = small_vec("Kasmina/Spirals-v0", num_envs=2, min_training_steps=3)
    vec.reset(seed=[0, 0])
    names = [f"GERMINATE layer0 layer_norm {operator} tempo1" for operator in ("ADD", "GATE")]
    obs = vec.step([vec.action_names.index(name) for name in names])[0]
    plain, gated = column(vec, obs, "layer0.gradient_ratio")
    assert plain > 0
    assert gated == pytest.approx(plain, rel=0.2)  # a fresh gate lets 0.95 through; with its parameters: 0.4


@pytest.mark.parametrize("env_id", IDS)
def test_slots_are_described_by_their_own_entries(env_id):
    vec, rng = small_vec(env_id, num_envs=16), np.random.default_rng(1)
    vec.reset(seed=1)
    for _ in range(9):
        obs, state, config = vec.step(lively_actions(rng, vec))[0], vec.episodes.state().lifecycle, vec.problem.config
        for slot, name in enumerate(vec.problem.slot_names):
            for stage in Stage:
                told = column(vec, obs, f"{name}.stage={stage.name}")
                assert (told == (state.stage[:, slot] == stage)).all()
            for code, blueprint in enumerate(config.blueprints):
                told = column(vec, obs, f"{name}.blueprint={blueprint}")
                assert (told == (state.blueprint[:, slot] == code)).all()
            assert np.allclose(column(vec, obs, f"{name}.alpha"), state.alpha.value[:, slot])


@pytest.mark.parametrize("env_id", IDS)
def test_what_was_never_measured_is_not_what_was_measured_as_zero(env_id):
    env = small_env(env_id)
    slot, germinate = env.problem.slot_names[0], op_actions(env, Op.GERMINATE)[0]
    flags = [f"{slot}.{name}" for name in ("has_gradients", "has_contribution")]
    obs = env.reset(seed=0)[0]
    assert [column(env, obs, flag) for flag in flags] == [0, 0]
    obs = env.step(germinate)[0]
    assert [column(env, obs, flag) for flag in flags] == [1, 0]  # in TRAINING
    obs = env.step(op_actions(env, Op.ADVANCE)[0])[0]
    assert [column(env, obs, flag) for flag in flags] == [1, 1]  # alpha > 0


@pytest.mark.parametrize("env_id", IDS)
def test_rent_can_be_told_from_the_observation(env_id):
    vec = small_vec(env_id, num_envs=8, rent_price=0.7, **PRICED_ALIKE)
    spent = 0.0
    for obs, *_, infos in play_lively(vec, num_steps=9)[1:]:
        growth = 2 ** (6 * column(vec, obs, "compute_growth").astype(float)) - 1
        assert np.allclose(infos["reward_terms"]["rent"], -0.7 * growth / 10, rtol=1e-3, atol=1e-6)
        spent = spent - infos["reward_terms"]["rent"]
        assert np.allclose(column(vec, obs, "rent_paid"), 10 * spent / (1 + 10 * spent), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("env_id", IDS)
def test_price_of_fossilized_parameters_can_be_told_from_the_observation(env_id):
    vec = small_vec(env_id, num_envs=32, param_price=0.3, **PRICED_ALIKE)
    steps = play_lively(vec, num_steps=9)
    for obs, *_, infos in steps:
        price = 0.3 * 6 * column(vec, obs, "fossil_growth")
        assert np.allclose(infos["quality"] - infos["score"], price, rtol=1e-4, atol=1e-6)
    assert (steps[-1][-1]["num_fossilized"] > 0).any()


@pytest.mark.parametrize("env_id", IDS)
def test_last_action_is_told_with_whether_it_was_legal(env_id):
    env = small_env(env_id)
    env.reset(seed=0)
    germinate, fossilize = (op_actions(env, op)[0] for op in (Op.GERMINATE, Op.FOSSILIZE))
    obs = env.step(germinate)[0]
    assert column(env, obs, "last_op=GERMINATE") == column(env, obs, "last_action_legal") == 1
    obs = env.step(fossilize)[0]
    assert column(env, obs, "last_op=FOSSILIZE") == 1
    assert column(env, obs, "last_action_legal") == 0


@pytest.mark.parametrize("env_id", IDS)
def test_changes_of_accuracy_are_differences_of_what_was_seen(env_id):
    steps = play_lively(env := small_env(env_id), num_steps=9)
    accuracy = [float(column(env, step[0], "accuracy")) for step in steps]
    for span in (1, 3, 8):
        told = column(env, steps[9][0], f"accuracy_change_{span}")
        assert told == pytest.approx(accuracy[9] - accuracy[9 - span], abs=1e-6)
    assert column(env, steps[9][0], "best_accuracy") == pytest.approx(max(accuracy))


@pytest.mark.parametrize("env_id", IDS)
def test_observations_do_not_share_memory_with_later_ones(env_id):
    env = small_env(env_id)
    first = env.reset(seed=0)[0]
    kept = first.copy()
    env.step(op_actions(env, Op.GERMINATE)[0])
    assert (first == kept).all()


def test_menus_of_one_entry_leave_their_features_out():
    env = small_env(IDS[0], operators=("ADD",), targets=())
    assert not any(".operator=" in name or name == "last_op=SET_ALPHA_TARGET" for name in env.observation_names)
    obs = env.reset(seed=0)[0]
    assert env.observation_space.contains(obs)


def test_every_feature_but_the_time_is_in_one_group():
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted([*grouped, "progress"]) == sorted(feature.name for feature in FEATURES)
    assert tuple(GROUPS) == SIGNALS


@pytest.mark.parametrize("group", SIGNALS)
def test_a_hidden_group_is_not_observed_and_nothing_else_changes(group):
    whole, part = (KasminaVectorEnv(2, "Kasmina/DigitsMix-v0", **SMALL, hidden=hidden) for hidden in ((), (group,)))
    kept = np.setdiff1d(np.arange(len(whole.problem.observations.names)), whole.problem.observations.columns(group))
    assert 0 < len(kept) < len(whole.problem.observations.names)
    seen, left = (env.reset(seed=0)[0] for env in (whole, part))
    assert np.array_equal(seen[:, kept], left)
    assert np.array_equal(whole.step([1, 2])[0][:, kept], part.step([1, 2])[0])
