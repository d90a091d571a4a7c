"""A population is exactly its networks: each row against a plain `torch.nn` network."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from kasmina_env.networks.layers import widen
from kasmina_env.population import Optimizer, Population
from kasmina_env.population.optim import Updates
from kasmina_env.population.stack import new_stack
from kasmina_env.settings.config import Operator
from tests.contract import (
    BARE_SGD,
    HOSTS_UNDER_TEST,
    TOLERANCE,
    blueprints_for,
    cross_entropy,
    crowded_population,
    deviation,
    every_host,
    kinds,
    minibatch,
    mixed_population,
    normal,
    plain_network,
    row_state,
    shake,
    state_of,
)

ADAM = Optimizer("adam", learning_rate=0.01, clip_norm=0.2)
SGD = Optimizer("sgd", learning_rate=0.1, clip_norm=0.2)


# ── one minibatch ───────────────────────────────────────────────────────────────────────────────


def plain_losses_and_gradients(population: Population, alpha, x, y):
    """Of every row, run one by one."""
    for row in range(population.num_networks):
        plain = plain_network(population, alpha, row)
        loss = cross_entropy(plain(x[:, row]), y[:, row])
        loss.backward()
        gradients = {name: torch.zeros_like(p) for name, p in state_of(plain).items()}  # running statistics get none
        yield loss.detach(), gradients | {name: p.grad for name, p in plain.named_parameters()}


def uniform_population(operator: Operator, host, dtype: torch.dtype, optimizer: Optimizer):
    """A population with its alpha ``[N, S]`` that knows one operator; its blueprints take turns from row to row."""
    names = blueprints_for(host.topology)
    population = Population(host, range(2 * len(names)), optimizer, dtype=dtype)
    for row, slot in np.ndindex(population.num_networks, population.num_slots):
        population.germinate([row], slot, names[(row + slot) % len(names)], operator, in_training=row % 3 == 0)
    shake(population)
    return population, np.full((population.num_networks, population.num_slots), 0.7)


CASES = [
    *(pytest.param(mixed_population, dtype, id=f"mixed-{dtype}") for dtype in TOLERANCE),
    *(pytest.param(crowded_population, dtype, id=f"crowded-{dtype}") for dtype in TOLERANCE),
    *(pytest.param(partial(uniform_population, operator), torch.float64, id=operator.name) for operator in Operator),
]


@pytest.mark.parametrize("make, dtype", CASES)
@every_host
def test_losses_and_all_gradients_are_those_of_plain_networks(host, make, dtype):
    population, alpha = make(host, dtype=dtype, optimizer=BARE_SGD)
    x, y = minibatch(host, population.num_networks, dtype=dtype)
    plain_losses, plain_gradients = zip(*plain_losses_and_gradients(population, alpha, x, y), strict=True)
    loss, _ = population.train([widen(x)], [y], alpha)
    gradients = [row_state(population, row, moment=0) for row in range(population.num_networks)]
    assert (loss - torch.stack(plain_losses)).abs().max() <= TOLERANCE[dtype]
    assert max(map(deviation, gradients, plain_gradients)) <= TOLERANCE[dtype]


@every_host
def test_the_comparison_leaves_no_seed_out_and_none_without_gradient(host):
    population, alpha = mixed_population(host, torch.float64, BARE_SGD)
    x, y = minibatch(host, population.num_networks, dtype=torch.float64)
    population.train([widen(x)], [y], alpha)
    wanted = product(blueprints_for(host.topology), Operator, (False, True))
    assert {(kind.blueprint, kind.operator, kind.in_training) for kind in kinds(population)} == set(wanted)
    cells = population.snapshot().networks.cells.values()
    assert all((cell.weights.moments[0].norm(dim=1) > 0).all() for cell in cells)


@every_host
def test_the_comparison_has_cells_that_mix_all_operators_and_stages(host):
    manners = defaultdict(set)
    for _, slot, blueprint, operator, in_training in kinds(crowded_population(host)[0]):
        manners[slot, blueprint].add((operator, in_training))
    assert len(manners) == len(host.slots) * len(blueprints_for(host.topology))
    assert all(found == set(product(Operator, (False, True))) for found in manners.values())


# ── several minibatches ─────────────────────────────────────────────────────────────────────────


class PlainTraining:
    """One row as a plain network in the hands of `torch.optim`."""

    def __init__(self, population: Population, alpha, row: int) -> None:
        self.network = plain_network(population, alpha, row)
        # what is clipped as one: the host, each blueprint, each gate
        self.parts = [self.network.network, *(part for slot in self.network.slots for part in slot.children())]
        self.settings = settings = population.setting.optimizer
        make = {
            "adam": partial(torch.optim.Adam, betas=(settings.momentum, settings.beta2), eps=settings.eps),
            "sgd": partial(torch.optim.SGD, momentum=settings.momentum),
        }[settings.name]
        rate = population.learning_rate[row]
        groups = [{"params": [*self.network.network.parameters()], "lr": settings.host_factor * rate}]
        self.optimizer = make([*groups, {"params": [*self.network.slots.parameters()]}], lr=rate)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        cross_entropy(self.network(x), y).backward()
        for part in self.parts:
            clip_grad_norm_(part.parameters(), self.settings.clip_norm)
        self.optimizer.step()


def train_both(population: Population, plain: list[PlainTraining], alpha, num_batches: int, seed: int) -> None:
    """The same minibatches to a population, as one step, and to its plain networks."""
    host, dtype = population.setting.host, population.setting.dtype
    batches = [minibatch(host, population.num_networks, seed=10 * seed + i, dtype=dtype) for i in range(num_batches)]
    population.train([widen(x) for x, _ in batches], [y for _, y in batches], alpha)
    for (x, y), (row, training) in product(batches, enumerate(plain)):
        training.step(x[:, row], y[:, row])


def largest_deviation(population: Population, plain: list[PlainTraining]) -> float:
    states = (state_of(training.network) for training in plain)
    return max(deviation(row_state(population, row), state) for row, state in enumerate(states))


@pytest.mark.parametrize("optimizer", [ADAM, SGD], ids=lambda optimizer: optimizer.name)
@every_host
def test_optimiser_steps_are_those_of_torch_even_of_a_row_reset_in_mid_flight(host, optimizer):
    population, alpha = mixed_population(host, torch.float64, optimizer, num_networks=12)
    plain = [PlainTraining(population, alpha, row) for row in range(population.num_networks)]
    train_both(population, plain, alpha, num_batches=3, seed=0)
    population.reset_rows([2], [99])
    population.germinate([2], 0, blueprints_for(host.topology)[0], Operator.GATE, in_training=False)
    plain[2] = PlainTraining(population, alpha, 2)
    train_both(population, plain, alpha, num_batches=3, seed=1)
    assert largest_deviation(population, plain) <= TOLERANCE[torch.float64]


@every_host
def test_optimiser_steps_in_float32_are_those_of_torch(host):
    population, alpha = mixed_population(host, torch.float32, SGD, num_networks=12)
    plain = [PlainTraining(population, alpha, row) for row in range(population.num_networks)]
    train_both(population, plain, alpha, num_batches=4, seed=0)
    assert largest_deviation(population, plain) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("host_factor", [1.0, 0.3])
@pytest.mark.parametrize("optimizer", [ADAM, SGD], ids=lambda optimizer: optimizer.name)
def test_every_row_has_its_own_learning_rate_and_hosts_their_share_of_it(optimizer, host_factor):
    optimizer = replace(optimizer, host_factor=host_factor)
    population, alpha = mixed_population(HOSTS_UNDER_TEST["mlp"], torch.float64, optimizer, num_networks=6)
    population.learning_rate[:] = [0.5, 0.1, 0.05, 0.01, 1e-3, 1e-4]
    plain = [PlainTraining(population, alpha, row) for row in range(6)]
    train_both(population, plain, alpha, num_batches=3, seed=0)
    assert largest_deviation(population, plain) <= TOLERANCE[torch.float64]


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.0), (0.5, 0.9999)], ids=str)
def test_the_first_step_of_adam_is_one_learning_rate_long_in_float32_too(betas):
    optimizer, gradient = Optimizer("adam", 0.01, *betas), normal(2, 5) + 3.0
    rates, stack = torch.tensor([[0.01], [0.1]]), new_stack(torch.zeros(2, 5), num_moments=2)
    updates = Updates(optimizer, [stack], [rates], num_updates=1)
    updates.gradient.copy_(gradient.view(-1))
    updates.turn_(*updates.factors[0])
    torch.testing.assert_close(updates.gradient.view(2, 5), rates.expand(2, 5), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "adamw"},
        {"learning_rate": 0.0},
        {"momentum": 1.0},
        {"beta2": -0.1},
        {"eps": 0.0},
        {"clip_norm": -1.0},
        {"learning_rate": float("nan")},
    ],
    ids=str,
)
def test_a_bad_optimiser_setting_is_named_in_one_sentence(settings):
    with pytest.raises(ValueError, match=rf"^`{next(iter(settings))}` must [^.]*, got .*\. Change it\.$"):
        Optimizer(**settings)
