"""Interval estimates for returns, in the manner of Agarwal et al. 2021, "Deep RL at the edge of the precipice".

Scores come as a matrix ``[runs, episodes]``: a run is one training of the controller (a scripted policy has one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kasmina_env.lifecycle.arrays import FloatArray, IntArray

NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all values; values at the edges of that half count in part."""
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    n = len(ordered)
    # weight of each value: its overlap with the middle half [n/4, 3n/4]
    left = np.arange(n)
    weight = np.clip(np.minimum(left + 1, 0.75 * n) - np.maximum(left, 0.25 * n), 0.0, 1.0)
    return float((ordered * weight).sum() / weight.sum())


def has_strata(strata: IntArray) -> bool:
    """Whether each stratum ``[episodes]`` has two episodes or more, without which none could be resampled within."""
    return bool(np.unique(strata, return_counts=True)[1].min() > 1)


def bootstrap(
    scores: FloatArray,
    statistic: Callable[[FloatArray], float],
    rng: np.random.Generator,
    strata: IntArray | None = None,
) -> Estimate:
    """Stratified percentile interval of a statistic of a matrix ``[runs, episodes]``.

    Runs are drawn with replacement, and so are the episodes of each stratum, the same for every run: episodes share
    seeds across runs, so they are one sample. Of n runs n - 1 are drawn, and of m episodes of a stratum m - 1, without
    which the intervals of few runs and of small strata would be too narrow (Rao & Wu 1988).

    Args:
        scores: ``[runs, episodes]``.
        statistic: Function of such a matrix.
        rng: Random stream of the resampling.
        strata: Stratum of each episode ``[episodes]``, such as its instance; left out: one stratum. It is also
            left out where a stratum has a single episode.
    """
    runs, episodes = scores.shape
    groups = [np.arange(episodes)]
    if strata is not None and has_strata(strata):
        groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]

    of_runs = rng.integers(runs, size=(NUM_RESAMPLES, max(runs - 1, 1)))
    of_episodes = np.concatenate(
        [rng.choice(group, size=(NUM_RESAMPLES, max(len(group) - 1, 1))) for group in groups], axis=1
    )
    draws = [statistic(scores[r[:, None], e]) for r, e in zip(of_runs, of_episodes, strict=True)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(statistic(scores), float(low), float(high))


def paired_difference(
    left: FloatArray, right: FloatArray, rng: np.random.Generator, strata: IntArray | None = None
) -> Estimate:
    """Mean of left minus right over the same episodes.

    Args:
        left: ``[runs, episodes]``.
        right: ``[1, episodes]`` or ``[runs, episodes]``.
        rng: Random stream of the resampling.
        strata: See `bootstrap`.
    """
    return bootstrap(left - right, lambda sample: float(sample.mean()), rng, strata)


def probability_of_improvement(left: FloatArray, right: FloatArray) -> float:
    """How often an episode of left scores above the same episode of right; ties count half."""
    return float(((left > right) + 0.5 * (left == right)).mean())


def share_of_gap(value: float, low: float, high: float) -> float | None:
    """Position of a value between low and high: 0 at low, 1 at high; None unless high is above low."""
    return (value - low) / (high - low) if high > low else None
