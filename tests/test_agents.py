"""The agents run, learn from what they are shown, and play."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.controllers.policy import CONTROLS, play
from tests.episodes import SMALL

AGENTS = Path(__file__).parents[1] / "agents"
ID = "Kasmina/Spirals-v0"


@cache
def load(name):
    """An agent, imported once: what it registers stays registered."""
    spec = importlib.util.spec_from_file_location(f"agents_{name}", AGENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["maskable_ppo", "dqn", "recurrent_ppo"])
def test_an_agent_of_stable_baselines3_learns_from_whole_episodes(name):
    model, mean_return = load(name).train(ID, 160, num_envs=4, **SMALL)
    assert model.num_timesteps >= 160
    assert np.isfinite(mean_return)
    assert {episode["l"] for episode in model.ep_info_buffer} == {SMALL["horizon"]}


def test_the_single_file_agent_learns_and_then_plays_as_a_policy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    agent = load("single_file_ppo")
    assert len(agent.train(ID, 80, num_envs=4, **SMALL)) == 2
    problem = make_problem(ID, **SMALL)
    played = play(KasminaVectorEnv(2, problem), CONTROLS.get("single_file_ppo").make(problem), np.arange(2))
    assert played.illegal.sum() == 0


def test_advantages_without_discount_are_what_is_still_to_come_minus_what_was_expected():
    agent = load("single_file_ppo")
    rewards, values = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.5], [0.25], [0.0]])
    assert agent.advantages(rewards, values, lam=1.0).squeeze(1).tolist() == [6.5, 5.75, 4.0]


def test_the_rule_grows_after_a_drop_and_prunes_what_does_not_help():
    load("watch_for_drop")
    problem = make_problem(ID, **SMALL)
    policy = CONTROLS.get("watch_for_drop").make(problem)
    seen = np.zeros((3, len(problem.observations.names)), dtype=np.float32)
    seen[0, policy.best] = 0.5
    seen[1:, policy.has_contribution], seen[2, policy.contribution] = 1.0, 0.1
    mask = np.ones((3, problem.actions.num_actions), dtype=bool)
    mask[0, policy.advance] = mask[0, policy.fossilize] = False
    assert policy.act(seen, mask).tolist() == [policy.germinate, policy.prune, policy.fossilize]
