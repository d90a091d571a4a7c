"""Batch normalisation: running statistics are each network's own, and travel with everything else of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kasmina_env.networks.hosts import CNNHost
from kasmina_env.population import Optimizer, Population
from tests.contract import are_identical, mixed_population, plain_network, row_state, samples, stacks, without

HOST = CNNHost(width=4, kernels=(3, 3), norm="batch")


def running(population: Population, row: int) -> dict[str, torch.Tensor]:
    """The running statistics of a network, by name."""
    return {name: p for name, p in row_state(population, row).items() if "running_" in name}


def train(population: Population, alpha=None, num_batches: int = 4) -> None:
    alpha = np.zeros((population.num_networks, population.num_slots)) if alpha is None else alpha
    population.train(*population.draw_minibatches(samples(HOST, dtype=population.setting.dtype), num_batches, 8), alpha)


def are_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_running_statistics_start_as_those_of_torch_and_are_learned():
    population, fresh = Population(HOST, range(3)), Population(HOST, range(3))
    plain = nn.BatchNorm2d(4).state_dict()
    for name, value in running(fresh, 1).items():
        assert torch.equal(value, plain[name.rpartition(".")[2]][0].expand_as(value))
    train(population)
    assert len(running(population, 0)) == 4
    for row in range(3):
        assert all((value != running(fresh, row)[name]).all() for name, value in running(population, row).items())
    assert not are_equal(running(population, 0), running(population, 1))


@pytest.mark.parametrize("optimizer", [Optimizer("adam", 0.1), Optimizer("sgd", 0.1)], ids=lambda o: o.name)
def test_no_optimiser_moves_them(optimizer):
    """Whatever the step size, they are the averages of the first minibatch alone."""
    bold, shy = (Population(HOST, [3], o) for o in (optimizer, Optimizer(optimizer.name, 1e-9)))
    for population in (bold, shy):
        train(population, num_batches=1)
    assert are_equal(running(bold, 0), running(shy, 0))


def test_evaluation_uses_them_and_leaves_them_as_they_are():
    population, alpha = mixed_population(HOST, torch.float64)
    train(population, alpha)
    before, data = stacks(population), samples(HOST, dtype=torch.float64)
    loss, _ = population.evaluate(data, alpha)
    assert are_identical(stacks(population), before)
    for row in range(population.num_networks):
        plain = without(plain_network(population, alpha, row), np.zeros(population.num_slots, dtype=bool)).eval()
        with torch.no_grad():
            wanted = nn.functional.cross_entropy(plain(data.x), data.y)
        torch.testing.assert_close(loss[0, row], wanted, rtol=1e-9, atol=1e-9)


def test_they_are_snapshotted_copied_and_reset_with_their_network():
    population, fresh = Population(HOST, range(3)), Population(HOST, [9])
    train(population)
    saved, before = population.snapshot(), [running(population, row) for row in range(3)]
    train(population)
    population.restore(saved)
    population.copy_rows([0], [1])
    population.reset_rows([2], [9])
    assert are_equal(running(population, 0), before[0])
    assert are_equal(running(population, 1), before[0])
    assert are_equal(running(population, 2), running(fresh, 0))


def test_they_are_exported_as_buffers_of_torch_and_used():
    population, alpha = mixed_population(HOST, num_networks=6)
    train(population, alpha)
    network = population.network(2, alpha[2])
    assert not network.training
    buffers = {name: b for name, b in network.named_buffers() if "running_" in name}
    assert are_equal(buffers, running(population, 2))
    one = samples(HOST, size=1).x
    assert torch.equal(network(one), network(one))
    torch.testing.assert_close(network(torch.cat([one, 5 * one]))[:1], network(one))
    before = stacks(population)
    network.train()(torch.cat([one, -one]))  # whoever trains it on moves its own alone
    assert not are_equal(buffers, running(population, 2))
    assert are_identical(stacks(population), before)


def test_a_network_that_is_not_finite_leaves_the_statistics_of_others():
    clean, spoiled = Population(HOST, range(4)), Population(HOST, range(4))
    spoiled._networks.hosts.parameters[1] = torch.nan
    for population in (clean, spoiled):
        train(population)
    for row in (0, 2, 3):
        assert are_equal(running(clean, row), running(spoiled, row))
