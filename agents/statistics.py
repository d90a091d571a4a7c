"""Interval estimates for returns, in the manner of Agarwal et al. 2021, "Deep RL at the edge of the precipice".

Scores come as a matrix ``[runs, episodes]``: a run is one training of the controller (a scripted policy has one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all values: a quarter is cut off at each end, fractions of a value count as such."""
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    n = len(ordered)
    # weight of each value: its overlap with the middle half [n/4, 3n/4]
    left = np.arange(n)
    weight = np.clip(np.minimum(left + 1, 0.75 * n) - np.maximum(left, 0.25 * n), 0.0, 1.0)
    return float((ordered * weight).sum() / weight.sum())


def bootstrap(scores: FloatArray, statistic: Callable[[FloatArray], float], rng: np.random.Generator) -> Estimate:
    """Percentile interval of a statistic of a matrix ``[runs, episodes]``.

    Runs are drawn with replacement, and episodes with replacement as well, the same for every run: episodes share seeds
    across runs, so they are one sample.
    """
    runs, episodes = scores.shape
    draws = [
        statistic(scores[np.ix_(rng.integers(runs, size=runs), rng.integers(episodes, size=episodes))])
        for _ in range(NUM_RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(statistic(scores), float(low), float(high))


def paired_difference(left: FloatArray, right: FloatArray, rng: np.random.Generator) -> Estimate:
    """Mean of left minus right over the same episodes.

    Args:
        left: ``[runs, episodes]``.
        right: ``[1, episodes]`` or ``[runs, episodes]``.
        rng: Of the resampling.
    """
    return bootstrap(left - right, lambda sample: float(sample.mean()), rng)


def probability_of_improvement(left: FloatArray, right: FloatArray) -> float:
    """How often an episode of left scores above the same episode of right; ties count half."""
    return float(((left > right) + 0.5 * (left == right)).mean())
