"""Comparison of ways to choose schedules, without the bias of a maximum over noisy returns.

Axes: P schedules, I instances (1 if the problem is no family), S seeds. A choice is made on one half of the seeds and
measured on the other. Then the halves change places, so no seed is measured with a choice that was made on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from kasmina_env.comparison.statistics import Estimate, paired_difference
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray

NUM_SEEDS_OF_NOISE = 16
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1e9)  # of `best_per_context`; the last one makes it ignore the facts

# Function of mean returns [P, I] that returns the index of the schedule chosen for each instance [I].
Choose = Callable[[FloatArray], IntArray]


@dataclass(frozen=True)
class Gap:
    """A difference of mean returns with its 95 % interval, and the noise to compare it with."""

    difference: Estimate
    noise: float  # standard error of the same difference measured on 16 seeds of one instance

    @property
    def in_noise(self) -> float:
        """The difference in units of its noise; 0 where the two never differ."""
        return self.difference.value / self.noise if self.noise else 0.0


@dataclass(frozen=True)
class Chosen:
    """Choices, and their returns on seeds that they were not made on."""

    schedules: IntArray  # [I, S]
    returns: FloatArray  # [I, S]


def halves(num_seeds: int) -> tuple[IntArray, IntArray]:
    """Indices of the even and of the odd seeds."""
    index = np.arange(num_seeds)
    return index[::2], index[1::2]


def cross_validate(returns: FloatArray, choose: Choose) -> Chosen:
    """Choose on each half of the seeds and measure on the other.

    Args:
        returns: Returns ``[P, I, S]``, of at least two seeds.
        choose: See `Choose`.
    """
    instances = np.arange(returns.shape[1])
    schedules, values = np.zeros(returns.shape[1:], dtype=np.int64), np.zeros(returns.shape[1:])
    even, odd = halves(returns.shape[2])
    for seen, unseen in ((even, odd), (odd, even)):
        chosen = choose(returns[:, :, seen].mean(axis=2))
        schedules[:, unseen] = chosen[:, None]
        values[:, unseen] = returns[chosen, instances][:, unseen]
    return Chosen(schedules, values)


def best_single(means: FloatArray) -> IntArray:
    """The schedule that is best on average over instances, for all of them."""
    return np.full(means.shape[1], means.mean(axis=1).argmax())


def best_per_instance(means: FloatArray) -> IntArray:
    """The best schedule of each instance."""
    return np.asarray(means.argmax(axis=0))


def best_held(groups: Sequence[IntArray]) -> Choose:
    """A `Choose` of the best schedule of each instance within one group, the group that is then best on average.

    Args:
        groups: Indices of the schedules in each group, at least one.
    """

    def choose(means: FloatArray) -> IntArray:
        options = [group[means[group].argmax(axis=0)] for group in groups]
        paid = [means[option, np.arange(len(option))].mean() for option in options]
        return np.asarray(options[int(np.argmax(paid))])

    return choose


def best_per_context(facts: Mapping[str, FloatArray]) -> Choose:
    """A `Choose` that knows of an instance only its visible facts and what was measured on the *other* instances.

    The return of every schedule is predicted from the facts, leaving one instance out, by ridge regression on their
    values (logarithms where positive), squares and products; the penalty is the one whose choices would have paid
    most. Prices enter a return linearly and are drawn over orders of magnitude, so both forms of them are offered.

    Args:
        facts: Name to value of each instance, ``[I]`` each.
    """

    def choose(means: FloatArray) -> IntArray:
        features = _quadratic(_standardised(facts, means.shape[1]))  # [I, K]
        options = [_left_out(features, means, penalty).argmax(axis=0) for penalty in PENALTIES]
        paid = [means[option, np.arange(len(option))].mean() for option in options]
        return np.asarray(options[int(np.argmax(paid))])

    return choose


def _standardised(facts: Mapping[str, FloatArray], num_instances: int) -> FloatArray:
    """Facts that vary, and the logarithms of those always positive, at mean 0 and deviation 1, ``[I, F]``."""
    columns = [np.asarray(values, dtype=np.float64) for values in facts.values()]
    columns += [np.log(column) for column in columns if (column > 0).all()]
    varying = [(column - column.mean()) / column.std() for column in columns if np.ptp(column) > 0]
    return np.stack(varying, axis=1) if varying else np.zeros((num_instances, 0))


def _quadratic(x: FloatArray) -> FloatArray:
    """A constant, all columns and their products, ``[I, F]`` to ``[I, 1 + F + F (F + 1) / 2]``."""
    products = [x[:, i] * x[:, j] for i, j in combinations_with_replacement(range(x.shape[1]), 2)]
    return np.column_stack([np.ones(len(x)), x, *products])


def _left_out(features: FloatArray, means: FloatArray, penalty: float) -> FloatArray:
    """Means ``[P, I]`` as ridge regression predicts each from the other instances.

    With the hat matrix H, leaving instance i out predicts ``(H y - h_ii y_i) / (1 - h_ii)``. The constant is free.
    """
    free = np.full(features.shape[1], penalty)
    free[0] = 0.0
    hat = features @ np.linalg.solve(features.T @ features + np.diag(free), features.T)
    leverage = np.diag(hat)
    return np.asarray((means @ hat.T - means * leverage) / (1 - leverage))


def gap(left: FloatArray, right: FloatArray, differs: BoolArray | None = None) -> Gap:
    """Mean of left minus right over the same episodes.

    The interval resamples rows and seeds, the choices as they were made. The noise is that of an experiment with 16
    paired seeds: ``sqrt(v / 16)``, where v is the variance over seeds of left minus right within a row and half of the
    seeds (both choices fixed), averaged over rows and halves. So neither how much instances or schedules differ from
    each other, which is what a gap is about, nor what a seed does to both sides counts as noise. Where both sides chose
    the same schedule there is nothing to compare, and v leaves it out: otherwise a rare difference would be measured in
    the noise of a common tie.

    Args:
        left: Returns ``[J, S]``; rows are instances, or pairs of schedule and instance.
        right: Returns ``[J, S]`` of the same episodes.
        differs: Mask of different choices ``[J, S]``, constant in each half; by default all differ.
    """
    difference = left - right
    chosen = np.ones(left.shape, dtype=np.bool_) if differs is None else differs
    variances = [difference[:, half].var(axis=1, ddof=1)[chosen[:, half[0]]] for half in halves(left.shape[1])]
    variance = np.concatenate(variances)
    noise = np.sqrt(variance.mean() / NUM_SEEDS_OF_NOISE) if len(variance) else 0.0
    return Gap(paired_difference(left, right, np.random.default_rng(0)), float(noise))


def gap_of_choices(left: Chosen, right: Chosen) -> Gap:
    """Gap between two ways of choosing from the same schedules."""
    return gap(left.returns, right.returns, left.schedules != right.schedules)


def gap_to_each(left: FloatArray, others: FloatArray) -> Gap:
    """Gap between returns ``[I, S]`` and the mean of other schedules ``[Q, I, S]``.

    Its noise is that against a typical single one of them.
    """
    repeated = np.broadcast_to(left, others.shape)
    rows = (others.shape[0] * others.shape[1], others.shape[2])
    return gap(repeated.reshape(rows), others.reshape(rows))
