"""Hyperparameters that cannot be: each is named before anything is written."""

from __future__ import annotations

import dataclasses

import pytest

from kasmina_env.learning.algorithms import ALGORITHMS
from kasmina_env.learning.hyperparameters import RULES, check_hyperparameters
from kasmina_env.learning.train import train
from kasmina_env.learning.training_config import TrainingConfig, load_training_config, training_config_path
from kasmina_env.settings.presets import PRESETS
from tests.learning.test_learners import tiny

WRONG = [
    ("ppo", "batch_size", 0, "be an integer from 1 to 1000000000"),
    ("ppo", "n_epochs", "2", "be an integer from 1 to 1000000000"),
    ("ppo", "n_steps", 2.5, "be an integer from 1 to 1000000000"),
    ("ppo", "clip_range", "x", "be a number above 0"),
    ("ppo", "clip_range_vf", 0, "be a number above 0, or None"),
    ("ppo", "policy_kwargs", 5, "be a mapping of keyword arguments"),
    ("maskable_ppo", "gamma", 5, r"be a number in \[0, 1\]"),
    ("maskable_ppo", "learning_rate", -1, "be a number of at least 0"),
    ("maskable_ppo", "learning_rate", float("nan"), "be a number of at least 0"),
    ("maskable_ppo", "learning_rate", "lin_nan", "be a number of at least 0"),
    ("maskable_ppo", "ent_coef", "lin_-0.1", "be a number of at least 0"),
    ("maskable_ppo", "clip_range", "lin_0", "be a number above 0"),
    ("maskable_ppo", "gamma", "lin_1", r"be a number in \[0, 1\]"),
    ("maskable_ppo", "n_epochs", "lin_3", "be an integer from 1 to 1000000000"),
    ("maskable_ppo", "n_steps", 10**12, "be an integer from 1 to 1000000000"),
    ("dqn", "buffer_size", 10**13, "be an integer from 1 to 1000000000"),
    ("maskable_ppo", "learning_rate", "lin_fast", "be a number behind 'lin_'"),
    ("maskable_ppo", "normalize_advantage", 1, "be True or False"),
    ("dqn", "exploration_fraction", 0, r"be a number in \(0, 1\]"),
    ("dqn", "learning_starts", -1, "be an integer of at least 0"),
    ("dqn", "gradient_steps", -2, "be an integer of at least 0, or -1"),
]
REFUSED_BY_THE_LIBRARY = [
    ("maskable_ppo", {"policy_kwargs": {"activation_fn": "relu"}}),
    ("maskable_ppo", {"policy_kwargs": {"net_arhc": [3]}}),
    ("qr_dqn", {"policy_kwargs": {"n_quantiles": 0}}),
    ("qr_dqn", {"policy_kwargs": {"n_quantiles": "x"}}),
    ("dqn", {"optimize_memory_usage": True}),
    ("ppo", {"batch_size": 1}),
    ("ppo", {"rollout_buffer_class": "list"}),
    ("dqn", {"replay_buffer_class": "list"}),
]


@pytest.mark.parametrize("algorithm, name, value, words", WRONG)
def test_a_value_that_cannot_be_is_named(algorithm, name, value, words, tmp_path):
    config = tiny(algorithm)
    with pytest.raises(ValueError, match=rf"^`{name}` must {words}, got "):
        train(dataclasses.replace(config, hyperparameters={**config.hyperparameters, name: value}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("algorithm, values", REFUSED_BY_THE_LIBRARY)
def test_what_the_library_refuses_is_one_sentence(algorithm, values, tmp_path):
    config = tiny(algorithm)
    with pytest.raises(ValueError, match=rf"^`hyperparameters` must be such as {algorithm} accepts: [^\n]+$"):
        train(dataclasses.replace(config, hyperparameters={**config.hyperparameters, **values}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"net": (0,)}, r"^`net` must be sizes of at least 1, got \[0\]"),
        ({"net": ()}, r"^`net` must be sizes of at least 1, got \[\]"),
        ({"net": (10**9,)}, r"^`net` must be sizes of at most 65536, got \[1000000000\]"),
        ({"total_steps": 10**30}, r"^`total_steps` must be at most 1000000000000, got 1000000000000000000000000000000"),
        ({"num_envs": 10**9}, "^`num_envs` must be at most 65536, got 1000000000"),
        ({"group": 10**9}, "^`group` must be at most 65536, got 1000000000"),
        ({"settings": {"action_space": "factored"}}, "^`settings` must be one of .*, got 'action_space'"),
        ({"settings": {"horizn": 3}}, "got 'horizn'. Did you mean 'horizon'"),
    ],
)
def test_settings_that_cannot_be_are_named(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainingConfig(**values)


@pytest.mark.parametrize("name", ["use_sde", "sde_sample_freq", "tensorboard_log", "verbose", "seed", "device"])
def test_what_is_settled_here_is_no_hyperparameter(name):
    with pytest.raises(ValueError, match=rf"^`hyperparameters` must be one of learning_rate, .*, got '{name}'\."):
        check_hyperparameters(ALGORITHMS.get("ppo").model, {name: True})


def test_rules_of_the_lifecycle_are_settings_too():
    assert TrainingConfig(settings={"min_training_steps": 3}).settings == {"min_training_steps": 3}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rules_hold_for_all_settings_that_come_with_this(algorithm):
    used = set()
    for preset in PRESETS:
        config = load_training_config(training_config_path(preset, algorithm), preset=preset)
        check_hyperparameters(ALGORITHMS.get(algorithm).model, config.hyperparameters)
        used |= set(config.hyperparameters)
    assert used <= set(RULES)
