"""Slots that features pass in another order than actions list them, against the network written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kasmina_env.networks.costs import measure_costs
from kasmina_env.networks.hosts import CNNHost, Slot, execution_order, make_network
from kasmina_env.networks.layers import widen
from kasmina_env.population import Population
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Split
from tests.contract import BARE_SGD, IMAGE_HOSTS, minibatch, samples, shake, state_of

HOST = CNNHost(width=8, image_size=8, kernels=(1, 3), pools=(0,), slots_at="both")
ALPHA = np.array([[0.3, 0.9, 0.6]])


def grown() -> Population:
    """One network with a seed in each of `block0`, `block1` and `pool0`."""
    population = Population(HOST, [3], BARE_SGD, dtype=torch.float64)
    for slot, blueprint in enumerate(("conv_light", "depthwise", "pointwise")):
        population.germinate([0], slot, blueprint, Operator.ADD, in_training=False)
    shake(population)
    return population


def places(host: CNNHost) -> list[int]:
    """Pixels of a sample at each slot, as the slots are listed."""
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[2:].numel())
        return x

    make_network(host, torch.nn)(minibatch(host, 1)[0][:, 0], [look] * len(host.slots))
    return [seen[execution_order(host.slots).index(i)] for i in range(len(host.slots))]


def by_hand(population: Population, x: torch.Tensor, off: tuple[str, ...] = ()) -> torch.Tensor:
    network = population.network(0, ALPHA[0])
    block0, pool, block1, head = network.network.segments
    seeds = dict(zip(("block0", "block1", "pool0"), network.slots, strict=True))
    for name in off:
        seeds[name] = torch.nn.Identity()
    h = seeds["block0"](block0(x))
    h = seeds["pool0"](pool(h))
    assert h.shape[-1] == 4
    return head(seeds["block1"](block1(h)))


@pytest.mark.parametrize(
    "slots_at, names, order",
    [
        ("before", ("block0", "block1", "block2"), (0, 1, 2)),
        ("after", ("block1", "pool0", "pool2"), (1, 0, 2)),
        ("both", ("block0", "block1", "block2", "pool0", "pool2"), (0, 3, 1, 2, 4)),
    ],
)
def test_slots_are_called_by_what_they_stand_behind(slots_at, names, order):
    host = CNNHost(kernels=(1, 1, 1), pools=(0, 2), slots_at=slots_at)
    assert tuple(slot.name for slot in host.slots) == names
    assert execution_order(host.slots) == order
    sizes = {"block0": (8, 64), "pool0": (8, 16), "block1": (16, 16), "block2": (16, 16), "pool2": (16, 4)}
    found = [(slot.channels, place) for slot, place in zip(host.slots, places(host), strict=True)]
    assert found == [sizes[name] for name in names]


def test_slots_of_equal_turn_are_passed_as_listed():
    assert execution_order([Slot("a", 1), Slot("b", 1), Slot("c", 1)]) == (0, 1, 2)
    assert execution_order([Slot("a", 1, turn=1), Slot("b", 1), Slot("c", 1)]) == (1, 2, 0)


def test_training_follows_the_order_of_the_network():
    population, (x, y) = grown(), minibatch(HOST, 1, dtype=torch.float64)
    wanted = F.cross_entropy(by_hand(population, x[:, 0]), y[:, 0])
    loss, _ = population.train([widen(x)], [y], ALPHA)
    torch.testing.assert_close(loss[0], wanted.detach(), rtol=0, atol=1e-10)


def test_gradients_follow_the_order_of_the_network():
    population, (x, y) = grown(), minibatch(HOST, 1, dtype=torch.float64)
    network = population.network(0, ALPHA[0])
    F.cross_entropy(network(x[:, 0]), y[:, 0]).backward()
    with torch.no_grad():
        for p in network.parameters():
            p -= BARE_SGD.learning_rate * p.grad
    population.train([widen(x)], [y], ALPHA)
    for name, p in state_of(population.network(0, ALPHA[0])).items():
        torch.testing.assert_close(p, network.state_dict()[name], rtol=0, atol=1e-10)


def test_every_seed_is_switched_off_where_it_acts():
    population, data = grown(), samples(HOST, dtype=torch.float64)
    settings = [(), ("block0",), ("block1",), ("pool0",), ("block1", "pool0"), ("block0", "block1", "pool0")]
    off = np.array([[[slot.name in names for slot in HOST.slots]] for names in settings])
    loss, _ = population.evaluate(Split(data.x, data.y), ALPHA, off)
    wanted = torch.stack([F.cross_entropy(by_hand(population, data.x, names), data.y) for names in settings])
    torch.testing.assert_close(loss[:, 0], wanted.detach(), rtol=0, atol=1e-10)
    assert len(set(loss[:, 0].tolist())) == len(settings)


def test_the_exported_network_follows_it_too():
    population, (x, _) = grown(), minibatch(HOST, 1, dtype=torch.float64)
    found = population.network(0, ALPHA[0])(x[:, 0])
    torch.testing.assert_close(found, by_hand(population, x[:, 0]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("host", IMAGE_HOSTS.values(), ids=IMAGE_HOSTS)
def test_compute_of_a_seed_is_counted_where_it_acts(host):
    costs = measure_costs(host, ("pointwise",), tuple(Operator))
    assert costs.seed_compute[:, 0, 0].tolist() == (costs.seed_parameters[:, 0, 0] * places(host)).tolist()
