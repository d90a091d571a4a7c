"""Families: numbered instances, shipped as data, that differ in what is seen and in what is not."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from kasmina_env.lifecycle.state import Op
from kasmina_env.settings.instances import NUMBERS, draw_family, make_instances, read_family
from kasmina_env.settings.paths import config_path
from kasmina_env.settings.presets import PRESETS
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
    prices = vec.problem.instances.visible["param_price"]
    low, high = prices.min(), prices.max()
    seen = low * (high / low) ** observation[:, column]
    assert seen == pytest.approx(prices[vec.episodes.state().instance], rel=1e-5)


@every_family
def test_episodes_are_about_instances_to_train_on_unless_told_otherwise(env_id):
    vec = small_vec(env_id, num_envs=16, horizon=2)
    train, test = (set(vec.problem.instances.split(name)) for name in ("train", "test"))
    for options, pool in ((None, train), ({"split": "test"}, test), ({}, train)):
        vec.reset(seed=0, options=options)
        for _ in range(3):  # the episode that follows, too
            assert set(vec.episodes.state().instance) <= pool
            vec.step(np.full(16, WAIT))


def test_an_instance_can_be_asked_for():
    vec, env = small_vec(MIX, num_envs=3, horizon=2), small_env(MIX, horizon=2)
    vec.reset(seed=0, options={"instance": [3, None, 200]})
    assert vec.episodes.state().instance[[0, 2]].tolist() == [3, 200]
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
        ({"instnace": 1}, "`options` must have only the keys instance, split, planted, got instnace."),
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
    assert vec.episodes.state().instance.tolist() == [1, 1]
    assert vec.episodes.local.population.learning_rate.tolist() == [0.1, 0.1]
    vec.restore(saved)
    assert vec.episodes.state().instance.tolist() == [0, 1]
    assert vec.episodes.local.population.learning_rate.tolist() == [0.001, 0.1]


def test_the_seed_settles_the_instance_and_everything_after_it():
    seen = []
    for _ in range(2):
        env = small_env(MIX)
        seen.append([env.reset(seed=3), *(env.step(WAIT) for _ in range(10))])
    assert digest(*leaves(seen[0])) == digest(*leaves(seen[1]))


def test_instances_must_have_the_same_keys():
    config = PRESETS.get(MIX).config()
    with pytest.raises(ValueError, match="`instances` must all have the same keys, unlike those of 'digits_mix'"):
        read_family({"visible": [], "train": [entry()], "test": [entry(learning_rate=0.1)]}, config)


@pytest.mark.parametrize(
    "settled, sentence",
    [
        ({"learning_rate": -5}, "`learning_rate` must be a number from 1e-08 to 1000, got -5. Correct instance 1 of "),
        (
            {"learning_rate": "0.1"},
            "`learning_rate` must be a number from 1e-08 to 1000, got '0.1'. Correct instance 1 of ",
        ),
        ({"label_noise": 7}, "`label_noise` must be a number from 0 to below 1, got 7. Correct instance 1 of "),
        ({"pixel_noise": True}, "`pixel_noise` must be a number from 0 to 1000, got True. Correct instance 1 of "),
        ({"rent_price": float("nan")}, "`rent_price` must be a number from 0 to 1000, got nan. Correct instance 1 of "),
        (
            {"param_price": float("inf")},
            "`param_price` must be a number from 0 to 1000, got inf. Correct instance 1 of ",
        ),
        ({"width": 8.0}, "`width` must be an integer, got 8.0. Change it in `instances`."),
        ({"widht": 8}, "`instances` must be one of in_channels, "),
    ],
)
def test_values_of_an_instance_keep_the_rules_of_their_settings(tmp_path, settled, sentence):
    (name,) = settled
    fine = entry(**{name: 0.5 if name in NUMBERS else 8})
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        small_env(MIX, instances=family(tmp_path, fine, {**fine, **settled}))


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"train": None}, "`train` must be a non-empty list of instances, got None. Correct it in 'digits_mix'."),
        ({"train": []}, "`train` must be a non-empty list of instances, got []. Correct it in 'digits_mix'."),
        ({"test": [3]}, "`test` must be a non-empty list of instances, got [3]. Correct it in 'digits_mix'."),
        ({"visible": "width"}, "`visible` must be a list of names, got 'width'. Correct it in 'digits_mix'."),
        ({"visible": [1]}, "`visible` must be a list of names, got [1]. Correct it in 'digits_mix'."),
        ({"visible": ["kernels"]}, "`visible` must name numbers, got 'kernels', which is [1, 1, 1] in an instance."),
        (
            {"visible": ["widht"]},
            "`visible` must be one of kernels, width, param_price, got 'widht'. Did you mean 'width'?",
        ),
        ({"train": [{}], "test": [{}], "visible": ["x"]}, "`visible` must be one of (nothing), got 'x'."),
    ],
    ids=str,
)
def test_a_wrong_part_of_a_family_is_named_in_one_sentence(changes, sentence):
    whole = {"visible": ["param_price"], "train": [entry()], "test": [entry()], **changes}
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_family(whole, PRESETS.get(MIX).config())


@pytest.mark.parametrize("part", ["train", "test", "visible"])
def test_a_missing_part_of_a_family_is_named(part):
    whole = {"visible": [], "train": [entry()], "test": [entry()]}
    del whole[part]
    with pytest.raises(
        ValueError, match=rf"^`{part}` must be a .*list of .*, got None\. Correct it in 'digits_mix'\.$"
    ):
        read_family(whole, PRESETS.get(MIX).config())


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"{", r"`.*family.json` must be a JSON file, got another one: Expecting .*\. Name or write it anew\."),
        (b"\xff", r"`.*family.json` must be a JSON file, got another one: .*decode .*\. Name or write it anew\."),
        (b"[1, 2]", r"`.*family.json` must hold a JSON object, got \[1, 2\]\. Name or write it anew\."),
    ],
    ids=["cut", "bytes", "list"],
)
def test_a_file_that_is_no_family_is_refused(tmp_path, content, sentence):
    (tmp_path / "family.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        small_env(MIX, instances=str(tmp_path / "family.json"))


@pytest.mark.parametrize(
    "name, message", [("no.json", "`instances` must name a file that exists, got 'no.json'"), ("no", "no.inst")]
)
def test_a_family_that_is_nowhere_is_a_file_not_found(name, message):
    with pytest.raises(
        FileNotFoundError, match=rf"^.*{message}.*\. Name a family that comes with the package, or a file\.$"
    ):
        small_env(MIX, instances=name)


def test_numbers_are_drawn_from_their_ranges_and_choices_equally_often():
    draw = {"kind": {"one_of": ["a", "b"]}, "x": {"uniform": [2, 3]}, "price": {"log_uniform": [0.01, 1]}}
    drawn = draw_family(draw, 400, seed=0)
    assert sum(one["kind"] == "a" for one in drawn) == 200
    assert all(2 <= one["x"] <= 3 and 0.01 <= one["price"] <= 1 for one in drawn)
    assert np.median([one["price"] for one in drawn]) == pytest.approx(0.1, rel=0.3)
    assert drawn[:10] != draw_family(draw, 400, seed=1)[:10]
    with pytest.raises(ValueError, match="`draw` must be one of 'one_of', 'uniform', 'log_uniform' and 'drift'"):
        draw_family({"x": {"normal": [0, 1]}}, 2, seed=0)
