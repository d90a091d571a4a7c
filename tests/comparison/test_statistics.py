"""Estimates on cases with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from kasmina_env.comparison.statistics import (
    bootstrap,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
    share_of_gap,
)


def test_interquartile_mean_cuts_a_quarter_off_each_end():
    assert interquartile_mean([0, 1, 2, 100]) == pytest.approx(1.5)
    assert interquartile_mean(np.arange(8)) == pytest.approx(3.5)


def test_interquartile_mean_weighs_values_cut_in_part():
    # of six values the middle half is [1.5, 4.5]: half of the second and of the fifth, all of the third and fourth
    assert interquartile_mean([-50, 1, 2, 3, 4, 60]) == pytest.approx((0.5 * 1 + 2 + 3 + 0.5 * 4) / 3)


def test_constant_scores_have_an_interval_of_no_width():
    estimate = bootstrap(np.full((3, 10), 0.7), np.random.default_rng(0))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.7, 0.7, 0.7))


def test_interval_of_a_normal_sample_is_close_to_theory():
    sample = np.random.default_rng(1).standard_normal((1, 400))
    estimate = bootstrap(sample, np.random.default_rng(0))
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_runs_that_differ_widen_the_interval_more_than_episodes_do():
    rng = np.random.default_rng(2)
    runs_differ = np.repeat(rng.standard_normal((5, 1)), 200, axis=1)
    episodes_differ = rng.standard_normal((5, 200))
    wide, narrow = (bootstrap(s, np.random.default_rng(0)) for s in (runs_differ, episodes_differ))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_interval_over_runs_alone_is_as_wide_as_students_t_says():
    levels = np.random.default_rng(9).standard_normal(8)
    estimate = bootstrap(levels[:, None].repeat(20, axis=1), np.random.default_rng(0))
    assert estimate.half_width == pytest.approx(2.365 * levels.std(ddof=1) / 8**0.5, rel=0.1)


def test_bootstrap_is_reproducible():
    sample = np.random.default_rng(3).standard_normal((2, 30))
    assert bootstrap(sample, np.random.default_rng(0)) == bootstrap(sample, np.random.default_rng(0))


def test_pairing_removes_what_episodes_have_in_common():
    rng = np.random.default_rng(4)
    difficulty = rng.standard_normal((1, 200))
    estimate = paired_difference(difficulty + 0.1, difficulty, np.random.default_rng(0))
    assert (estimate.low, estimate.high) == pytest.approx((0.1, 0.1))


def test_probability_of_improvement_counts_ties_half():
    left, right = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[0.0, 2.0, 4.0, 1.0]])
    assert probability_of_improvement(left, right) == pytest.approx((2 + 0.5) / 4)
    assert probability_of_improvement(left, left) == 0.5


def test_strata_take_their_differences_out_of_the_interval():
    rng = np.random.default_rng(5)
    instance = np.repeat(np.arange(20), 10)
    scores = (10.0 * instance + rng.standard_normal(200))[None]
    plain, stratified = (bootstrap(scores, np.random.default_rng(0), strata) for strata in (None, instance))
    assert stratified.half_width == pytest.approx(1.96 / 200**0.5, rel=0.2)
    assert plain.half_width > 20 * stratified.half_width


def test_strata_of_two_episodes_give_intervals_as_wide_as_theory():
    rng = np.random.default_rng(6)
    scores = rng.standard_normal((1, 400))
    estimate = bootstrap(scores, np.random.default_rng(0), np.arange(400) // 2)
    assert estimate.half_width == pytest.approx(1.96 / 20, rel=0.15)


def test_strata_of_one_episode_are_no_strata():
    scores = np.random.default_rng(7).standard_normal((2, 50))
    one_each = bootstrap(scores, np.random.default_rng(0), np.arange(50))
    assert one_each == bootstrap(scores, np.random.default_rng(0))


@pytest.mark.parametrize("runs, of_runs", [(3, 0.2), (3, 1.0), (5, 1.0), (10, 0.0), (10, 1.0)])
def test_an_interval_over_runs_covers_the_truth_as_often_as_it_says(runs, of_runs):
    rng, covered = np.random.default_rng(8), 0
    for trial in range(100):
        scores = of_runs * rng.standard_normal((runs, 1)) + rng.standard_normal((1, 40))
        estimate = bootstrap(scores + 0.3 * rng.standard_normal((runs, 40)), np.random.default_rng(trial))
        covered += estimate.low <= 0 <= estimate.high
    assert covered >= 90


@pytest.mark.parametrize("runs", [1, 2])
def test_an_interval_below_three_runs_covers_the_mean_of_these_runs(runs):
    rng, covered = np.random.default_rng(8), 0
    for trial in range(100):
        levels = rng.standard_normal((runs, 1))
        estimate = bootstrap(levels + rng.standard_normal((1, 40)), np.random.default_rng(trial))
        covered += estimate.low <= levels.mean() <= estimate.high
    assert covered >= 90


def test_share_of_a_gap_is_a_share_and_of_no_gap_nothing():
    assert share_of_gap(0.75, low=0.5, high=1.0) == 0.5
    assert share_of_gap(0.25, low=0.5, high=1.0) == -0.5
    assert share_of_gap(0.75, low=0.5, high=0.5) is None
    assert share_of_gap(0.75, low=0.5, high=0.505) is None  # a share would be of next to nothing
