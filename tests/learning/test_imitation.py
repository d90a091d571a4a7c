"""A first policy that plays as rules do."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from kasmina_env import KasminaVectorEnv, make_problem
from kasmina_env.comparison.players import find_player
from kasmina_env.controllers.policy import play
from kasmina_env.learning import imitation
from kasmina_env.learning.algorithms import learned_policy
from kasmina_env.learning.controller_file import load_controller, load_policy
from kasmina_env.learning.learner import make_learner
from kasmina_env.learning.maskable_policy import Standardized
from kasmina_env.learning.time_spent import Clock
from kasmina_env.learning.train import train
from kasmina_env.learning.training_config import TrainingConfig

SPIRALS = "Kasmina/Spirals-v0"
BEGINNER = TrainingConfig(
    SPIRALS, total_steps=1, num_envs=2, nearness=True, imitate=True, hyperparameters={"batch_size": 8}
)


def test_the_first_policy_plays_as_the_rules_do(monkeypatch):
    monkeypatch.setattr(imitation, "NUM_EPISODES", 64)
    model = make_learner(BEGINNER, 1, Clock()).model
    imitation.imitate_rules(model.policy, make_problem(SPIRALS), model.policy.preferences, seed=0)
    problem, seeds = make_problem(SPIRALS), np.arange(16)
    policies = [find_player("reactive", SPIRALS).policy, learned_policy("maskable_ppo", model.policy, problem)]
    wanted, found = (play(KasminaVectorEnv(16, problem), policy, seeds) for policy in policies)
    assert (wanted.actions == found.actions).mean() > 0.95
    assert found.returns.mean() == pytest.approx(wanted.returns.mean(), abs=0.1)


def test_rules_are_shown_to_a_policy_from_which_their_signals_are_hidden(monkeypatch):
    monkeypatch.setattr(imitation, "NUM_EPISODES", 64)
    model = make_learner(replace(BEGINNER, settings={"hidden": ("accuracy",)}), 1, Clock()).model
    problem = make_problem(SPIRALS, hidden=("accuracy",))
    imitation.imitate_rules(model.policy, problem, model.policy.preferences, seed=0)
    found = play(KasminaVectorEnv(16, problem), learned_policy("maskable_ppo", model.policy, problem), np.arange(16))
    wanted = play(KasminaVectorEnv(16, SPIRALS), find_player("reactive", SPIRALS).policy, np.arange(16))
    assert found.returns.mean() == pytest.approx(wanted.returns.mean(), abs=0.1)


def test_signals_are_standardized_as_they_are_in_what_is_shown_and_stay_so_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(imitation, "NUM_EPISODES", 64)
    train(replace(BEGINNER, standardized=True), tmp_path / "run")
    problem, seeds = make_problem(SPIRALS), np.arange(32)
    policy = load_policy(load_controller(tmp_path / "run"), problem)
    with closing(KasminaVectorEnv(32, problem)) as env:
        shown = imitation._Shown(find_player("reactive", SPIRALS).policy, slice(None))
        play(env, shown, seeds)
    seen = np.concatenate([observation for observation, _, _ in shown.steps])
    scaled = policy.extract_features(torch.from_numpy(seen)).numpy()
    varied = seen.std(axis=0) > 0.02
    assert varied.sum() > 20
    assert scaled[:, varied].mean(axis=0) == pytest.approx(0, abs=0.5)
    assert scaled[:, varied].std(axis=0) == pytest.approx(1, abs=0.4)
    assert np.abs(scaled).max() <= 5


def test_a_signal_that_does_not_vary_keeps_its_scale():
    part = Standardized(Box(-1, 1, (2,)))
    part.measure(torch.tensor([[0.0, 0.2], [0.0, 0.6]]))
    assert part(torch.tensor([[0.8, 0.4], [0.0, 9.0]])).numpy() == pytest.approx(np.array([[0.8, 0.0], [0.0, 5.0]]))


def test_nothing_is_imitated_after_the_end_of_an_episode(monkeypatch):
    """A row whose network died begins another episode while the others go on."""
    problem, seeds = make_problem(SPIRALS), np.arange(3)
    rules = imitation.rules_to_imitate(problem)
    with closing(KasminaVectorEnv(4, problem)) as env:
        whole = play(env, rules, seeds)
        cut = whole.actions.copy()
        cut[1, 5:] = -1
        monkeypatch.setattr(imitation, "play", lambda *inputs: replace(play(*inputs), actions=cut))
        progress = problem.observations.column("progress")
        shown = imitation._decisions(env, rules, seeds, [progress])
    steps = np.rint(shown.seen[:, 0] * problem.horizon).astype(int)
    assert len(shown.legal) == len(shown.decided) == len(steps)
    assert np.bincount(steps).tolist() == [3] * 5 + [2] * (problem.horizon - 5)
    assert np.bincount(shown.episode).tolist() == [problem.horizon, 5, problem.horizon]
    assert shown.returns.tolist() == whole.returns.tolist()


def test_in_hindsight_nothing_is_grown_where_waiting_returned_more():
    """Of three episodes the rules win the first by 0.3, lose the second by 0.1 and never grow in the third."""
    grow, prune = 1, 2
    followed = decisions([grow, prune, grow, grow, 0], episode=[0, 0, 1, 1, 2], returns=[0.8, 0.4, 0.6])
    waited = decisions([grow, grow, grow, 0], episode=[0, 0, 1, 2], returns=[0.5, 0.5, 0.6])
    seen, legal, decided, counts = imitation.in_hindsight(followed, waited, np.array([False, True, False]))
    assert len(legal) == len(seen)
    assert decided.tolist() == [grow, prune, 0, 0, 0, grow, grow, 0]
    assert seen[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    # 0.3 and 0.1 over the mean of 0.3, 0.1 and 0
    assert counts == pytest.approx([2.25, 1, 0.75, 0.75, 1, 2.25, 2.25, 0.75])


def decisions(decided, episode, returns):
    size = len(decided)
    seen, legal = np.arange(size, dtype=np.float32)[:, None], np.ones((size, 3), bool)
    return imitation.Decisions(seen, legal, np.array(decided), np.array(episode), np.array(returns))


def test_in_hindsight_rules_that_never_pay_are_not_followed(monkeypatch):
    monkeypatch.setattr(imitation, "NUM_EPISODES", 32)
    problem = make_problem(SPIRALS, param_price=1000.0)  # whatever is kept costs far more than it brings
    model = make_learner(replace(BEGINNER, settings={"param_price": 1000.0}), 1, Clock()).model
    for hindsight, is_growing in ((False, True), (True, False)):
        imitation.imitate_rules(model.policy, problem, model.policy.preferences, seed=0, hindsight=hindsight)
        policy = learned_policy("maskable_ppo", model.policy, problem)
        with closing(KasminaVectorEnv(8, problem)) as env:
            assert (play(env, policy, np.arange(8)).actions > 0).any() == is_growing


@pytest.mark.parametrize("name", ["hindsight", "standardized"])
def test_only_with_something_to_imitate_is_it_seen_in_hindsight_or_sets_scales(name):
    with pytest.raises(ValueError, match=rf"^`{name}` must be False without `imitate`, got True"):
        TrainingConfig(SPIRALS, **{name: True})


def test_without_rules_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where rules that were searched for would be
    monkeypatch.setattr("kasmina_env.settings.paths.CONFIGS", (tmp_path,))
    with pytest.raises(FileNotFoundError, match=r"no configs/spirals-v0\.reactive\.json"):
        train(BEGINNER, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_a_policy_that_sees_masks_imitates():
    with pytest.raises(ValueError, match=r"^`imitate` must be False for ppo, got True"):
        TrainingConfig(SPIRALS, algorithm="ppo", imitate=True)
