"""Reports: the results of N episodes after a reset or a step, from which environments make observations and infos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from kasmina_env.episode.actions import flat_mask
from kasmina_env.episode.features import Scene
from kasmina_env.episode.observation import observe
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.state import EpisodeState
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray
from kasmina_env.population import ENGINES

# By code: no failure; a loss is not finite; the network diverged more often than the governor allows; it was lost with
# its machine.
FAILURES = ("", "non_finite", "diverged", "lost")
NON_FINITE, DIVERGED, LOST = map(FAILURES.index, ("non_finite", "diverged", "lost"))


@dataclass(frozen=True, eq=False)
class Ending:
    """Final figures of the episodes that end now, by themselves or at a limit; 0 in other rows. N networks."""

    committed_score: FloatArray  # [N] score of the network that is kept
    test_accuracy: FloatArray  # [N] quality of that network on the test split
    is_success: BoolArray  # [N] finite, and score of at least `success_score`; valid only where an episode ends

    @classmethod
    def none(cls, num_networks: int) -> Ending:
        """No episode ends."""
        return cls(np.zeros(num_networks), np.zeros(num_networks), np.zeros(num_networks, dtype=bool))


@dataclass(frozen=True, eq=False)
class Report:
    """Results of N episodes after a reset or a step. F entries of an observation, A actions, K terms, T steps."""

    observation: Float32Array  # [N, F]
    mask: BoolArray  # [N, A] True = legal
    reward: FloatArray  # [N] sum of the terms; 0 after a reset
    terms: FloatArray  # [N, K] in the order of the problem's reward
    is_over: BoolArray  # [N] the episode has ended
    step: IntArray  # [N] steps taken
    instance: IntArray  # [N]
    score: FloatArray  # [N]
    quality: FloatArray  # [N] on outer_valid
    accuracy: FloatArray  # [N] on inner_valid
    train_loss: FloatArray  # [N]
    param_growth: FloatArray  # [N] seeds' parameters over the host's; once the episode is over, kept seeds only
    compute: FloatArray  # [N] compute of seeds over the host's, mean over the horizon
    num_fossilized: IntArray  # [N]
    num_alive: IntArray  # [N] seeds that may still be pruned
    is_legal: BoolArray  # [N] the last action was legal
    failure: IntArray  # [N] index into `FAILURES`
    num_rollbacks: IntArray  # [N] times that the governor took the network back
    divergence: IntArray  # [N] index into `DIVERGENCES` of the symptom for which it went back in the last step
    engine: IntArray  # [N] index into `ENGINES` of the engine that trained the network
    actions: IntArray  # [N, T] taken so far, -1 beyond
    ending: Ending


def make_report(
    problem: Problem, state: EpisodeState, terms: Mapping[str, FloatArray], ending: Ending, engine: str
) -> Report:
    """The report of a state.

    Args:
        problem: Problem of the episodes.
        state: State after a reset or a step.
        terms: Reward terms by name ``[N]``.
        ending: Final figures of the episodes that end now.
        engine: Engine that trained the networks.
    """
    costs = problem.costs
    scene = Scene(state, costs, problem.config, problem.instances)
    is_over = state.is_over
    kept, carried = costs.fossil_growth(state.lifecycle), costs.param_growth(state.lifecycle)
    return Report(
        observation=observe(problem.observations, scene),
        mask=flat_mask(problem.actions, state.lifecycle, state.now.seeds, problem.config),
        reward=np.sum(list(terms.values()), axis=0),
        terms=np.stack(list(terms.values()), axis=1),
        is_over=is_over,
        step=state.step,
        instance=state.instance,
        score=state.score,
        quality=state.quality,
        accuracy=state.now.accuracy,
        train_loss=state.now.train_loss,
        param_growth=np.where(is_over, kept, carried),
        compute=state.compute_spent,
        num_fossilized=state.num_fossilized,
        num_alive=state.num_alive,
        is_legal=state.is_legal,
        failure=np.where(state.is_dead, np.where(state.record.is_given_up(problem.config), DIVERGED, NON_FINITE), 0),
        num_rollbacks=state.record.num_rollbacks,
        divergence=state.record.divergence,
        engine=np.full(state.num_networks, ENGINES.index(engine)),
        actions=state.history.actions,
        ending=ending,
    )


def lost_report(last: Report) -> Report:
    """The report of a step in which episodes were lost: they end where they were, without a reward.

    Args:
        last: Report before the step.
    """
    nothing = Ending.none(len(last.step))
    return replace(
        last,
        reward=np.zeros_like(last.reward),
        terms=np.zeros_like(last.terms),
        is_over=np.ones_like(last.is_over),
        failure=np.where(last.is_over, last.failure, LOST),
        ending=replace(nothing, committed_score=last.score),
    )
