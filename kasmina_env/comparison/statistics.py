"""Interval estimates for returns, in the manner of Agarwal et al. 2021, "Deep RL at the edge of the precipice".

Scores come as a matrix ``[runs, episodes]``: a run is one training of the controller (a scripted policy has one).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from kasmina_env.lifecycle.arrays import FloatArray, IntArray

NUM_RESAMPLES = 2000
MIN_RUNS = 3  # of which an interval says something about another run
LEAST_GAP = 0.01  # of which shares are worth naming


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


def bootstrap(scores: FloatArray, rng: np.random.Generator, strata: IntArray | None = None) -> Estimate:
    """Mean of a matrix ``[runs, episodes]`` with its stratified 95 % bootstrap interval.

    Runs are drawn with replacement, and so are the episodes of each stratum, the same for every run: episodes share
    seeds across runs, so they are one sample. Of n runs n - 1 are drawn, and of m episodes of a stratum m - 1 (Rao & Wu
    1988). The interval is the mean, and around it the standard error over the draws times a quantile of Student's t at
    the degrees of freedom that runs and episodes have together (Satterthwaite 1946): percentiles of few runs are too
    narrow. Fewer than `MIN_RUNS` runs are not drawn. The interval is then over episodes of these very runs, and says
    nothing about another run.

    Args:
        scores: ``[runs, episodes]``.
        rng: Random stream of the resampling.
        strata: Stratum of each episode ``[episodes]``, such as its instance; left out: one stratum. It is also
            left out where a stratum has a single episode.
    """
    runs, episodes = scores.shape
    stratum = np.zeros(episodes, dtype=np.int64)
    if strata is not None and has_strata(strata):
        stratum = np.unique(strata, return_inverse=True)[1]
    of_episodes = np.concatenate([_shares(rng, size) for size in np.bincount(stratum).tolist()], axis=1)
    of_episodes = of_episodes[:, np.argsort(np.argsort(stratum, kind="stable"), kind="stable")] / episodes
    of_runs = _shares(rng, runs) / runs if runs >= MIN_RUNS else np.full((NUM_RESAMPLES, runs), 1 / runs)
    draws = ((of_runs @ scores) * of_episodes).sum(axis=1)
    value, half = float(scores.mean()), float(draws.std() * t.ppf(0.975, _freedom(scores, stratum)))
    return Estimate(value, value - half, value + half)


def _shares(rng: np.random.Generator, size: int) -> FloatArray:
    """Weights of `size` things, 1 on the mean, in draws of one fewer ``[NUM_RESAMPLES, size]``."""
    drawn = max(size - 1, 1)
    return np.asarray(rng.multinomial(drawn, np.full(size, 1 / size), size=NUM_RESAMPLES) * (size / drawn))


def _freedom(scores: FloatArray, stratum: IntArray) -> float:
    """Degrees of freedom of the standard error of a mean of ``[runs, episodes]``."""
    sizes = np.bincount(stratum)
    means = scores.mean(axis=0)
    residual = means - (np.bincount(stratum, means) / sizes)[stratum]
    free = max(len(means) - len(sizes), 1)
    parts = [(residual @ residual / free / len(means), free)]  # variance of the mean, degrees of freedom
    if len(scores) >= MIN_RUNS:
        parts.append((scores.mean(axis=1).var(ddof=1) / len(scores), len(scores) - 1))
    total = sum(variance for variance, _ in parts)
    return float(total**2 / sum(variance**2 / free for variance, free in parts)) if total else float(free)


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
    return bootstrap(left - right, rng, strata)


def probability_of_improvement(left: FloatArray, right: FloatArray) -> float:
    """How often an episode of left scores above the same episode of right; ties count half."""
    return float(((left > right) + 0.5 * (left == right)).mean())


def share_of_gap(value: float, low: float, high: float) -> float | None:
    """Position of a value between low and high: 0 at low, 1 at high; None unless high is above low by `LEAST_GAP`."""
    return (value - low) / (high - low) if high - low >= LEAST_GAP else None
