"""Families: numbered instances, shipped as data, that differ in what is seen and in what is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kasmina_env.instances import NUMBERS, draw_family, make_instances, read_family
from kasmina_env.lifecycle import Op
from kasmina_env.presets import PRESETS
from kasmina_env.shipped import config_path
from tests.episodes import ALWAYS_IDS, WAIT, digest, leaves, op_actions, small_env, small_vec

MIX = "Kasmina/DigitsMix-v0"
FAMILIES = {name: PRESETS.get(name).settings["instances"] for name in PRESETS if PRESETS.get(name).config().instances}
every_family = pytest.mark.parametrize("env_id", FAMILIES)


def document(env_id):
    return json.loads(config_path(f"{FAMILIES[env_id]}.instances.json", "").read_text())


def entry(**settled):
    return {"kernels": [1, 1, 1], "width": 8, "param_price": 0.1, **settled}


def family(tmp_path, *entries):
    """A file of a family whose train instances are given."""
    path = tmp_path / "family.json"
    path.write_text(
        json.dumps({"visible": ["param_price"], "train": entries, "test": [{**entries[0], "param_price": 1.0}]})
    )
    return str(path)


@every_family
def test_the_instances_shipped_are_those_drawn(env_id):
    shipped = document(env_id)
    for split, seed in shipped["seed"].items():
        assert draw_family(shipped["draw"], len(shipped[split]), seed) == shipped[split]


@every_family
def test_no_instance_to_test_on_is_one_to_train_on(env_id):
    shipped = document(env_id)
    assert not any(instance in shipped["train"] for instance in shipped["test"])
    instances = make_instances(PRESETS.get(env_id).config())
    assert not set(instances.split("train")) & set(instances.split("test"))
    assert len(instances) == len(shipped["train"]) + len(shipped["test"])


@pytest.mark.parametrize("env_id", ALWAYS_IDS)
def test_a_problem_without_family_has_one_instance(env_id):
    config = PRESETS.get(env_id).config()
    instances = make_instances(config)
    assert [instances.split(name).tolist() for name in ("train", "test")] == [[0], [0]]
    assert {name: instances.numbers[name][0] for name in NUMBERS} == {name: getattr(config, name) for name in NUMBERS}
    assert not any(name.startswith("instance.") for name in small_env(env_id).observation_names)


@every_family
def test_visible_facts_are_observed_and_others_are_not(env_id):
    vec, visible = small_vec(env_id, num_envs=8), document(env_id)["visible"]
    names = [name.removeprefix("instance.") for name in vec.observation_names if name.startswith("instance.")]
    assert names == visible
    observation, _ = vec.reset(seed=0)
    column = vec.observation_names.index("instance.param_price")
    prices = vec.core.instances.visible["param_price"]
    low, high = prices.min(), prices.max()
    seen = low * (high / low) ** observation[:, column]
    assert seen == pytest.approx(prices[vec.core.view.instance], rel=1e-5)


@every_family
def test_episodes_are_about_instances_to_train_on_unless_told_otherwise(env_id):
    vec = small_vec(env_id, num_envs=16, horizon=2)
    train, test = (set(vec.core.instances.split(name)) for name in ("train", "test"))
    for options, pool in ((None, train), ({"split": "test"}, test), ({}, train)):
        vec.reset(seed=0, options=options)
        for _ in range(3):  # the episode that follows, too
            assert set(vec.core.view.instance) <= pool
            vec.step(np.full(16, WAIT))


def test_an_instance_can_be_asked_for():
    vec, env = small_vec(MIX, num_envs=3, horizon=2), small_env(MIX, horizon=2)
    vec.reset(seed=0, options={"instance": [3, None, 200]})
    assert vec.core.view.instance[[0, 2]].tolist() == [3, 200]
    env.reset(seed=0, options={"instance": 200, "split": "test"})
    env.step(WAIT)
    assert env.step(WAIT)[-1]["instance"] == 200


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"instance": 1000}, "`instance` must be a number from 0 to 239, .* got 1000. Name instances that exist."),
        ({"instance": 3, "split": "test"}, "`instance` must be a number from 180 to 239, .* that exist in that split."),
        ({"instance": True}, "`instance` must be a number"),
        ({"split": "tset"}, "`split` must be one of train, test, got 'tset'. Did you mean 'test'?"),
        ({"instnace": 1}, "`options` must have only the keys instance, split, got instnace. Remove them."),
    ],
)
def test_wrong_options_are_answered_in_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        small_env(MIX).reset(options=options)


def test_every_row_pays_the_prices_of_its_own_instance(tmp_path):
    names = ("param_price", "rent_price", "operation_price")
    entries = [entry(**dict.fromkeys(names, price)) for price in (0.0, 0.5)]
    vec = small_vec(MIX, num_envs=2, instances=family(tmp_path, *entries))
    vec.reset(seed=[5, 5], options={"instance": [0, 1]})
    *_, infos = vec.step(np.full(2, op_actions(vec, Op.GERMINATE)[0]))
    assert infos["reward_terms"]["operations"].tolist() == [0.0, -0.5]
    assert infos["reward_terms"]["rent"][0] == 0.0 > infos["reward_terms"]["rent"][1]


def test_forks_and_snapshots_take_the_instance_along(tmp_path):
    entries = [entry(learning_rate=rate, label_noise=0.2) for rate in (0.001, 0.1)]
    vec = small_vec(MIX, num_envs=2, instances=family(tmp_path, *entries))
    vec.reset(seed=[5, 6], options={"instance": [0, 1]})
    saved = vec.snapshot()
    vec.copy_rows([1], [0])
    assert vec.core.view.instance.tolist() == [1, 1]
    assert vec.core.population.learning_rate.tolist() == [0.1, 0.1]
    vec.restore(saved)
    assert vec.core.view.instance.tolist() == [0, 1]
    assert vec.core.population.learning_rate.tolist() == [0.001, 0.1]


def test_the_seed_settles_the_instance_and_everything_after_it():
    seen = []
    for _ in range(2):
        env = small_env(MIX)
        seen.append([env.reset(seed=3), *(env.step(WAIT) for _ in range(10))])
    assert digest(*leaves(seen[0])) == digest(*leaves(seen[1]))


def test_instances_must_settle_the_same_things():
    config = PRESETS.get(MIX).config()
    with pytest.raises(ValueError, match="`instances` must all settle the same things, got 'digits_mix'"):
        read_family({"visible": [], "train": [entry()], "test": [entry(learning_rate=0.1)]}, config)


def test_numbers_are_drawn_from_their_ranges_and_choices_equally_often():
    draw = {"kind": {"one_of": ["a", "b"]}, "x": {"uniform": [2, 3]}, "price": {"log_uniform": [0.01, 1]}}
    drawn = draw_family(draw, 400, seed=0)
    assert sum(one["kind"] == "a" for one in drawn) == 200
    assert all(2 <= one["x"] <= 3 and 0.01 <= one["price"] <= 1 for one in drawn)
    assert np.median([one["price"] for one in drawn]) == pytest.approx(0.1, rel=0.3)
    assert drawn[:10] != draw_family(draw, 400, seed=1)[:10]
    with pytest.raises(ValueError, match="`draw` must be one of 'one_of', 'uniform' and 'log_uniform'"):
        draw_family({"x": {"normal": [0, 1]}}, 2, seed=0)
