"""A network's numbers are its own: whatever others stand beside it, and however many threads compute them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from kasmina_env.population import Population
from kasmina_env.settings.config import Operator
from tests.contract import HOSTS_UNDER_TEST, are_identical, blueprints_for, every_host, plant, samples, stacks
from tests.population.fused.pairs import batches

CNN = HOSTS_UNDER_TEST["cnn"]


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


def grown(host, rows, engine: str = "fused"):
    """Networks of the given seeds with others in every slot, and their amplitudes."""
    population, names = Population(host, rows, engine=engine), blueprints_for(host.topology)
    for position, row in enumerate(rows):
        for slot in range(population.num_slots):
            kind = names[(row + slot) % len(names)], Operator((row + slot) % 3)
            population.germinate([position], slot, *kind, in_training=row % 4 == 1)
    return population, np.full((len(rows), population.num_slots), 0.7)


def trained(host, rows, position: int | None = None):
    """Numbers of networks after a step, of all or of one of them."""
    population, alpha = grown(host, rows)
    x, y = batches(host, 8)
    axis = 1 if host.topology == "image" else 0
    width = x[0].shape[axis] // 8
    mine = [torch.cat([b.narrow(axis, row * width, width) for row in rows], dim=axis) for b in x]
    loss, _ = population.train(mine, [labels[:, rows] for labels in y], alpha)
    chosen = list(range(len(rows))) if position is None else [position]
    figures = population.evaluate(samples(host, 40), alpha)
    return [*stacks(population, chosen), loss[chosen], *(figure[:, chosen] for figure in figures)]


@every_host
def test_a_network_alone_is_bit_for_bit_what_it_is_among_others(host):
    assert are_identical(trained(host, [5]), trained(host, list(range(8)), position=5))


@every_host
def test_two_threads_compute_what_one_does(host):
    with threads(2):
        two = trained(host, list(range(8)))
    assert are_identical(two, trained(host, list(range(8))))


@every_host
def test_a_network_that_is_not_finite_leaves_the_others_alone_and_is_seen(host):
    figures = []
    for is_broken in (False, True):
        population, alpha = grown(host, list(range(4)))
        if is_broken:
            plant(population, 2, float("nan"), in_host=True)
        loss, health = population.train(*batches(host, 4), alpha)
        figures.append([*stacks(population, [0, 1, 3]), loss[[0, 1, 3]]])
    assert are_identical(*figures)
    assert loss[2].isnan()
    assert health.host_norm[2].isnan()
    assert population.evaluate(samples(host, 40), alpha)[1][0, 2] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_seed_in_training_that_is_not_finite_changes_nothing_but_itself(value):
    population, alpha = grown(CNN, [1, 2])
    clean = population.evaluate(samples(CNN, 40), alpha)
    plant(population, 0, value, slots=[0, 1, 2])
    assert all(map(torch.equal, population.evaluate(samples(CNN, 40), alpha), clean))
    loss, health = population.train(*batches(CNN, 2), alpha)
    assert loss.isfinite().all()
    assert (health.exploding[0] > 0).any()


def test_a_snapshot_is_trained_again_to_the_same_bits():
    population, alpha = grown(CNN, list(range(4)))
    saved = population.snapshot()
    population.train(*batches(CNN, 4), alpha)
    once = stacks(population)
    population.restore(saved)
    population.train(*batches(CNN, 4), alpha)
    assert are_identical(stacks(population), once)


def test_a_copied_network_trains_as_the_one_it_was_copied_from():
    population, alpha = grown(CNN, list(range(4)))
    population.copy_rows([0], [3])
    (x, y) = batches(CNN, 1)
    population.train([b.repeat(1, 4, 1, 1) for b in x], [labels.repeat(1, 4) for labels in y], alpha)
    assert are_identical(stacks(population, [0])[2:], stacks(population, [3])[2:])


def test_a_network_goes_home_as_it_was_evaluated():
    population, alpha = grown(CNN, list(range(4)))
    data = samples(CNN, 40)
    loss, _ = population.evaluate(data, alpha)
    for row in range(4):
        logits = population.network(row, alpha[row])(data.x)
        torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, data.y), loss[0, row])


def test_seeds_that_come_and_go_train_as_if_they_had_never_been_lowered_before():
    """Places of seeds in memory change when a larger one is grown for the first time."""
    figures = []
    for visitors in ((), ("norm", "conv_heavy", "depthwise")):
        population, alpha = Population(CNN, range(2), engine="fused"), np.full((2, 3), 0.7)
        population.germinate([0], 0, "norm", Operator.MULTIPLY, in_training=False)
        population.train(*batches(CNN, 2), alpha)
        saved = population.snapshot()
        for name in visitors:
            population.germinate([1], 0, name, Operator.GATE, in_training=False)
            population.train(*batches(CNN, 2), alpha)
            population.remove([1], 0)
        population.restore(saved)
        population.train(*batches(CNN, 2), alpha)
        figures.append(stacks(population))
    assert are_identical(*figures)
