"""Training settings: read from JSON, and what is wrong with them is named."""

from __future__ import annotations

import json

import pytest

from kasmina_env.learning.training_config import TrainingConfig, load_training_config

SPIRALS = "Kasmina/Spirals-v0"


def written(tmp_path, text: str):
    path = tmp_path / "training.json"
    path.write_text(text)
    return path


def test_configs_are_what_their_files_say(tmp_path):
    values = {"num_envs": 4, "total_steps": 192, "settings": {"batches_per_step": 1}}
    path = written(tmp_path, json.dumps(values))
    assert load_training_config(path, preset=SPIRALS) == TrainingConfig(preset=SPIRALS, **values)


def test_a_config_that_is_no_json_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"training\.json` must be a JSON file, got another one"):
        load_training_config(written(tmp_path, "no json"))


@pytest.mark.parametrize("key, value", [("total_steps", "60000"), ("hyperparameters", []), ("net", 64)])
def test_a_value_of_another_kind_in_a_config_is_named(key, value, tmp_path):
    with pytest.raises(ValueError, match=f"`{key}` must be"):
        load_training_config(written(tmp_path, json.dumps({key: value})))


def test_unknown_key_of_a_config_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'total_steps'"):
        load_training_config(written(tmp_path, '{"total_stepps": 1}'))
