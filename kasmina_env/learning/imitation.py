"""A first policy that plays as rules do, for problems on which growing at random only costs.

There a learner that explores from nothing first finds out that waiting is better than anything it does, and never sees
what a seed grown for a reason is worth. It is shown the rules of `kasmina search --reactive` on episodes to train on
(behaviour cloning: Pomerleau 1989), and learns from there on by itself. In hindsight it is shown to wait where that
returned more than the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib.common.maskable.distributions import MaskableCategorical
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from kasmina_env.controllers.policy import MAX_SEED, Policy, play
from kasmina_env.controllers.reactive import Reactive, load_rules
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.actions import WAIT
from kasmina_env.episode.episodes import Episodes
from kasmina_env.episode.problem import Problem, problem_of
from kasmina_env.learning.maskable_policy import Standardized
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray
from kasmina_env.lifecycle.state import Op
from kasmina_env.settings.paths import config_path, slug

NUM_ROWS, NUM_EPISODES = 64, 512
NUM_EPOCHS, BATCH, RATE = 30, 512, 1e-3
DECAY = 0.1  # weight decay in hindsight, where luck also decides what is shown
FREEDOM = 0.1  # share of the given preferences in what is imitated, so that something is left to explore


@dataclass(frozen=True)
class Decisions:
    """What rules see and decide in E episodes, up to the end of each.

    Attributes:
        seen: Observations ``[B, F]``.
        legal: Masks ``[B, A]``.
        decided: Actions ``[B]``.
        episode: Number of the episode ``[B]``.
        returns: Returns of the episodes ``[E]``.
    """

    seen: Float32Array
    legal: BoolArray
    decided: IntArray
    episode: IntArray
    returns: FloatArray


class _Shown(Policy):
    """Rules whose decisions are kept, step by step, with some columns of what they see; if not followed, it waits."""

    def __init__(self, rules: Policy, columns: Sequence[int], is_followed: bool = True) -> None:
        self._rules, self._columns, self._is_followed = rules, columns, is_followed
        self.steps: list[tuple[Float32Array, BoolArray, IntArray]] = []

    def begin(self, seeds: IntArray, episodes: Episodes) -> None:
        self._rules.begin(seeds, episodes)

    def act(self, observation: Float32Array, mask: BoolArray) -> IntArray:
        actions = self._rules.act(observation, mask)
        self.steps.append((observation[:, self._columns], mask.copy(), actions))
        return actions if self._is_followed else np.full_like(actions, WAIT)


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


def _decisions(
    env: KasminaVectorEnv, rules: Policy, seeds: IntArray, columns: Sequence[int], is_followed: bool = True
) -> Decisions:
    """What rules see and decide in E episodes, which they play, or in which nothing is grown."""
    found: list[tuple[NDArray[Any], ...]] = []
    returns: list[FloatArray] = []
    for first in range(0, len(seeds), env.num_envs):
        part = seeds[first : first + env.num_envs]
        shown = _Shown(rules, columns, is_followed)
        played = play(env, shown, part)
        returns.append(played.returns)
        for step, is_open in zip(shown.steps, played.actions.T >= 0, strict=False):
            found.append((*[values[: len(part)][is_open] for values in step], first + np.flatnonzero(is_open)))
    seen, legal, decided, episode = (np.concatenate(each) for each in zip(*found, strict=True))
    return Decisions(seen, legal, decided, episode, np.concatenate(returns))


def in_hindsight(
    followed: Decisions, waited: Decisions, grows: BoolArray
) -> tuple[Float32Array, BoolArray, IntArray, Float32Array]:
    """What rules decide, except that they wait in episodes in which waiting throughout returned more.

    A decision to grow counts for as much as it was worth in its episode (as in AggreVaTe, Ross & Bagnell 2014).

    Args:
        followed: Episodes played by the rules.
        waited: The same episodes without any seed, and what the rules would have done there.
        grows: Whether an action germinates a seed ``[A]``.

    Returns:
        Observations ``[B, F]``, masks ``[B, A]``, actions ``[B]`` and how much each counts ``[B]``: all decisions of
        the first, and of the second those to grow. Decisions to grow count for the difference of the two returns, over
        its mean over episodes; all others for 1.
    """
    asked = grows[waited.decided]
    seen, legal, decided, episode = (
        np.concatenate([getattr(followed, name), getattr(waited, name)[asked]])
        for name in ("seen", "legal", "decided", "episode")
    )
    gain = waited.returns - followed.returns
    worth = np.abs(gain) / max(np.abs(gain).mean(), 1e-12)
    is_growth = grows[decided]
    better = np.where(is_growth & (gain[episode] > 0), WAIT, decided)
    return seen, legal, better, np.where(is_growth, worth[episode], 1.0).astype(np.float32)


def imitate_rules(
    policy: BasePolicy, problem: Problem, preferences: Tensor, seed: int, hindsight: bool = False
) -> None:
    """Fit a policy to the rules of a problem's id.

    Args:
        policy: Policy of MaskablePPO; its actor is changed, and its scales are those of what it is shown.
        problem: Problem of the rules.
        preferences: Logits ``[A]`` of a policy that is mixed in, with the weight `FREEDOM`.
        seed: Seed of the episodes; their seeds are below `MAX_SEED`.
        hindsight: Whether to wait in episodes in which that returned more than the rules (`in_hindsight`).

    Raises:
        FileNotFoundError: If there are no rules.
        ValueError: If they ask for an action that the problem does not have.
    """
    actor = cast(MaskableActorCriticPolicy, policy)
    open_problem, rules = _unhidden(problem), rules_to_imitate(problem)
    columns = [open_problem.observations.column(name) for name in problem.observations.names]
    seeds = np.random.default_rng([seed, 1]).integers(MAX_SEED, size=NUM_EPISODES)
    with closing(KasminaVectorEnv(NUM_ROWS, open_problem)) as env:
        followed = _decisions(env, rules, seeds, columns)
        shown = (followed.seen, followed.legal, followed.decided, np.ones(len(followed.decided), np.float32))
        if hindsight:
            waited = _decisions(env, rules, seeds, columns, is_followed=False)
            shown = in_hindsight(followed, waited, problem.actions.op == Op.GERMINATE)
    observations, masks, actions, counts = map(torch.from_numpy, shown)
    for module in actor.modules():
        if isinstance(module, Standardized):
            module.measure(observations)
    preferred = MaskableCategorical(logits=preferences.expand(len(masks), -1), masks=masks).probs
    wanted = (1 - FREEDOM) * torch.nn.functional.one_hot(actions, masks.shape[1]) + FREEDOM * preferred
    optimiser = torch.optim.AdamW(policy.parameters(), RATE, weight_decay=DECAY if hindsight else 0.0)
    policy.set_training_mode(True)
    for _ in range(NUM_EPOCHS):
        for batch in torch.randperm(len(actions)).split(BATCH):
            distribution = actor.get_distribution(observations[batch], masks[batch].numpy()).distribution
            logits = cast(MaskableCategorical, distribution).logits
            loss = -(counts[batch] * (wanted[batch] * logits).sum(dim=1)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
