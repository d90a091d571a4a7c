"""Estimates on cases with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from agents.statistics import bootstrap, interquartile_mean, paired_difference, probability_of_improvement


def mean(sample):
    return float(sample.mean())


def test_interquartile_mean_cuts_a_quarter_off_each_end():
    assert interquartile_mean([0, 1, 2, 100]) == pytest.approx(1.5)
    assert interquartile_mean(np.arange(8)) == pytest.approx(3.5)


def test_interquartile_mean_weighs_values_cut_in_part():
    # of six values the middle half is [1.5, 4.5]: half of the second and of the fifth, all of the third and fourth
    assert interquartile_mean([-50, 1, 2, 3, 4, 60]) == pytest.approx((0.5 * 1 + 2 + 3 + 0.5 * 4) / 3)


def test_constant_scores_have_an_interval_of_no_width():
    estimate = bootstrap(np.full((3, 10), 0.7), mean, np.random.default_rng(0))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.7, 0.7, 0.7))


def test_interval_of_a_normal_sample_is_close_to_theory():
    sample = np.random.default_rng(1).standard_normal((1, 400))
    estimate = bootstrap(sample, mean, np.random.default_rng(0))
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_runs_that_differ_widen_the_interval_more_than_episodes_do():
    rng = np.random.default_rng(2)
    runs_differ = np.repeat(rng.standard_normal((5, 1)), 200, axis=1)
    episodes_differ = rng.standard_normal((5, 200))
    wide, narrow = (bootstrap(s, mean, np.random.default_rng(0)) for s in (runs_differ, episodes_differ))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_bootstrap_is_reproducible():
    sample = np.random.default_rng(3).standard_normal((2, 30))
    assert bootstrap(sample, mean, np.random.default_rng(0)) == bootstrap(sample, mean, np.random.default_rng(0))


def test_pairing_removes_what_episodes_have_in_common():
    rng = np.random.default_rng(4)
    difficulty = rng.standard_normal((1, 200))
    estimate = paired_difference(difficulty + 0.1, difficulty, np.random.default_rng(0))
    assert (estimate.low, estimate.high) == pytest.approx((0.1, 0.1))


def test_probability_of_improvement_counts_ties_half():
    left, right = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[0.0, 2.0, 4.0, 1.0]])
    assert probability_of_improvement(left, right) == pytest.approx((2 + 0.5) / 4)
    assert probability_of_improvement(left, left) == 0.5
