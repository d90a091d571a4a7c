"""The file for rl_zoo3 says what stable-baselines3 understands, and rl_zoo3 trains from it where it is installed."""

from __future__ import annotations

import ast
import csv
import os
import subprocess
import sys
from typing import Any

import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from kasmina_env.settings.paths import config_path
from kasmina_env.settings.presets import PRESETS
from tests.episodes import ROOT

PATH = config_path("rl_zoo3.ppo.yml", "It comes with the package.")
OF_THE_ZOO = ("env_kwargs", "n_envs", "n_timesteps", "policy", "policy_kwargs")


def read() -> dict[str, dict[str, Any]]:
    """The two levels of the file: ids, and values that mean the same in YAML and in Python."""
    found: dict[str, dict[str, Any]] = {}
    for line in PATH.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(": ")
        if line.startswith("  "):
            found[list(found)[-1]][key.strip()] = ast.literal_eval(value)
        elif line and not line.startswith("#"):
            found[line.removesuffix(":")] = {}
    return found


def called(text: str) -> dict[str, Any]:
    """The keywords of "dict(...)"."""
    return {k.arg: ast.literal_eval(k.value) for k in ast.parse(text, mode="eval").body.keywords}


@pytest.mark.parametrize("preset", read())
def test_a_rollout_is_an_episode_and_minibatches_fill_it(preset):
    values = read()[preset]
    assert values["n_steps"] == PRESETS.get(preset).config().horizon
    assert values["n_envs"] * values["n_steps"] % values["batch_size"] == 0
    assert values["gamma"] == 1.0


@pytest.mark.parametrize("preset", read())
def test_the_model_it_describes_can_be_made_and_learns(preset):
    values = read()[preset]
    env = make_vec_env(preset, n_envs=2, env_kwargs={**values["env_kwargs"], "batches_per_step": 1})
    own = {key: value for key, value in values.items() if key not in OF_THE_ZOO}
    own |= {"n_steps": 4, "batch_size": 8, "n_epochs": 1}
    model = PPO(values["policy"], env, policy_kwargs=called(values["policy_kwargs"]), device="cpu", **own)
    assert model.learn(8).num_timesteps == 8


def test_rl_zoo3_trains_on_whole_episodes(tmp_path):
    pytest.importorskip("rl_zoo3", reason="rl_zoo3 is not installed: pip install 'kasmina-env[zoo]'")
    command = ["rl_zoo3.train", "--algo", "ppo", "--env", "Kasmina/Spirals-v0", "--gym-packages", "kasmina_env"]
    short = ["-n", "60", "--hyperparams", "n_envs:2", "-f", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--conf-file", str(PATH), *short],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logs = [path.read_text(encoding="utf-8").splitlines()[1:] for path in tmp_path.rglob("*.monitor.csv")]
    assert {line["l"] for log in logs for line in csv.DictReader(log)} == {"24"}
