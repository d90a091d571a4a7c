"""The settings of an environment: every rule refuses what it must, in one clear line."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path  # noqa: F401  (looked up by an annotation below)
from typing import Any, Union  # noqa: F401

import gymnasium as gym
import pytest

from kasmina_env import PRESETS
from kasmina_env.settings.config import SETTINGS, check_nested, make_config
from tests.episodes import IDS, SMALL, small_env

MENU = {"blueprints": ("norm",)}
NOT_COUNTS = (-1, 2.0, True, "3", None, 10**20)
NOT_PRICES = (-0.1, float("nan"), float("inf"), "free", True, 1e300, 10**400)
NOT_RATES = (*NOT_PRICES, 0, 1e-320)
REFUSED = {
    "task": ("", 3, None),
    "task_settings": ([], None),
    "host": ("", 3),
    "host_settings": ("width", 3),
    "initial_weights": (None, 3),
    "horizon": (*NOT_COUNTS, 0, 1, 10**7),
    "batches_per_step": (*NOT_COUNTS, 0),
    "batch_size": (*NOT_COUNTS, 0),
    "augment": ("", None, "flip", ["shift"]),
    "optimizer": ("Adam", "", None, ["adam"]),
    "learning_rate": NOT_RATES,
    "decay": ("", None, "cosine"),
    "host_factor": NOT_PRICES,
    "birth_gain": NOT_PRICES,
    "clip_norm": NOT_PRICES,
    "blueprints": ("norm", (), ("norm", "norm"), (1,), None, ({},)),
    "operators": ("ADD", (), ("ADD", "ADD"), ("add",), (0,), ({"ADD": 1},)),
    "tempos": (3, (), (3, 3), (0,), (2.5,), (True,)),
    "prune_tempos": (0, (), (0, 0), (-1,), (0.5,)),
    "targets": (0.5, (0.5, 0.5), (0.0,), (1.1,), (float("nan"),), ("half",), (1e-300,)),
    "curves": ("LINEAR", (), ("linear",), ("COSINE", "COSINE")),
    "min_training_steps": NOT_COUNTS,
    "min_prune_age": NOT_COUNTS,
    "embargo_steps": NOT_COUNTS,
    "min_contribution": (float("nan"), "0", True, 5, -1.5),
    "instant": (1, None, "yes"),
    "instances": (None, 3),
    "label_noise": (*NOT_PRICES, 1.0, 1.5),
    "pixel_noise": NOT_PRICES,
    "warmup_batches": NOT_COUNTS,
    "warmup_learning_rate": NOT_RATES,
    "objective": ("", "average", None, ["mean"]),
    "param_price": NOT_PRICES,
    "rent_price": NOT_PRICES,
    "upkeep_price": NOT_PRICES,
    "operation_price": NOT_PRICES,
    "reward": ("", 3),
    "hidden": ("gradients", ["colour"], (1,)),
    "watch_samples": (*NOT_COUNTS, 0),
    "score_samples": (*NOT_COUNTS, 0),
    "success_score": (float("nan"), "0.5", None, 1e300, 1.5),
    "governor": (1, None, "yes", {}),
    "divergence_loss": (*NOT_PRICES, 1.0),
    "divergence_rise": (*NOT_PRICES, 1.0),
    "max_rollbacks": NOT_COUNTS,
    "rollback_factor": (*NOT_PRICES, 0, 1.5),
    "rollback_price": NOT_PRICES,
}


def test_every_setting_has_bad_values():
    assert list(SETTINGS) == list(REFUSED)


@pytest.mark.parametrize("key, value", [(key, value) for key, values in REFUSED.items() for value in values])
def test_bad_value_is_refused_in_one_line_with_key_rule_and_value(key, value):
    with pytest.raises(ValueError, match=rf"^`{key}` must \S") as caught:
        make_config(MENU, {key: value})
    frozen = tuple(value) if isinstance(value, list) else value
    assert re.fullmatch(r"[^\n]+, got " + re.escape(repr(frozen)) + r"\. [A-Z][^\n]+\.", str(caught.value))
    assert " ," not in str(caught.value)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"min_training_steps": 10}, "`min_training_steps` must be at most 9 in episodes of 10 steps, got 10. "),
        ({"min_prune_age": 11}, "`min_prune_age` must be at most 10 in episodes of 10 steps, got 11. "),
        ({"embargo_steps": 11}, "`embargo_steps` must be at most 10 in episodes of 10 steps, got 11. "),
        ({"horizon": 2}, "`embargo_steps` must be at most 2 in episodes of 2 steps, got 3. "),
        ({"tempos": (3, 101)}, "`tempos` must be at most ten times the horizon of 10 steps, got 101. "),
        ({"prune_tempos": (0, 10**30)}, "`prune_tempos` must be at most ten times the horizon of 10 steps, got 10000"),
    ],
)
def test_lengths_that_no_episode_can_meet_are_refused_together_with_the_horizon(changes, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        make_config({**MENU, "horizon": 10}, changes)


def test_more_samples_in_a_step_than_make_sense_are_refused():
    sentence = (
        "`batch_size` times `batches_per_step` must be at most 10000000, got 10000 times 10000. Lower one of them."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make_config(MENU, {"batch_size": 10_000, "batches_per_step": 10_000})


def test_lengths_that_an_episode_just_meets_are_accepted():
    lengths = {"min_training_steps": 9, "min_prune_age": 10, "embargo_steps": 10, "tempos": (100,)}
    config = make_config({**MENU, "horizon": 10}, lengths)
    assert {name: getattr(config, name) for name in lengths} == lengths
    assert make_config({**MENU, "horizon": 10}, {"min_training_steps": 12, "instant": True}).instant


@pytest.mark.parametrize("key, nearest", [("horzion", "horizon"), ("tempo", "tempos"), ("lr", None)])
def test_unknown_setting_is_refused_and_the_nearest_is_named(key, nearest):
    with pytest.raises(ValueError, match=f"^`setting` must be one of .*, got '{key}'") as caught:
        make_config(MENU, {key: 1})
    assert (f"Did you mean '{nearest}'?" in str(caught.value)) == (nearest is not None)


@pytest.mark.parametrize("key", ["host_settings", "task_settings"])
@pytest.mark.parametrize("env_id", IDS)
def test_unknown_nested_setting_is_refused_and_the_known_are_listed(env_id, key):
    with pytest.raises(ValueError, match=f"^`{key}` must be one of .*, got 'no_such_thing'"):
        small_env(env_id, **{key: {"no_such_thing": 1}})


@pytest.mark.parametrize(
    "problem, key, name, value, rule",
    [
        ("Spirals", "host_settings", "width", 8.0, "be an integer"),
        ("Spirals", "host_settings", "width", True, "be an integer"),
        ("Spirals", "host_settings", "depth", "2", "be an integer"),
        ("Spirals", "host_settings", "is_linear", 1, "be True or False"),
        ("Spirals", "task_settings", "turns", float("nan"), "be a finite number"),
        ("Spirals", "task_settings", "num_classes", None, "be an integer"),
        ("Digits", "host_settings", "kernels", 3, "be a tuple of integers"),
        ("Digits", "host_settings", "kernels", (3, 3.0, 3), "be a tuple of integers"),
        ("Digits", "host_settings", "pools", "0", "be a tuple of integers or be None"),
        ("Digits", "host_settings", "pooling", ("max",), "be a string"),
        ("Text", "task_settings", "context", "16", "be an integer"),
    ],
)
def test_nested_setting_of_another_kind_is_refused_in_one_line(problem, key, name, value, rule):
    with pytest.raises(ValueError, match=rf"^`{name}` must {rule}, got ") as caught:
        small_env(f"Kasmina/{problem}-v0", **{key: {name: value}})
    assert str(caught.value).endswith(f", got {value!r}. Change it in `{key}`.")


@pytest.mark.parametrize(
    "problem, key, name, value",
    [("Spirals", "task_settings", "num_classes", 0), ("Text", "task_settings", "context", -1)],
)
def test_nested_count_below_one_is_refused(problem, key, name, value):
    with pytest.raises(ValueError, match=rf"^`{name}` must be from 1 to 1048576, got {value}\. Raise it\.$"):
        small_env(f"Kasmina/{problem}-v0", **{key: {name: value}})


NAMES = Mapping[str, Any]
# An annotation, values that it allows, and values that it does not.
KINDS = {
    "int": (int, (3, -1), (8.0, "8", None, (8,), True)),
    "in quotes": ("int", (3,), (8.0,)),
    "float": (float, (3, 0.5), (float("nan"), float("inf"), "1", True, 10**400)),
    "bool": (bool, (True,), (1, None)),
    "str": (str, ("a", ""), (1, None)),
    "a union": (int | None, (3, None), (0.5,)),
    "an old union": ("Union[int, None]", (3, None), (0.5,)),
    "a union with a tuple": (int | tuple[int, ...], (3, (3, 4)), ((3.0,), "3")),
    "a tuple": (tuple[float, ...], ((), (1, 0.5)), (3, [1.0], ("a",))),
    "a mapping": (NAMES, ({}, {"a": 1}), ([], None, 3)),
    "a bare mapping": (Mapping, ({},), (3,)),
    "a union with an unknown kind": ("int | Path", (3, "a", None), ()),
    "a kind that is not checked": (list[int], (3, "a", None), ()),
    "a class": (complex, (3, "a"), ()),
    "a name that only a type checker knows": ("Size", (3, "a"), ()),
}


@pytest.mark.parametrize("annotation, allowed, refused", KINDS.values(), ids=list(KINDS))
def test_annotations_say_what_nested_settings_must_be(annotation, allowed, refused):
    def make(width, depth=2):
        """Stand for a host."""

    make.__annotations__ = {"width": annotation}
    for value in allowed:
        check_nested("host_settings", make, {"width": value, "depth": value})
    for value in refused:
        with pytest.raises(ValueError, match=r"^`width` must be .*, got .*\. Change it in `host_settings`\.$"):
            check_nested("host_settings", make, {"width": value})


@dataclasses.dataclass(frozen=True)
class Sized:
    """Stand for a host whose annotations are text."""

    width: int = 3


class Plain:
    """Stand for a host that is no dataclass."""

    def __init__(self, width: int = 3) -> None:
        self.width = width


@pytest.mark.parametrize("make", [Sized, Plain, functools.partial(Sized)], ids=["dataclass", "class", "partial"])
def test_annotations_are_found_whatever_makes_the_host(make):
    check_nested("host_settings", make, {"width": 4})
    with pytest.raises(ValueError, match=r"^`width` must be an integer, got 'x'"):
        check_nested("host_settings", make, {"width": "x"})


@pytest.mark.parametrize("key", ["task", "host", "reward", "blueprints"])
def test_unknown_registered_name_is_refused_and_the_known_are_listed(key):
    value = ("no_such_thing",) if key == "blueprints" else "no_such_thing"
    with pytest.raises(KeyError, match=r"must be one of .*, got 'no_such_thing'"):
        small_env(IDS[0], **{key: value})


@pytest.mark.parametrize("maker", [gym.make, gym.make_vec])
def test_typing_mistake_in_make_is_refused_with_the_nearest_name(maker):
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'horizn'\. Did you mean 'horizon'"):
        maker(IDS[0], horizn=3)


@pytest.mark.parametrize("argument", ["action_space", "dtype", "preset"])
@pytest.mark.parametrize("maker", [gym.make, gym.make_vec])
def test_unknown_choice_of_an_argument_is_refused(maker, argument):
    with pytest.raises((ValueError, KeyError), match=r"must be one of .*, got 'nonsense'"):
        maker(IDS[0], **{argument: "nonsense"})


@pytest.mark.parametrize("key", ["watch_samples", "score_samples"])
def test_more_samples_than_the_split_has_are_refused(key):
    with pytest.raises(ValueError, match=rf"^`{key}` must be at most \d+, got 99999"):
        small_env(IDS[0], **{key: 99_999})


def test_host_that_does_not_fit_the_task_is_refused():
    with pytest.raises(ValueError, match=r"^`host_settings` must fit samples of shape"):
        small_env("Kasmina/Spirals-v0", host_settings={"in_features": 3})


def test_blueprint_that_does_not_fit_the_host_is_refused_and_fitting_ones_are_listed():
    with pytest.raises(ValueError, match=r"^`blueprints` must accept .*, got 'depthwise'. Choose from .*mlp"):
        small_env("Kasmina/Spirals-v0", blueprints=("depthwise",))


@pytest.mark.parametrize("env_id", IDS)
def test_settings_survive_json(env_id):
    config = PRESETS.get(env_id).config(**SMALL)
    assert make_config({}, json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_nested_settings_are_merged_and_the_preset_stays_as_it_is():
    preset = PRESETS.get("Kasmina/Spirals-v0")
    before = json.dumps(preset.settings)
    config = preset.config(host_settings={"width": 5}, task_settings={"noise": 0.1})
    assert config.host_settings == {**preset.settings["host_settings"], "width": 5}
    assert config.task_settings == {**preset.settings["task_settings"], "noise": 0.1}
    assert json.dumps(preset.settings) == before


def test_nested_settings_do_not_share_memory_with_the_callers():
    mine = {"width": 5}
    config = PRESETS.get("Kasmina/Spirals-v0").config(host_settings=mine)
    mine["width"] = 6
    assert config.host_settings["width"] == 5


def test_rules_of_the_lifecycle_are_those_of_the_settings():
    given = {"min_training_steps": 4, "min_prune_age": 5, "embargo_steps": 6, "min_contribution": 0.1, "instant": True}
    assert dataclasses.asdict(make_config(MENU, given).thresholds) == given


def test_the_settings_of_a_host_that_is_replaced_do_not_stay_behind():
    base = {**MENU, "task": "spirals", "task_settings": {"turns": 2.0}, "host": "mlp", "host_settings": {"depth": 3}}
    kept = make_config(base, {"host": "mlp", "host_settings": {"width": 4}})
    assert kept.host_settings == {"depth": 3, "width": 4}
    replaced = make_config(base, {"host": "cnn", "host_settings": {"width": 4}})
    assert (replaced.host_settings, replaced.task_settings) == ({"width": 4}, {"turns": 2.0})
    assert make_config(base, {"task": "digits"}).task_settings == {}


def test_a_host_for_other_classes_or_samples_than_the_tasks_is_refused():
    with pytest.raises(ValueError, match=r"^`host_settings` must fit the 3 classes of the task, got a host for 2\. Ch"):
        small_env("Kasmina/Spirals-v0", host_settings={"num_classes": 2})
    with pytest.raises(ValueError, match=r"^`host_settings` must fit samples of shape \(2,\), got a host for \(3,\)\."):
        small_env("Kasmina/Spirals-v0", host_settings={"in_features": 3})
