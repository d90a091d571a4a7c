"""A first policy that plays as rules do, for problems on which growing at random only costs.

There a learner that explores from nothing first finds out that waiting is better than anything it does, and never sees
what a seed grown for a reason is worth. It is shown the rules of `kasmina search --reactive` on episodes to train on
(behaviour cloning: Pomerleau 1989), and learns from there on by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from sb3_contrib.common.maskable.distributions import MaskableCategorical
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from kasmina_env.controllers.policy import MAX_SEED, Policy, play
from kasmina_env.controllers.reactive import Reactive, load_rules
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem, problem_of
from kasmina_env.learning.maskable_policy import Standardized
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, IntArray
from kasmina_env.settings.paths import config_path, slug

NUM_ROWS, NUM_EPISODES = 64, 512
NUM_EPOCHS, BATCH, RATE = 30, 512, 1e-3
FREEDOM = 0.1  # share of the given preferences in what is imitated, so that something is left to explore


Decisions = tuple[Float32Array, BoolArray, IntArray]  # seen [B, F], legal [B, A], done [B]


class _Shown(Policy):
    """A policy whose decisions are kept, step by step, with some columns of what it sees."""

    def __init__(self, policy: Policy, columns: Sequence[int]) -> None:
        self._policy, self._columns = policy, columns
        self.steps: list[Decisions] = []

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        self._policy.begin(seeds, episodes)

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        actions = self._policy.act(observation, mask)
        self.steps.append((observation[:, self._columns], mask.copy(), actions))
        return actions


def _unhidden(problem: Problem) -> Problem:
    """A problem with all its signals; rules see them also where they are hidden from the policy."""
    return problem_of(problem.id, replace(problem.config, hidden=()))


def rules_to_imitate(problem: Problem) -> Reactive:
    """The rules that `reactive` plays, with all signals of a problem.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If they ask for an action that the problem does not have.
    """
    command = f"kasmina search {problem.id} --reactive"
    path = config_path(f"{slug(problem.id)}.reactive.json", f"Make it with `{command}`.", True)
    return load_rules(path, _unhidden(problem))


def _decisions(env: KasminaVectorEnv, rules: Policy, seeds: IntArray, columns: Sequence[int]) -> Decisions:
    """What rules see and do in at most N episodes, up to the end of each, step by step."""
    shown = _Shown(rules, columns)
    is_open = play(env, shown, seeds).actions.T >= 0  # [T, E]
    found = [
        tuple(values[: len(seeds)][now] for values in step) for step, now in zip(shown.steps, is_open, strict=False)
    ]
    observations, masks, actions = (np.concatenate(each) for each in zip(*found, strict=True))
    return observations, masks, actions


def imitate_rules(policy: BasePolicy, problem: Problem, preferences: Tensor, seed: int) -> None:
    """Fit a policy to the rules of a problem's id.

    Args:
        policy: Policy of MaskablePPO; its actor is changed, and its scales are those of what it is shown.
        problem: Problem of the rules.
        preferences: Logits ``[A]`` of a policy that is mixed in, with the weight `FREEDOM`.
        seed: Seed of the episodes; their seeds are below `MAX_SEED`.

    Raises:
        FileNotFoundError: If there are no rules.
        ValueError: If they ask for an action that the problem does not have.
    """
    actor = cast(MaskableActorCriticPolicy, policy)
    open_problem, rules = _unhidden(problem), rules_to_imitate(problem)
    columns = [open_problem.observations.column(name) for name in problem.observations.names]
    seeds = np.random.default_rng([seed, 1]).integers(MAX_SEED, size=NUM_EPISODES)
    with closing(KasminaVectorEnv(NUM_ROWS, open_problem)) as env:
        shown = [
            _decisions(env, rules, part, columns) for part in np.split(seeds, range(NUM_ROWS, len(seeds), NUM_ROWS))
        ]
    observations, masks, actions = (torch.from_numpy(np.concatenate(each)) for each in zip(*shown, strict=True))
    for module in actor.modules():
        if isinstance(module, Standardized):
            module.measure(observations)
    preferred = MaskableCategorical(logits=preferences.expand(len(masks), -1), masks=masks).probs
    wanted = (1 - FREEDOM) * torch.nn.functional.one_hot(actions, masks.shape[1]) + FREEDOM * preferred
    optimiser = torch.optim.Adam(policy.parameters(), RATE)
    policy.set_training_mode(True)
    for _ in range(NUM_EPOCHS):
        for batch in torch.randperm(len(actions)).split(BATCH):
            distribution = actor.get_distribution(observations[batch], masks[batch].numpy()).distribution
            logits = cast(MaskableCategorical, distribution).logits
            loss = -(wanted[batch] * logits).sum(dim=1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
