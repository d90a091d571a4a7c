"""Gaps between ways of choosing, on returns whose true answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from kasmina_env.comparison.calibration_statistics import (
    best_per_context,
    best_per_instance,
    best_single,
    cross_validate,
    gap,
    gap_of_choices,
    gap_to_each,
)

SIGMA = 0.1


def noisy(means, num_seeds: int, sigma: float = SIGMA, seed: int = 0):
    """Returns [P, I, S] around means [P, I]."""
    means = np.asarray(means, dtype=np.float64)[..., None]
    return means + sigma * np.random.default_rng(seed).standard_normal((*means.shape[:2], num_seeds))


def gap_of_the_best(returns) -> float:
    return gap(cross_validate(returns, best_single).returns, returns[0]).in_noise


def test_a_maximum_of_noise_does_not_count():
    """300 schedules that are all worth the same: the best of them on paper is 3 deviations of its mean ahead."""
    draws = [noisy(np.zeros((300, 1)), 16, seed=seed) for seed in range(200)]
    on_paper = np.mean([d[1:].mean(axis=2).max() - d[0].mean() for d in draws])
    honest = [cross_validate(d[1:], best_single).returns.mean() - d[0].mean() for d in draws]
    assert on_paper > 2.5 * SIGMA / 4
    assert abs(np.mean(honest)) < 3 * np.std(honest) / np.sqrt(len(draws))


def test_noise_of_a_gap_is_the_standard_error_of_the_paired_difference_of_16_seeds():
    returns = noisy([[0.0], [0.5]], 4000)
    found = gap(returns[1], returns[0])
    assert found.difference.value == pytest.approx(0.5, abs=0.01)
    assert found.noise == pytest.approx(SIGMA * np.sqrt(2) / 4, rel=0.05)
    assert found.in_noise == pytest.approx(0.5 / found.noise, rel=0.05)


def test_interval_of_a_gap_narrows_with_seeds_and_its_noise_does_not():
    few, many = (gap(r[1], r[0]) for r in (noisy([[0.0], [0.5]], 20), noisy([[0.0], [0.5]], 2000)))
    width = [found.difference.high - found.difference.low for found in (few, many)]
    assert width[0] > 5 * width[1]
    assert few.noise == pytest.approx(many.noise, rel=0.5)


def test_what_a_seed_does_to_both_sides_is_no_noise():
    shared = np.random.default_rng(0).standard_normal((1, 40))
    found = gap(shared + 0.5, shared)
    assert (found.difference.low, found.difference.high) == pytest.approx((0.5, 0.5))
    assert found.noise == pytest.approx(0, abs=1e-12)


def test_instances_that_differ_are_no_noise():
    level = np.arange(8)[:, None]
    returns = noisy(np.zeros((2, 8)), 200)
    found = gap(returns[1] + level, returns[0])
    assert found.noise == pytest.approx(SIGMA * np.sqrt(2) / 4, rel=0.1)


def test_one_schedule_for_all_leaves_no_adaptivity():
    returns = noisy([[0.0] * 6, [1.0] * 6], 16)
    single, each = (cross_validate(returns, choose) for choose in (best_single, best_per_instance))
    found = gap_of_choices(each, single)
    assert (found.difference.value, found.noise, found.in_noise) == (0, 0, 0)


def test_adaptivity_is_what_the_best_of_each_instance_is_worth_above_the_best_for_all():
    means = [[0.4, 0.4, 0.4, 0.4], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    returns = noisy(means, 400)
    single, each = (cross_validate(returns, choose) for choose in (best_single, best_per_instance))
    assert gap_of_choices(each, single).difference.value == pytest.approx(1.0 - 0.5, abs=0.03)


def test_noise_is_that_of_the_instances_where_the_choices_differ():
    means = np.zeros((2, 10))
    means[0], means[1, 0] = 0.3, 0.6  # the second schedule is better in the first instance only
    returns = noisy(means, 400)
    single, each = (cross_validate(returns, choose) for choose in (best_single, best_per_instance))
    found = gap_of_choices(each, single)
    assert found.difference.value == pytest.approx(0.03, abs=0.005)
    assert found.noise == pytest.approx(SIGMA * np.sqrt(2) / 4, rel=0.1)


def family(hidden: bool):
    """A visible price and a fact; either the price or the fact says which of three schedules is best."""
    rng = np.random.default_rng(1)
    price, fact = np.exp(rng.uniform(-4, 0, 60)), rng.integers(2, size=60)
    growth = np.array([[0.0], [1.0], [3.0]])
    quality = 0.3 * growth if not hidden else np.where(np.array([[0], [1], [1]]) == fact, 1.0, 0.0)
    return noisy(quality - (0 if hidden else 1) * growth * price, 16, sigma=0.02), {"price": price}


def watching_and_adaptivity(returns, visible) -> tuple[float, float]:
    arms = [cross_validate(returns, choose) for choose in (best_per_instance, best_per_context(visible), best_single)]
    return arms[0].returns.mean() - arms[1].returns.mean(), arms[0].returns.mean() - arms[2].returns.mean()


def test_a_visible_cause_leaves_nothing_to_watch_for():
    watching, adaptivity = watching_and_adaptivity(*family(hidden=False))
    assert adaptivity > 0.1
    assert abs(watching) < 0.1 * adaptivity


def test_a_hidden_cause_can_only_be_watched():
    watching, adaptivity = watching_and_adaptivity(*family(hidden=True))
    assert adaptivity > 0.3
    assert watching > 0.8 * adaptivity


def test_the_best_for_a_context_never_saw_the_instance_itself():
    """Instances of one context: their own returns would betray what is hidden."""
    returns = noisy(np.eye(8), 16, sigma=0.01)
    alike = cross_validate(returns, best_per_context({"price": np.ones(8)}))
    assert alike.returns.mean() < 0.2


def test_gap_to_random_schedules_is_to_their_mean_in_the_noise_against_one():
    others = noisy(np.linspace(-1, 1, 50)[:, None], 100)
    found = gap_to_each(noisy([[0.7]], 100, seed=9)[0], others)
    assert found.difference.value == pytest.approx(0.7, abs=0.05)
    assert found.noise == pytest.approx(SIGMA * np.sqrt(2) / 4, rel=0.1)
    assert found.difference.high - found.difference.low > 0.2  # which 50 schedules were drawn is uncertain too
