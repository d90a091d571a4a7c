"""Random numbers belong to rows, and to nobody else."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from kasmina_env.population import Population
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import TASKS, Split
from tests.contract import (
    HOSTS_UNDER_TEST,
    are_identical,
    blueprints_for,
    every_host,
    samples,
    stacks,
)


def seen_by(population: Population, row: int, num_batches: int = 3) -> list[torch.Tensor]:
    """The next minibatches of a row, as inputs and labels."""
    host, num_networks = population.setting.host, population.num_networks
    inputs, labels = population.draw_minibatches(samples(host), num_batches, 4)
    is_image = population.setting.host.topology == "image"
    split = [x.unflatten(1, (num_networks, -1))[:, row] if is_image else x[row] for x in inputs]
    return [*split, *(y[:, row] for y in labels)]


def grow(population: Population, row: int) -> None:
    for slot, name in zip(range(population.num_slots), blueprints_for(population.setting.host.topology), strict=False):
        population.germinate([row], slot, name, Operator.GATE)


@every_host
def test_a_row_draws_the_same_wherever_it_stands_and_whatever_the_number_of_rows(host):
    alone, among = Population(host, [7]), Population(host, [3, 1, 7, 9])
    grow(among, 1)
    for population, row in ((alone, 0), (among, 2)):
        grow(population, row)
    assert are_identical(stacks(alone), stacks(among, [2]))
    assert are_identical(seen_by(alone, 0), seen_by(among, 2))
    assert are_identical(seen_by(alone, 0), seen_by(among, 2))


@every_host
def test_seeds_grown_for_several_rows_at_once_are_those_grown_one_by_one(host):
    together, apart = Population(host, [4, 5, 6]), Population(host, [4, 5, 6])
    name = blueprints_for(host.topology)[0]
    together.germinate([2, 0], 0, name, Operator.ADD)
    for row in (0, 2):
        apart.germinate([row], 0, name, Operator.ADD)
    assert are_identical(stacks(together), stacks(apart))


@every_host
def test_growing_does_not_change_the_minibatches_that_follow(host):
    grown, bare = Population(host, [4, 5]), Population(host, [4, 5])
    grow(grown, 1)
    assert all(are_identical(seen_by(grown, row), seen_by(bare, row)) for row in (0, 1))


@every_host
def test_rows_with_different_seeds_draw_different_weights_and_minibatches(host):
    population = Population(host, [0, 1, 2])
    assert len({tuple(row.tolist()) for row in population.snapshot().networks.hosts.parameters}) == 3
    assert not are_identical(seen_by(population, 0), seen_by(population, 1))


def test_minibatches_are_drawn_from_all_samples():
    population = Population(HOSTS_UNDER_TEST["mlp"], [0])
    data = Split(torch.arange(10.0).repeat(2, 1).T, torch.arange(10))
    inputs, labels = population.draw_minibatches(data, 5, 20)
    assert set(torch.cat(labels).flatten().tolist()) == set(range(10))
    assert all(torch.equal(x[0, :, 0], y[:, 0].float()) for x, y in zip(inputs, labels, strict=True))


def test_a_reseeded_row_draws_anew_and_keeps_its_network():
    population, other = Population(HOSTS_UNDER_TEST["cnn"], [0, 1]), Population(HOSTS_UNDER_TEST["cnn"], [0, 8])
    before = stacks(population)
    population.reseed([1], [8])
    assert are_identical(stacks(population), before)
    assert are_identical(seen_by(population, 1), seen_by(other, 1))


# ── global state ────────────────────────────────────────────────────────────────────────────────


def global_state() -> list[object]:
    numpy_state = np.random.get_state()  # noqa: NPY002
    return [
        torch.get_rng_state().tolist(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state],
        random.getstate(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    ]


def whole_life(host) -> None:
    population = Population(host, range(len(blueprints_for(host.topology))))
    for row, name in enumerate(blueprints_for(host.topology)):
        population.germinate([row], 0, name, Operator(row % 3), in_training=row % 2 == 0)
    alpha, data = np.ones((population.num_networks, population.num_slots)), samples(host)
    population.train(*population.draw_minibatches(data, 2, 4), alpha)
    population.evaluate(data, alpha)
    population.copy_rows([0], [1])
    population.network(0, alpha[0])
    population.reset_rows([0], [5])


@every_host
def test_no_global_state_is_touched(host):
    before = global_state()
    whole_life(host)
    assert global_state() == before


@pytest.mark.parametrize("name", TASKS)
def test_no_global_state_is_touched_by_making_a_task(name):
    before = global_state()
    TASKS.get(name)()
    assert global_state() == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@every_host
def test_training_works_under_the_callers_no_grad_and_inference_mode(host, mode):
    outside, inside = Population(host, [0]), Population(host, [0])
    data, alpha = samples(host), np.zeros((1, len(host.slots)))
    batches = outside.draw_minibatches(data, 2, 4)
    outside.train(*batches, alpha)
    with mode():
        inside.train(*batches, alpha)
    assert are_identical(stacks(outside), stacks(inside))
