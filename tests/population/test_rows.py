"""Whole networks as values: what is saved, restored, copied or reset goes on as if nothing had happened."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from kasmina_env.networks.layers import widen
from kasmina_env.population import Optimizer, Population
from kasmina_env.settings.config import Operator
from tests.contract import (
    HOSTS_UNDER_TEST,
    are_identical,
    blueprints_for,
    every_host,
    minibatch,
    mixed_population,
    samples,
    stacks,
    stacks_of,
)

NUM_NETWORKS = 6


def advance(population: Population, alpha, num_steps: int = 2) -> list[torch.Tensor]:
    """Train on minibatches that the rows draw themselves; what the training returned."""
    results = []
    for _ in range(num_steps):
        data = samples(population.setting.host, dtype=population.setting.dtype)
        batches = population.draw_minibatches(data, 2, 4)
        loss, health = population.train(*batches, alpha)
        results += [loss, *vars(health).values()]
    return results


def trained_population(host, optimizer: Optimizer | None = None, dtype: torch.dtype = torch.float32):
    population, alpha = mixed_population(host, dtype, optimizer, NUM_NETWORKS)
    population.learning_rate[:] *= np.linspace(0.5, 2.0, NUM_NETWORKS)
    advance(population, alpha)
    return population, alpha


# ── snapshot and restore ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("optimizer", [Optimizer("adam"), Optimizer("sgd")], ids=lambda optimizer: optimizer.name)
@every_host
def test_training_after_restore_is_bit_identical(host, optimizer):
    population, alpha = trained_population(host, optimizer)
    saved = population.snapshot()
    first = [*advance(population, alpha), *stacks(population)]
    for _ in range(2):  # a snapshot can be restored more than once
        population.restore(saved)
        assert are_identical([*advance(population, alpha), *stacks(population)], first)


@every_host
def test_everything_done_since_the_snapshot_is_undone(host):
    population, alpha = trained_population(host)
    saved, before = population.snapshot(), stacks(population)
    for slot in range(population.num_slots):
        population.remove(range(NUM_NETWORKS), slot)
    population.germinate([1, 3], 0, blueprints_for(host.topology)[0], Operator.GATE)
    population.reset_rows([0], [50])
    population.learning_rate[:] = 1.0
    advance(population, alpha)
    population.restore(saved)
    assert are_identical(stacks(population), before)
    assert population.learning_rate.tolist() == saved.networks.conditions.learning_rate.tolist()


@every_host
def test_restoring_some_rows_leaves_the_others_bit_identical(host):
    population, alpha = trained_population(host)
    saved = population.snapshot([1, 4])
    advance(population, alpha)
    expected = stacks(population, [0, 2, 3, 5])
    population.restore(saved, [4, 1])
    assert are_identical(stacks(population, [0, 2, 3, 5]), expected)
    assert are_identical(stacks(population, [4, 1]), stacks_of(saved))


@every_host
def test_a_snapshot_fits_into_another_population_after_pickling(host):
    population, alpha = trained_population(host, dtype=torch.float64)
    saved = pickle.loads(pickle.dumps(population.snapshot([3])))
    other = Population(host, [50, 51], dtype=torch.float64)
    other.restore(saved, [1])
    assert are_identical(stacks(other, [1]), stacks(population, [3]))
    advance(population, alpha)
    advance(other, alpha[[3, 3]])
    torch.testing.assert_close(stacks(other, [1]), stacks(population, [3]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("rows, number", [([0], "2"), ([1, 1], "different"), ([0, 1, 2], "2")], ids=str)
def test_rows_that_do_not_fit_a_snapshot_are_refused(rows, number):
    population = Population(HOSTS_UNDER_TEST["mlp"], range(4))
    with pytest.raises(ValueError, match=rf"^`rows` must be {number} networks, got \["):
        population.restore(population.snapshot([2, 3]), rows)


# ── copy ────────────────────────────────────────────────────────────────────────────────────────


@every_host
def test_copies_stay_equal_under_equal_actions(host):
    population, alpha = trained_population(host, dtype=torch.float64)
    population.copy_rows([0, 1], [4, 2])
    alpha[[4, 2]] = alpha[[0, 1]]
    for row in (0, 1, 4, 2):
        population.remove([row], 0)
        population.germinate([row], 0, blueprints_for(host.topology)[-1], Operator.ADD)
    advance(population, alpha, num_steps=4)
    assert_alike(population, 0, 4)
    assert_alike(population, 1, 2)


def assert_alike(population: Population, row: int, other: int) -> None:
    """Equal up to the order of sums: of a sum over many rows the last few columns are added in another order."""
    torch.testing.assert_close(stacks(population, [row]), stacks(population, [other]), rtol=0, atol=1e-10)


@every_host
def test_one_row_can_be_copied_to_all(host):
    population, alpha = trained_population(host, dtype=torch.float64)
    population.copy_rows([3] * NUM_NETWORKS, range(NUM_NETWORKS))
    assert all(are_identical(stacks(population, [row]), stacks(population, [3])) for row in range(NUM_NETWORKS))
    advance(population, alpha[[3] * NUM_NETWORKS])
    for row in range(NUM_NETWORKS):
        assert_alike(population, row, 3)


@every_host
def test_rows_can_be_exchanged(host):
    population, _ = trained_population(host)
    before = [stacks(population, [row]) for row in (0, 1)]
    population.copy_rows([0, 1], [1, 0])
    assert are_identical(stacks(population, [1]), before[0])
    assert are_identical(stacks(population, [0]), before[1])


@every_host
def test_a_copy_is_independent_of_its_source(host):
    population, _ = trained_population(host)
    population.copy_rows([0], [1])
    source = stacks(population, [0])
    population.reset_rows([1], [50])
    assert are_identical(stacks(population, [0]), source)


# ── reset ───────────────────────────────────────────────────────────────────────────────────────


@every_host
def test_a_reset_row_is_that_of_a_fresh_population(host):
    population, alpha = trained_population(host)
    population.learning_rate[:] = population.setting.optimizer.learning_rate
    fresh = Population(host, range(20, 20 + NUM_NETWORKS))
    rows = [5, 0, 2, 1, 4, 3]
    population.reset_rows(rows, [20 + row for row in rows])
    assert are_identical(stacks(population), stacks(fresh))
    assert are_identical([*advance(population, alpha), *stacks(population)], [*advance(fresh, alpha), *stacks(fresh)])


@every_host
def test_rows_that_are_not_reset_go_on(host):
    population, alpha = trained_population(host, dtype=torch.float64)
    others, saved, before = [0, 1, 3, 4], population.snapshot(), stacks(population, [0, 1, 3, 4])
    advance(population, alpha)
    expected = stacks(population, others)
    population.restore(saved)
    population.reset_rows([5, 2], [70, 71])
    assert are_identical(stacks(population, others), before)
    advance(population, alpha)
    torch.testing.assert_close(stacks(population, others), expected, rtol=0, atol=1e-10)


def test_the_pace_of_a_row_multiplies_its_learning_rate():
    host, pace = HOSTS_UNDER_TEST["mlp"], np.array([1.0, 0.25, 0.0])
    slowed, slow = Population(host, range(3)), Population(host, range(3))
    slow.learning_rate[:] *= pace
    fresh, (x, y) = slow.snapshot([2]).networks.hosts.parameters, minibatch(host, 3)
    slowed.train([widen(x)], [y], np.zeros((3, slowed.num_slots)), pace)
    slow.train([widen(x)], [y], np.zeros((3, slow.num_slots)))
    assert are_identical(stacks(slowed), stacks(slow))
    assert torch.equal(slowed.snapshot([2]).networks.hosts.parameters, fresh)
