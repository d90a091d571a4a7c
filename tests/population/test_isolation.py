"""Who may influence whom: no row another row, and no seed in TRAINING its host."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kasmina_env.networks.layers import widen
from kasmina_env.population import Population
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Split
from tests.contract import (
    BARE_SGD,
    HOSTS_UNDER_TEST,
    Kind,
    are_identical,
    blueprints_for,
    crowded_population,
    every_host,
    kinds,
    minibatch,
    mixed_population,
    plant,
    row_state,
    seed_stacks,
    shake,
    stacks,
)

NUM_NETWORKS = 9
ROW = 4


def life(population: Population, alpha, rows: list[int], poison: float | None = None) -> list[torch.Tensor]:
    """Train and evaluate; everything that is then known about the given rows. Poison spoils the inputs of ROW."""
    host, num_networks = population.setting.host, population.num_networks
    batches = [minibatch(host, num_networks, seed=i) for i in range(4)]
    if poison is not None:
        for x, _ in batches:
            x[0, ROW] = poison
    results = []
    for _ in range(2):
        loss, health = population.train([widen(x) for x, _ in batches], [y for _, y in batches], alpha)
        results += [part[rows] for part in (loss, *vars(health).values())]
    x, y = minibatch(host, 1, batch=70)
    off = np.random.default_rng(0).random((3, *alpha.shape)) < 0.5
    results += [part[:, rows] for part in population.evaluate(Split(x[:, 0], y[:, 0]), alpha, off)]
    return [*results, *stacks(population, rows)]


def grown_everywhere(host) -> tuple[Population, np.ndarray]:
    """A population with a live seed in every slot of ROW."""
    population, alpha = mixed_population(host, num_networks=NUM_NETWORKS)
    for slot in range(population.num_slots):
        population.remove([ROW], slot)
        population.germinate([ROW], slot, blueprints_for(host.topology)[slot], Operator(slot), in_training=False)
    return population, alpha


# tokens are integers, which cannot go bad
PLACES = [
    pytest.param(host, place, id=f"{name}-{place}")
    for name, host in HOSTS_UNDER_TEST.items()
    for place in ("host", "seeds", *(() if host.topology == "tokens" else ("inputs",)))
]


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("host, place", PLACES)
def test_a_row_gone_bad_leaves_every_other_row_bit_identical(host, place, value):
    others = [row for row in range(NUM_NETWORKS) if row != ROW]
    (healthy, alpha), (poisoned, _) = grown_everywhere(host), grown_everywhere(host)
    plant(poisoned, ROW, value, in_host=place == "host", slots=range(len(host.slots)) if place == "seeds" else ())
    expected = life(healthy, alpha, others)
    assert are_identical(life(poisoned, alpha, others, value if place == "inputs" else None), expected)
    assert row_is_bad(poisoned)
    assert not any(row_is_bad(poisoned, row) for row in others)


def row_is_bad(population: Population, row: int = ROW) -> bool:
    return not all(p.isfinite().all() for p in row_state(population, row).values())


# ── TRAINING ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), 1e30], ids=str)
@every_host
def test_a_seed_in_training_changes_neither_value_nor_gradient_of_its_host(host, value):
    """R14: bit for bit, whatever the seed has become."""
    names = blueprints_for(host.topology)
    with_seeds, without = (Population(host, range(len(names))) for _ in range(2))
    for (row, name), slot in ((entry, slot) for entry in enumerate(names) for slot in range(len(host.slots))):
        with_seeds.germinate([row], slot, name, Operator((row + slot) % 3))
    shake(with_seeds)
    if value is not None:
        for row in range(len(names)):
            plant(with_seeds, row, value, slots=range(len(host.slots)))
    rows, alpha = list(range(len(names))), np.full((len(names), len(host.slots)), 0.5)
    assert are_identical(host_life(with_seeds, alpha, rows), host_life(without, alpha, rows))


def host_life(population: Population, alpha, rows: list[int]) -> list[torch.Tensor]:
    """What `life` finds of the host: losses, gradient norms, evaluation, weights and optimiser state."""
    batches = [minibatch(population.setting.host, len(rows), seed=i) for i in range(3)]
    loss, health = population.train([widen(x) for x, _ in batches], [y for _, y in batches], alpha)
    x, y = minibatch(population.setting.host, 1, batch=70)
    results = population.evaluate(Split(x[:, 0], y[:, 0]), alpha)
    hosts = population.snapshot().networks.hosts
    return [loss, health.host_norm, *results, hosts.parameters, hosts.moments]


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@every_host
def test_seeds_in_training_gone_bad_leave_hosts_and_cell_mates_bit_identical(host, value):
    (healthy, alpha), (poisoned, _) = crowded_population(host), crowded_population(host)
    bad = [kind for kind in kinds(healthy) if kind.in_training][::2]
    for kind in bad:
        plant(poisoned, kind.row, value, slots=[kind.slot])
    good = [kind for kind in kinds(healthy) if kind not in bad]
    assert are_identical(*(life_of_seeds(population, alpha, good) for population in (healthy, poisoned)))


def life_of_seeds(population: Population, alpha, chosen: list[Kind]) -> list[torch.Tensor]:
    """What `host_life` finds, and some of the seeds."""
    results = host_life(population, alpha, list(range(population.num_networks)))
    return results + [tensor for kind in chosen for tensor in seed_stacks(population, kind.row, kind.slot)]


@every_host
def test_a_seed_in_training_learns(host):
    """R14: the straight-through estimator gives it a gradient."""
    population, alpha = mixed_population(host)
    places = [(kind.row, kind.slot) for kind in kinds(population) if kind.in_training]
    before = [seed_stacks(population, *place) for place in places]
    life(population, alpha, [0])
    after = [seed_stacks(population, *place) for place in places]
    assert all(not torch.equal(old[0], new[0]) for old, new in zip(before, after, strict=True))
    assert all(new[0].isfinite().all() for new in after)


# ── alive ───────────────────────────────────────────────────────────────────────────────────────


@every_host
def test_the_host_before_seeds_at_alpha_one_gets_gradient_in_every_layer(host):
    names = blueprints_for(host.topology)
    population = Population(host, range(len(names)), BARE_SGD)
    for (row, name), slot in ((entry, slot) for entry in enumerate(names) for slot in range(len(host.slots))):
        population.germinate([row], slot, name, Operator.ADD, in_training=False)
    x, y = minibatch(host, len(names))
    population.train([widen(x)], [y], np.ones((len(names), len(host.slots))))
    for row in range(len(names)):
        gradients = row_state(population, row, moment=0)
        learned = [g for name, g in gradients.items() if name.startswith("network.") and "running_" not in name]
        assert all(g.norm() > 1e-4 for g in learned)
