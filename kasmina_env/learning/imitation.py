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
from kasmina_env.controllers.reactive import load_rules
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem, problem_of
from kasmina_env.learning.maskable_policy import Standardized
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, IntArray
from kasmina_env.settings.paths import config_path, slug

NUM_ROWS, NUM_EPISODES = 64, 512
NUM_EPOCHS, BATCH, RATE = 30, 512, 1e-3
FREEDOM = 0.1  # share of the given preferences in what is imitated, so that something is left to explore


class _Shown(Policy):
    """A policy whose decisions are kept, with some columns of what it sees."""

    def __init__(self, policy: Policy, columns: Sequence[int]) -> None:
        self._policy, self._columns = policy, columns
        self.seen: list[tuple[Float32Array, BoolArray, IntArray]] = []

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        self._policy.begin(seeds, episodes)

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        actions = self._policy.act(observation, mask)
        self.seen.append((observation[:, self._columns], mask.copy(), actions))
        return actions


def imitate_rules(policy: BasePolicy, problem: Problem, preferences: Tensor, seed: int) -> None:
    """Fit a policy to the shipped rules of a problem's id.

    The rules see all signals, also those that the problem hides from the policy.

    Args:
        policy: Policy of MaskablePPO; its actor is changed, and its scales are those of what it is shown.
        problem: Problem of the rules.
        preferences: Logits ``[A]`` of a policy that is mixed in, with the weight `FREEDOM`.
        seed: Seed of the episodes; their seeds are below `MAX_SEED`.

    Raises:
        FileNotFoundError: If there are no rules.
    """
    actor = cast(MaskableActorCriticPolicy, policy)
    path = config_path(f"{slug(problem.id)}.reactive.json", f"Make it with `kasmina search {problem.id} --reactive`.")
    open_problem = problem_of(problem.id, replace(problem.config, hidden=()))
    columns = [open_problem.observations.column(name) for name in problem.observations.names]
    shown = _Shown(load_rules(path, open_problem), columns)
    seeds = np.random.default_rng([seed, 1]).integers(MAX_SEED, size=NUM_EPISODES)
    with closing(KasminaVectorEnv(NUM_ROWS, open_problem)) as env:
        play(env, shown, seeds)
    observations, masks, actions = (torch.from_numpy(np.concatenate(each)) for each in zip(*shown.seen, strict=True))
    if isinstance(actor.features_extractor, Standardized):
        actor.features_extractor.measure(observations)
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
