"""Episodes as text: what there is, what was done, and what became of it; and the rules."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest

from kasmina_env.lifecycle.state import Op
from tests.episodes import IDS, SMALL, WAIT, dead_row, digest, op_actions, play_lively, small_env, small_vec


@pytest.mark.parametrize("env_id", IDS)
def test_panel_names_every_slot_the_action_and_the_seed(env_id):
    env = small_env(env_id, render_mode="ansi")
    env.reset(seed=0)
    germinate = int(op_actions(env, Op.GERMINATE)[-1])
    env.step(germinate)
    panel = env.render()
    _, slot, blueprint, operator, _ = env.action_names[germinate].split()
    assert all(name in panel for name in env.problem.slot_names)
    assert env.action_names[germinate] in panel
    assert f"{blueprint} {operator}" in next(line for line in panel.splitlines() if line.startswith(slot))
    assert "TRAINING" in panel


@pytest.mark.parametrize("env_id", IDS)
def test_panel_tells_how_far_the_episode_is(env_id):
    env = small_env(env_id, render_mode="ansi")
    env.reset(seed=0)
    assert "0/10" in env.render()
    assert "DORMANT" in env.render()
    env.step(WAIT)
    assert "1/10" in env.render()


@pytest.mark.parametrize("env_id", IDS)
def test_panel_says_that_an_action_was_not_legal(env_id):
    env = small_env(env_id, render_mode="ansi")
    env.reset(seed=0)
    fossilize = int(op_actions(env, Op.FOSSILIZE)[0])
    env.step(fossilize)
    assert f"{env.action_names[fossilize]}  (not legal" in env.render()
    env.step(WAIT)
    assert "not legal" not in env.render()


@pytest.mark.parametrize("env_id", IDS)
def test_panel_says_that_a_combination_is_in_no_menu(env_id):
    env = small_env(env_id, render_mode="ansi", action_space="factored")
    env.reset(seed=0)
    prune_tempo = env.problem.actions.menus["tempo"].index(0)
    env.step([Op.GERMINATE, 0, 0, 0, prune_tempo, 0, 0])
    assert "not in the table  (not legal" in env.render()


@pytest.mark.parametrize("env_id", IDS)
def test_panel_says_that_the_network_died(env_id):
    env = small_env(env_id, render_mode="ansi")
    env.reset(seed=0)
    dead_row(env)
    env.step(WAIT)
    assert "NETWORK DIED" in env.render()


@pytest.mark.parametrize("env_id", IDS)
def test_looking_changes_nothing(env_id):
    env = small_env(env_id, render_mode="ansi")
    play_lively(env, num_steps=6)
    before = digest(env.snapshot())
    assert env.render() == env.render()
    assert digest(env.snapshot()) == before


@pytest.mark.parametrize("env_id", IDS)
def test_vector_gives_the_panels_of_its_rows(env_id):
    vec, env = small_vec(env_id, num_envs=3, render_mode="ansi"), small_env(env_id, render_mode="ansi")
    vec.reset(seed=0), env.reset(seed=2)
    assert len(vec.render()) == 3
    assert vec.render()[2] == env.render()


def test_without_a_render_mode_there_is_nothing_to_see():
    env, vec = small_env(IDS[0]), small_vec(IDS[0])
    env.reset(), vec.reset()
    assert env.render() is vec.render() is None


@pytest.mark.parametrize("entry_point", ["KasminaEnv", "KasminaVectorEnv"])
def test_unknown_render_mode_is_refused(entry_point):
    import kasmina_env

    arguments = {"preset": IDS[0], "render_mode": "ascii", **({"num_envs": 2} if "Vector" in entry_point else {})}
    with pytest.raises(ValueError, match=r"^`render_mode` must be one of .*, got 'ascii'. Did you mean 'ansi'"):
        getattr(kasmina_env, entry_point)(**arguments)


@pytest.mark.parametrize("env_id", IDS)
def test_wrappers_of_gymnasium_collect_panels(env_id):
    env = gym.make(env_id, render_mode="ansi_list", **SMALL)
    env.reset(seed=0)
    env.step(WAIT)
    assert len(env.render()) == 2


@pytest.mark.needs("matplotlib")
def test_pictures_have_one_size_and_stay_as_they_were_when_they_were_taken():
    env = small_env("Kasmina/Spirals-v0", render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    kept = first.copy()
    frames = [first, *(env.render() for _ in range(2) if env.step(1))]
    env.reset()
    assert {(frame.shape, str(frame.dtype)) for frame in [*frames, env.render()]} == {(first.shape, "uint8")}
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, frames[-1])


def test_rent_is_that_of_the_instance(tmp_path):
    family = tmp_path / "family.json"
    entries = [{"rent_price": price} for price in (0.5, 0.25)]
    family.write_text(json.dumps({"draw": {}, "visible": [], "train": entries[:1], "test": entries[1:]}))
    env = small_env("Kasmina/Spirals-v0", render_mode="ansi", instances=str(family))
    play_lively(env)
    spent = env.episodes.state().compute_spent[0]
    assert spent > 0
    assert f"rent paid {0.5 * spent:.4f}" in env.render()
