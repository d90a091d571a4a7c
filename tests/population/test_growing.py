"""Germinate, connect, remove: what they change, what they leave alone, and how they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kasmina_env.networks.layers import widen
from kasmina_env.population import Population
from kasmina_env.population.state import Part
from kasmina_env.settings.config import Operator
from kasmina_env.settings.registry import UnknownNameError
from tests.contract import (
    HOSTS_UNDER_TEST,
    Kind,
    are_identical,
    blueprints_for,
    every_host,
    kinds,
    minibatch,
    mixed_population,
    seed_stacks,
    stacks,
)

NUM_NETWORKS = 6


def train(population: Population, alpha) -> None:
    batches = [minibatch(population.setting.host, population.num_networks, seed=i) for i in range(3)]
    population.train([widen(x) for x, _ in batches], [y for _, y in batches], alpha)


def trained_population(host) -> Population:
    population, alpha = mixed_population(host, num_networks=NUM_NETWORKS)
    train(population, alpha)
    return population


def in_training(population: Population) -> list[tuple[int, int]]:
    """Row and slot of all seeds in TRAINING."""
    return [(kind.row, kind.slot) for kind in kinds(population) if kind.in_training]


@every_host
def test_germinating_removing_and_connecting_leave_everything_else_bit_identical(host):
    population = trained_population(host)
    others = [row for row in range(NUM_NETWORKS) if row != 2]
    before, hosts = stacks(population, others), population.snapshot([2]).networks.hosts
    for slot in range(population.num_slots):
        population.remove([2], slot)
        population.germinate([2], slot, blueprints_for(host.topology)[0], Operator.GATE)
        population.connect([2], slot)
    assert are_identical(stacks(population, others), before)
    after = population.snapshot([2]).networks.hosts
    assert are_identical([after.parameters, after.moments], [hosts.parameters, hosts.moments])


@every_host
def test_connecting_keeps_weights_and_optimiser_state_bit_for_bit(host):
    population = trained_population(host)
    assert in_training(population)
    for row, slot in in_training(population):
        before = seed_stacks(population, row, slot)
        population.connect([row], slot)
        assert (row, slot) not in in_training(population)
        assert are_identical(seed_stacks(population, row, slot), before)
        assert before[1].abs().sum() > 0


@every_host
def test_a_connected_seed_joins_those_that_are_live_in_the_order_of_rows(host):
    population, name = Population(host, range(5)), blueprints_for(host.topology)[0]
    population.germinate([4, 0, 2], 0, name, Operator.ADD, in_training=False)
    population.germinate([3, 1], 0, name, Operator.ADD)
    before = [seed_stacks(population, row, 0) for row in range(5)]
    population.connect(range(5), 0)
    assert kinds(population) == [Kind(row, 0, name, Operator.ADD, in_training=False) for row in range(5)]
    assert all(are_identical(seed_stacks(population, row, 0), before[row]) for row in range(5))


@every_host
def test_a_removed_seed_is_gone_and_a_later_one_starts_clean(host):
    population, alpha = mixed_population(host, num_networks=NUM_NETWORKS)
    population.remove([1], 0)
    population.germinate([1], 0, blueprints_for(host.topology)[0], Operator.ADD)
    train(population, alpha)
    grown, moments, steps = seed_stacks(population, 1, 0)
    assert steps.item() == 3
    population.remove([1], 0)
    assert seed_stacks(population, 1, 0) == []
    population.germinate([1], 0, blueprints_for(host.topology)[0], Operator.ADD)
    fresh, moments, steps = seed_stacks(population, 1, 0)
    assert not torch.equal(fresh, grown)
    assert not moments.any()
    assert steps.item() == 0


@every_host
def test_every_minibatch_counts_as_one_update_of_a_host_and_of_its_seeds(host):
    population = trained_population(host)
    networks = population.snapshot().networks
    assert all((stack.steps == 3).all() for stack in (networks.hosts, *(c.weights for c in networks.cells.values())))


def test_removing_or_connecting_where_nothing_grows_does_nothing():
    population = trained_population(HOSTS_UNDER_TEST["mlp"])
    for slot in range(population.num_slots):
        population.remove([0], slot)
    before = stacks(population)
    population.remove([0], 0)
    population.connect([0], 1)
    assert are_identical(stacks(population), before)


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def population() -> Population:
    """Two networks, the second with a seed in its first slot."""
    grown = Population(HOSTS_UNDER_TEST["cnn"], [0, 1])
    grown.germinate([1], 0, "norm", Operator.ADD)
    return grown


def test_germinating_in_an_occupied_slot_is_refused_and_changes_nothing(population):
    before = stacks(population)
    with pytest.raises(ValueError, match=r"^`rows` must have no seed in slot 0, got \[1\], which do\. Remove theirs"):
        population.germinate([0, 1], 0, "conv_light", Operator.ADD)
    assert are_identical(stacks(population), before)


def test_an_unknown_blueprint_is_answered_with_the_nearest_name(population):
    with pytest.raises(UnknownNameError, match="Did you mean 'depthwise'") as caught:
        population.germinate([0], 0, "depthwize", Operator.ADD)
    assert str(caught.value).startswith("`blueprint` must be one of ")


@pytest.mark.parametrize("host, name", [("cnn", "lora"), ("mlp", "conv_light")])
def test_a_blueprint_for_other_features_is_refused(host, name):
    population = Population(HOSTS_UNDER_TEST[host], [0])
    topology = population.setting.host.topology
    with pytest.raises(ValueError, match=rf"^`blueprint` must accept {topology} features, got '{name}', which accepts"):
        population.germinate([0], 0, name, Operator.ADD)


def test_a_row_named_twice_is_refused(population):
    with pytest.raises(ValueError, match=r"^`rows` must be different networks, got \[0, 0\]\. Name each once\.$"):
        population.germinate([0, 0], 1, "norm", Operator.ADD)


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_does_not_exist_is_refused_everywhere(population, row):
    calls = [
        lambda: population.germinate([row], 1, "norm", Operator.ADD),
        lambda: population.connect([row], 0),
        lambda: population.remove([row], 0),
        lambda: population.reset_rows([row], [0]),
        lambda: population.reseed([row], [0]),
        lambda: population.snapshot([row]),
        lambda: population.copy_rows([0], [row]),
        lambda: population.network(row, np.zeros(3)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^`rows` must lie between 0 and 1, got "):
            call()


def test_a_population_of_none_is_refused():
    with pytest.raises(ValueError, match=r"^`rng_seeds` must hold one integer for each network, got none\. Give at "):
        Population(HOSTS_UNDER_TEST["mlp"], [])


@every_host
def test_a_seed_that_does_not_look_at_its_features_leaves_its_neighbours_alone(host, monkeypatch):
    """No gradient comes back from what it read."""
    names, populations = blueprints_for(host.topology)[:2], []
    for is_blind in (False, True):
        population = Population(host, range(3), engine="torch")
        for row, name in enumerate(names):
            population.germinate([row], 0, name, Operator.ADD, in_training=False)
        if is_blind:
            module = population.setting.template(Part(0, names[0])).module
            monkeypatch.setattr(module, "forward", lambda x: torch.ones_like(x))
        train(population, np.ones((3, population.num_slots)))
        populations.append(population)
    seeing, blind = populations
    assert are_identical(stacks(seeing, [1, 2]), stacks(blind, [1, 2]))
    assert not are_identical(stacks(seeing, [0]), stacks(blind, [0]))
