"""Successive halving, of plans or rules: many on few episodes, then the best of them, improved, on more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from kasmina_env.controllers.policy import MAX_SEED, OnStep, Policy, play
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.envs.workers import ALONE, Workers
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import FloatArray, IntArray
from kasmina_env.population.device import find_device

NUM_ROWS, NUM_ROWS_ON_GPU = 64, 256  # episodes side by side
NUM_ROWS_OF_WORKER = 16  # at least; fewer would leave it waiting for the others
FAMILY = 3  # factor of the number of episodes if one candidate must serve all instances
NUM_PARENTS = 4  # best candidates whose neighbours are added
CandidateT = TypeVar("CandidateT")
PartT = TypeVar("PartT", bound=Any)  # a dataclass


@dataclass(frozen=True)
class Round:
    """Sizes of one round.

    Attributes:
        kept: Candidates that are kept from the round before, best first.
        neighbours: Random neighbours that are added for each of the best `NUM_PARENTS`.
        episodes: Episodes that every candidate is played on.
        variations: Largest number of variations that are added for each of the best `varied`: candidates that differ
            from it in one choice, all of them or a random part.
        varied: Number of the best candidates whose variations are added.
    """

    kept: int
    neighbours: int
    episodes: int
    variations: int = 0
    varied: int = 1

    @property
    def num_episodes(self) -> int:
        """Upper bound of the number of episodes of all candidates."""
        return (self.kept + NUM_PARENTS * self.neighbours + self.varied * self.variations) * self.episodes


@dataclass(frozen=True)
class Effort:
    """Numbers of candidates and episodes that a search tries.

    Attributes:
        num_random: Number of random candidates to begin with.
        rounds: Rounds of successive halving.
        num_structured: Number of structured candidates to begin with.
    """

    num_random: int
    rounds: tuple[Round, ...]
    num_structured: int = 0

    @property
    def num_episodes(self) -> int:
        """Upper bound of the number of episodes."""
        return sum(each.num_episodes for each in self.rounds)

    def on(self, problem: Problem) -> Effort:
        """The effort for one problem: the same candidates, on `FAMILY` times the episodes if it is a family."""
        factor = FAMILY if problem.is_family else 1
        return replace(self, rounds=tuple(replace(each, episodes=factor * each.episodes) for each in self.rounds))


def num_rows(workers: Workers = ALONE) -> int:
    """Number of episodes to play side by side on the default device of these workers."""
    if find_device(is_here=workers.placement == "local").type == "cpu":
        return max(NUM_ROWS, NUM_ROWS_OF_WORKER * workers.number)
    return NUM_ROWS_ON_GPU * workers.number


def neighbours(candidate: CandidateT, count: int, neighbour: Callable[[CandidateT], CandidateT]) -> list[CandidateT]:
    """A number of neighbours of a candidate, none equal to it.

    Args:
        candidate: Plan or rules.
        count: Number of neighbours.
        neighbour: Draws one, perhaps the candidate itself.
    """
    found: list[CandidateT] = []
    while len(found) < count:
        other = neighbour(candidate)
        if other != candidate:
            found.append(other)
    return found


def with_another_choice(
    parts: tuple[PartT, ...], choices: Sequence[Mapping[str, Sequence[Any]]]
) -> list[tuple[PartT, ...]]:
    """Every candidate that differs from one in a single field of a single part.

    Args:
        parts: The candidate: seeds of a plan, or rules.
        choices: For each part, values to try by field; the one that it has is passed over.
    """
    return [
        (*parts[:i], replace(part, **{name: value}), *parts[i + 1 :])
        for i, (part, values_of) in enumerate(zip(parts, choices, strict=True))
        for name, values in values_of.items()
        for value in values
        if value != getattr(part, name)
    ]


def halve(
    candidates: Sequence[CandidateT],
    rounds: Sequence[Round],
    rng: np.random.Generator,
    instances: IntArray | None,
    neighbour: Callable[[CandidateT], CandidateT],
    returns_of: Callable[[Sequence[CandidateT], IntArray, IntArray | None], FloatArray],
    variations: Callable[[CandidateT], Sequence[CandidateT]] = lambda candidate: (),
) -> tuple[CandidateT, FloatArray]:
    """The best candidate, and its returns ``[E]`` on the episodes of the last round.

    Args:
        candidates: Candidates to begin with.
        rounds: Sizes of the rounds, at least one.
        rng: Random stream of the episodes; the seeds are below `MAX_SEED`.
        instances: Numbers of the instances to draw episodes from; None if the problem is no family.
        neighbour: Draws a neighbour of a candidate; see `neighbours`.
        returns_of: Plays P candidates on E seeds and their instances: returns ``[P, E]``.
        variations: All candidates that differ from one in a single choice.
    """
    found, returns = list(candidates), np.zeros((len(candidates), 0))
    for each in rounds:
        found = found[: each.kept]
        close: list[CandidateT] = []
        for best in found[: each.varied] if each.variations else ():
            others = list(variations(best))
            if len(others) > each.variations:
                others = [others[i] for i in sorted(rng.choice(len(others), each.variations, replace=False))]
            close += others
        found += [other for best in found[:NUM_PARENTS] for other in neighbours(best, each.neighbours, neighbour)]
        found += [other for other in dict.fromkeys(close) if other not in found]
        seeds = rng.integers(MAX_SEED, size=each.episodes)
        chosen = None if instances is None else rng.choice(instances, size=each.episodes)
        returns = returns_of(found, seeds, chosen)
        order = np.argsort(-returns.mean(axis=1), kind="stable")
        found, returns = [found[i] for i in order], returns[order]
    return found[0], returns[0]


def play_side_by_side(
    env: KasminaVectorEnv,
    num_candidates: int,
    make_policy: Callable[[IntArray], Policy],
    seeds: IntArray,
    instances: IntArray | None = None,
    on_step: OnStep | None = None,
) -> FloatArray:
    """Returns ``[P, E]`` of P candidates on the same E episodes, as many side by side as there are rows.

    Args:
        env: Environment with N rows.
        num_candidates: P.
        make_policy: Makes the policy of the rows, given the number of each row's candidate ``[N]``.
        seeds: Seeds of the episodes ``[E]``.
        instances: Instances of a family ``[E]``; by default each seed draws one.
        on_step: Callback for progress bars.
    """
    of_candidate, of_episode = (index.ravel() for index in np.indices((num_candidates, len(seeds))))
    returns = np.zeros(len(of_candidate))
    for start in range(0, len(of_candidate), env.num_envs):
        part = slice(start, start + env.num_envs)
        policy = make_policy(np.resize(of_candidate[part], env.num_envs))
        chosen = None if instances is None else instances[of_episode[part]]
        returns[part] = play(env, policy, seeds[of_episode[part]], on_step, chosen).returns
    return returns.reshape(num_candidates, len(seeds))
