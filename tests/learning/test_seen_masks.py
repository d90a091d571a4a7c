"""Algorithms without masks of their own obey them wherever they choose, explore and look ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kasmina_env import KasminaVectorEnv
from kasmina_env.controllers.policy import play
from kasmina_env.learning.algorithms import ALGORITHMS
from kasmina_env.learning.controller_file import load_learned
from kasmina_env.learning.learner import Learner, make_learner
from kasmina_env.learning.seen_masks import ILLEGAL, MaskedLinear
from kasmina_env.learning.time_spent import Clock
from kasmina_env.learning.train import train
from tests.learning.test_learners import SMALL, SPIRALS, tiny

SIGHTED = [name for name in ALGORITHMS if ALGORITHMS.get(name).sees_masks]
OFF_POLICY = [name for name in SIGHTED if ALGORITHMS.get(name).is_off_policy]


@pytest.fixture
def learner(request):
    """A fresh learner of an algorithm."""
    made = make_learner(tiny(request.param), 1, Clock())
    yield made
    made.close()


def observed(learner: Learner, legal: list[int], count: int = 3) -> np.ndarray:
    """Observations in which just these actions are legal."""
    num_actions = int(learner.venv.action_space.n)
    seen = np.random.default_rng(0).normal(size=(count, learner.venv.observation_space.shape[0])).astype(np.float32)
    seen[:, -num_actions:] = np.isin(np.arange(num_actions), legal)
    return seen


@pytest.mark.parametrize("learner", SIGHTED, indirect=True)
def test_the_mask_stands_behind_the_observation(learner):
    learner.venv.seed(0)
    seen, num_actions = learner.venv.reset(), int(learner.venv.action_space.n)
    for _ in range(SMALL["horizon"] + 2):
        mask = np.stack(learner.venv.env_method("action_masks"))
        assert (seen[:, -num_actions:] == mask).all()
        assert learner.venv.observation_space.contains(seen[0])
        actions = np.array([np.flatnonzero(row)[-1] for row in mask])
        seen, _, dones, infos = learner.venv.step(actions)
        for row in np.flatnonzero(dones):
            assert learner.venv.observation_space.contains(infos[row]["terminal_observation"])


@pytest.mark.parametrize("learner", SIGHTED, indirect=True)
@pytest.mark.parametrize("deterministic", [True, False])
def test_only_legal_actions_are_chosen(learner, deterministic):
    seen = observed(learner, [3, 5], 64)
    chosen, _ = learner.model.policy.predict(seen, deterministic=deterministic)
    assert set(chosen.tolist()) <= {3, 5}


@pytest.mark.parametrize("algorithm", SIGHTED)
def test_it_is_trained_on_legal_actions_alone(algorithm, tmp_path, monkeypatch):
    legal: list[bool] = []
    step = KasminaVectorEnv.step

    def watch(env, actions):
        legal.extend(env.action_masks()[np.arange(env.num_envs), np.asarray(actions)])
        return step(env, actions)

    monkeypatch.setattr(KasminaVectorEnv, "step", watch)
    train(tiny(algorithm, total_steps=160), tmp_path / "run")
    assert len(legal) >= 160
    assert all(legal)


@pytest.mark.parametrize("algorithm", SIGHTED)
def test_it_plays_legal_actions_alone(algorithm, tmp_path):
    train(tiny(algorithm), tmp_path / "run")
    env = KasminaVectorEnv(3, SPIRALS, **SMALL)
    assert play(env, load_learned(tmp_path / "run", env.problem), np.arange(6)).illegal.sum() == 0


@pytest.mark.parametrize("learner", OFF_POLICY, indirect=True)
def test_targets_take_the_best_of_what_is_legal_next(learner):
    model, seen = learner.model, torch.from_numpy(observed(learner, [3, 5]))
    network = model.q_net_target if hasattr(model, "q_net_target") else model.quantile_net_target
    values = network(seen)
    best = values.max(dim=1).values if values.dim() == 2 else values.mean(dim=1).max(dim=1).values
    layers = network.q_net if hasattr(network, "q_net") else network.quantile_net
    free = torch.nn.functional.linear(layers[:-1](seen[:, : network.features_dim]), layers[-1].weight, layers[-1].bias)
    wanted = free if values.dim() == 2 else free.view(values.shape).mean(dim=1)
    assert torch.allclose(best, wanted[:, [3, 5]].max(dim=1).values)
    assert (values < ILLEGAL / 2).float().mean() == pytest.approx(1 - 2 / values.shape[-1])


@pytest.mark.parametrize("learner", OFF_POLICY, indirect=True)
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_exploration_takes_all_legal_actions_alike(learner, rate):
    model = learner.model
    model._last_obs, model.exploration_rate = observed(learner, [3, 5], 2000), rate
    model.num_timesteps = model.learning_starts
    actions, kept = model._sample_action(model.learning_starts, None, 2000)
    assert (actions == kept).all()
    counts = np.bincount(actions, minlength=6)
    assert counts.sum() == counts[3] + counts[5] == 2000
    if rate:
        assert abs(counts[3] - 1000) < 150
        model.num_timesteps = 0
        assert set(model._sample_action(10, None, 2000)[0].tolist()) == {3, 5}


@pytest.mark.parametrize("learner", SIGHTED, indirect=True)
def test_all_that_is_learned_is_optimised(learner):
    policy = learner.model.policy
    heads = [layer for layer in policy.modules() if isinstance(layer, MaskedLinear)]
    optimised = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    is_optimised = [id(head.weight) in optimised for head in heads]
    assert is_optimised in ([True], [True, False])  # a target network follows by itself
    assert not any(parameter.is_meta for parameter in policy.parameters())


@pytest.mark.parametrize("learner", ["a2c", "recurrent_ppo"], indirect=True)
def test_gradients_stay_finite_where_most_actions_are_not_legal(learner):
    policy, seen = learner.model.policy, torch.from_numpy(observed(learner, [3]))
    if hasattr(policy, "lstm_actor"):
        zero = torch.zeros(1, 3, policy.lstm_actor.hidden_size)
        memory = type(learner.model._last_lstm_states)((zero, zero), (zero, zero))
        values, log_prob, entropy = policy.evaluate_actions(seen, torch.full((3,), 3), memory, torch.zeros(3))
    else:
        values, log_prob, entropy = policy.evaluate_actions(seen, torch.full((3,), 3))
    (values.sum() + log_prob.sum() + entropy.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.parameters())
    assert log_prob.abs().max() < 1e-5
    assert entropy.abs().max() < 1e-5
