"""Every registered blueprint under every operator on every kind of features it accepts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kasmina_env.networks.blend import blend
from kasmina_env.networks.blueprints import BLUEPRINTS, build_seed, register_blueprint
from kasmina_env.networks.hosts import Slot
from kasmina_env.networks.layers import widen
from kasmina_env.population import Population
from kasmina_env.population.arrangement import arrange
from kasmina_env.population.forward import slot_function
from kasmina_env.population.state import Part
from kasmina_env.settings.config import Operator
from tests.contract import (
    HOSTS_UNDER_TEST,
    blueprints_for,
    every_seed,
    features,
    minibatch,
    normal,
    row_state,
    shake,
)

NUM_NETWORKS = 3
every_width = pytest.mark.parametrize("channels", [2, 3, 8, 32])


@dataclass(frozen=True)
class OneSlot:
    """A host that is nothing but a slot."""

    topology: str
    channels: int

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (Slot("only", self.channels),)

    def build(self, nn) -> list[nn.Module]:
        return [nn.Sequential(), nn.Sequential()]


def newborn(name: str, operator: Operator, topology: str, channels: int) -> Population:
    """Three networks with a newborn seed each."""
    population = Population(OneSlot(topology, channels), range(NUM_NETWORKS), dtype=torch.float64)
    population.germinate(range(NUM_NETWORKS), 0, name, operator, in_training=False)
    return population


def weights_of(population: Population) -> dict[Part, list[Tensor]]:
    cells = population.snapshot().networks.cells
    return {part: population.setting.template(part).unflatten(cell.weights.parameters) for part, cell in cells.items()}


def blended(population: Population, weights: dict[Part, list[Tensor]], x: Tensor) -> Tensor:
    """Wide features behind the slot, its seeds at alpha 1."""
    networks, alpha = population.snapshot().networks, np.ones((NUM_NETWORKS, 1))
    (slot,) = arrange(networks, alpha, lambda part, cell, count: weights[part], with_training=False)
    return slot_function(slot)(x)


def side_by_side(parts: list[Tensor]) -> Tensor:
    """Features of each network to wide features."""
    return widen(torch.stack(parts, dim=1))


def apart(wide: Tensor, topology: str) -> tuple[Tensor, ...]:
    return wide.chunk(NUM_NETWORKS, dim=1) if topology == "image" else wide.unbind()


@every_width
@every_seed
def test_the_ordinary_module_has_the_same_names_and_gives_the_same_output(name, operator, topology, channels):
    population = newborn(name, operator, topology, channels)
    shake(population)
    parts = [features(topology, channels, seed=i) for i in range(NUM_NETWORKS)]
    wide = apart(blended(population, weights_of(population), side_by_side(parts)), topology)
    for row, x in enumerate(parts):
        plain, state = build_seed(nn, name, topology, operator, channels).double(), row_state(population, row)
        plain.load_state_dict({key.removeprefix("slots.0."): p for key, p in state.items()})
        assert wide[row].shape == x.shape
        torch.testing.assert_close(wide[row], blend(x, plain(x), 1.0), rtol=0, atol=1e-10)


@every_width
@every_seed
def test_a_newborn_seed_is_near_the_identity(name, operator, topology, channels):
    population = newborn(name, operator, topology, channels)
    parts = [features(topology, channels, batch=32, seed=i) for i in range(NUM_NETWORKS)]
    wide = apart(blended(population, weights_of(population), side_by_side(parts)), topology)
    assert max((after - x).norm() / x.norm() for x, after in zip(parts, wide, strict=True)) <= 0.5


@every_width
@every_seed
def test_every_parameter_gets_gradient_within_two_optimiser_steps(name, operator, topology, channels):
    population = newborn(name, operator, topology, channels)
    weights = {part: [p.clone().requires_grad_() for p in parts] for part, parts in weights_of(population).items()}
    leaves = [p for parts in weights.values() for p in parts]
    x = side_by_side([features(topology, channels, batch=16, seed=i) for i in range(NUM_NETWORKS)])
    weight, optimizer, largest = normal(*x.shape, seed=9, dtype=torch.float64), torch.optim.Adam(leaves, lr=0.01), 0.0
    for _ in range(2):
        optimizer.zero_grad()
        (blended(population, weights, x) * weight).sum().backward()
        largest = torch.maximum(torch.as_tensor(largest), torch.stack([p.grad.abs().amax() for p in leaves]))
        optimizer.step()
    names = list(row_state(population, 0))
    assert [name for name, size in zip(names, largest, strict=True) if size == 0] == []


@pytest.mark.parametrize("in_training", [True, False], ids=["TRAINING", "live"])
@pytest.mark.parametrize("operator", Operator)
@pytest.mark.parametrize("host", HOSTS_UNDER_TEST.values(), ids=HOSTS_UNDER_TEST)
def test_every_parameter_learns_within_two_steps_behind_a_host(host, operator, in_training):
    names = blueprints_for(host.topology)
    population = Population(host, range(len(names)), dtype=torch.float64)
    for row, name in enumerate(names):
        population.germinate([row], 0, name, operator, in_training)
    x, y = minibatch(host, len(names), batch=16, dtype=torch.float64)
    population.train([widen(x)] * 2, [y] * 2, 0.5 + 0 * normal(len(names), len(host.slots)).double().numpy())
    for row in range(len(names)):
        squares = row_state(population, row, moment=1)
        assert [name for name in squares if name.startswith("slots.0.") and not squares[name].any()] == []


# ── the registry ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_says_what_it_is(name):
    info = BLUEPRINTS.get(name)
    assert info.name == name
    assert info.topologies
    assert all(builder.description.endswith((".", ")")) for builder in info.builders.values())


@pytest.mark.parametrize("topology", sorted({host.topology for host in HOSTS_UNDER_TEST.values()}))
def test_every_host_has_blueprints_to_choose_from(topology):
    assert len(blueprints_for(topology)) >= 2


def test_a_blueprint_is_not_replaced():
    with pytest.raises(ValueError, match="`blueprint` must have a new name, got 'norm' a second time"):
        register_blueprint("norm", topologies=("vector", "image"))(lambda nn, channels: nn.ReLU())
    assert BLUEPRINTS.get("norm").topologies == ("image",)


def test_one_name_has_a_builder_for_each_topology():
    image, tokens = (BLUEPRINTS.get("attention").builder(topology) for topology in ("image", "tokens"))
    assert type(image.build(nn, 8)) is not type(tokens.build(nn, 8))
    with pytest.raises(ValueError, match=r"^`blueprint` must accept vector features, got 'attention', which accepts"):
        BLUEPRINTS.get("attention").builder("vector")


def positions_that_see(name: str, operator: Operator, position: int) -> list[int]:
    """Where the term of a seed depends on what stands at a position, of five."""
    seed, x = build_seed(nn, name, "tokens", operator, 8).double(), features("tokens", 8)
    changed = x.clone()
    changed[:, position] += 1
    return np.flatnonzero((seed(changed) != seed(x)).any(dim=2).any(dim=0)).tolist()


@pytest.mark.parametrize("operator", Operator)
@pytest.mark.parametrize("name", blueprints_for("tokens"))
def test_tokens_see_no_later_token(name, operator):
    assert min(positions_that_see(name, operator, 2)) >= 2


@pytest.mark.parametrize("name, seeing", [("attention", [2, 3, 4]), ("shift", [3]), ("mlp", [2])])
def test_only_some_blueprints_look_at_other_tokens(name, seeing):
    assert positions_that_see(name, Operator.ADD, 2) == seeing
