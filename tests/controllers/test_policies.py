"""Controllers, schedules and the rollout loop."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kasmina_env.comparison.arms import CONTROLS
from kasmina_env.controllers.policy import HELD_OUT, MAX_SEED, make_env, names_of, play
from kasmina_env.controllers.schedule import Fixed, Planned, actions_of, load_schedule, save_schedule
from kasmina_env.controllers.scripted import Plateau, Random, Wait
from kasmina_env.controllers.search import measure, neighbours, random_plan

SMALL = {"batches_per_step": 1, "batch_size": 8, "watch_samples": 32, "score_samples": 32}
IDS = ("Kasmina/Spirals-v0", "Kasmina/Digits-v0")


def small_env(preset: str, num_envs: int = 3, **settings: object):
    return make_env(preset, num_envs, **{**SMALL, **settings})


@pytest.mark.parametrize("preset", IDS)
@pytest.mark.parametrize("control", ["wait", "random", "plateau"])
def test_control_plays_only_legal_actions(preset, control):
    env = small_env(preset)
    episodes = play(env, CONTROLS.get(control).make(env), np.arange(3))
    assert episodes.illegal.sum() == 0
    assert (episodes.actions >= 0).all()


def test_return_is_the_change_of_score_minus_what_it_cost():
    env = small_env("Kasmina/Spirals-v0")
    episodes = play(env, Random(), np.arange(3))
    change = episodes.curves[:, -1] - episodes.curves[:, 0]
    assert (episodes.returns <= change + 1e-9).all()
    assert episodes.curves[:, -1] == pytest.approx(episodes.scores)


def test_waiting_costs_nothing():
    episodes = play(small_env("Kasmina/Spirals-v0"), Wait(), np.arange(3))
    assert episodes.returns == pytest.approx(episodes.scores - episodes.curves[:, 0])
    assert (episodes.computes == 0).all()


def test_episodes_do_not_depend_on_how_many_are_played_side_by_side():
    alone = play(small_env("Kasmina/Spirals-v0", 1, dtype="float64"), Wait(), np.arange(4))
    together = play(small_env("Kasmina/Spirals-v0", 4, dtype="float64"), Wait(), np.arange(4))
    assert alone.scores == pytest.approx(together.scores)


def test_more_episodes_than_rows_are_played_in_batches():
    episodes = play(small_env("Kasmina/Spirals-v0", 2), Wait(), np.arange(5))
    assert len(np.unique(episodes.curves[:, 1:], axis=0)) == len(episodes.returns) == 5


def test_plan_is_carried_out_and_fossilized():
    env = small_env("Kasmina/Spirals-v0")
    names = names_of(env)
    plan = (Planned(0, "layer0", "mlp", "ADD", 3), Planned(0, "layer1", "lora", "GATE", 5))
    episodes = play(env, Fixed(names, actions_of(plan, names, 2, instant=False)), np.arange(3))
    assert episodes.illegal.sum() == 0
    assert episodes.param_growths == pytest.approx(
        env.problem.costs.seed_parameters[[0, 1], [3, 1], [0, 2]].sum() / 123
    )


def test_schedules_may_differ_from_row_to_row():
    env = small_env("Kasmina/Spirals-v0", 2)
    names = names_of(env)
    grow = actions_of((Planned(0, "layer0", "mlp", "ADD", 3),), names, 2, instant=False)
    episodes = play(env, Fixed(names, np.stack([grow, np.zeros_like(grow)])), np.array([0, 0]))
    assert episodes.param_growths[0] > 0 == episodes.param_growths[1]


def test_schedule_survives_its_file(tmp_path):
    names = names_of(small_env("Kasmina/Spirals-v0", 1))
    actions = actions_of((Planned(3, "layer1", "lora", "GATE", 5),), names, 2, instant=False)
    save_schedule(tmp_path / "x.json", "Kasmina/Spirals-v0", names, actions, {})
    assert (load_schedule(tmp_path / "x.json", names) == actions).all()


def test_schedule_of_other_settings_is_refused_in_one_sentence(tmp_path):
    names = names_of(small_env("Kasmina/Spirals-v0", 1))
    (tmp_path / "x.json").write_text(json.dumps({"steps": {"2": "GERMINATE attic mlp ADD tempo3"}}))
    with pytest.raises(ValueError, match=r"`x\.json` must hold actions .* got 'GERMINATE attic mlp ADD tempo3'"):
        load_schedule(tmp_path / "x.json", names)


def test_plateau_waits_while_accuracy_rises_and_grows_when_it_stalls():
    names = names_of(small_env("Kasmina/Spirals-v0", 1))
    observation, mask = np.zeros((1, len(names.observation)), dtype=np.float32), np.ones((1, len(names.action)), bool)
    mask[0] = [name.startswith(("WAIT", "GERMINATE")) for name in names.action]
    policy, observation[0, names.column("progress")] = Plateau(names), 0.5
    observation[0, names.column("accuracy_change_3")] = 0.2
    assert names.action[policy.act(observation, mask)[0]] == "WAIT"
    observation[0, names.column("accuracy_change_3")] = 0.0
    assert names.action[policy.act(observation, mask)[0]].startswith("GERMINATE layer0 layer_norm")
    assert names.action[policy.act(observation, mask)[0]].startswith("GERMINATE layer0 lora")


@pytest.mark.parametrize("preset", IDS)
def test_the_shipped_schedule_fits_its_environment(preset):
    env = make_env(preset, 1)
    assert CONTROLS.get("fixed").make(env) is not None


def test_neighbour_plans_differ_from_their_origin():
    rng, config = np.random.default_rng(0), small_env("Kasmina/Digits-v0", 1).problem.config
    slots = ("block0", "block1", "block2")
    plan = random_plan(rng, config, slots)
    assert all(other != plan for other in neighbours(rng, plan, config, slots, 20))


def test_searches_never_see_held_out_seeds():
    assert MAX_SEED < HELD_OUT


def test_plans_are_measured_on_the_same_episodes_whatever_the_number_of_rows():
    grow, seeds = (Planned(0, "layer0", "mlp", "ADD", 3),), np.array([5, 6, 7])
    env = small_env("Kasmina/Spirals-v0", 4, dtype="float64")
    returns = measure(env, [(), grow], seeds)
    assert returns[0] == pytest.approx(play(env, Wait(), seeds).returns)
    assert returns[1] == pytest.approx(measure(env, [grow], seeds)[0])
    assert (returns[0] != returns[1]).all()


def test_equal_plans_are_played_once():
    grow, seeds, played = (Planned(0, "layer0", "mlp", "ADD", 3),), np.array([5, 6]), []
    env = small_env("Kasmina/Spirals-v0", 4)
    returns = measure(env, [grow, (), grow], seeds, on_step=played.append)
    assert sum(played) == 2 * len(seeds) * env.problem.config.horizon
    assert (returns[0] == returns[2]).all()
    assert (returns[0] != returns[1]).all()
