"""The network a user takes home: plain layers, its own weights, and exactly the population's predictions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from kasmina_env.networks.blueprints import build_seed
from kasmina_env.networks.grown import GrownSlot
from kasmina_env.networks.layers import split_logits, widen
from kasmina_env.population import Population
from kasmina_env.population.arrangement import arrange
from kasmina_env.population.forward import slot_function
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import Split
from tests.contract import (
    are_identical,
    blueprints_for,
    cross_entropy,
    every_host,
    every_seed,
    features,
    kinds,
    minibatch,
    mixed_population,
    plain_network,
    shake,
    stacks,
    without,
)


@torch.no_grad()
def logits_of(population: Population, alpha, x: torch.Tensor) -> torch.Tensor:
    """What all rows predict for ``[B, N, ...]``: logits ``[B, N, num_classes]``."""
    setting, networks = population.setting, population.snapshot().networks

    def parameters_of(part, cell, count):
        return setting.template(part).unflatten(cell.weights.parameters)

    arrangement = arrange(networks, alpha, parameters_of, with_training=True)
    slots = [slot_function(slot) for slot in arrangement]
    parameters = setting.host_template.unflatten(networks.hosts.parameters)
    return split_logits(setting.host_template.call(parameters, widen(x), slots), len(networks))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=str)
@every_host
def test_it_predicts_what_its_row_predicts(host, dtype, tolerance):
    population, alpha = mixed_population(host, dtype)
    x, _ = minibatch(host, population.num_networks, dtype=dtype)
    wanted = logits_of(population, alpha, x)
    for row in range(population.num_networks):
        predicted = population.network(row, alpha[row])(x[:, row])
        torch.testing.assert_close(predicted, wanted[..., row, :], rtol=tolerance, atol=tolerance)


@every_host
def test_all_its_weights_are_in_layers_of_torch(host):
    population, alpha = mixed_population(host)
    for row in range(population.num_networks):
        network = population.network(row, alpha[row])
        owners = [m for m in network.modules() if next(m.parameters(recurse=False), None) is not None]
        assert all(type(owner).__module__.startswith("torch.nn.modules.") for owner in owners)
        buffers = dict(network.named_buffers())
        learned = {p.data_ptr() for name, p in network.state_dict().items() if name not in buffers}
        assert len(learned) == len(list(network.parameters()))
        assert all(p.requires_grad and not p.is_meta for p in network.parameters())


@every_host
def test_its_weights_are_its_own_copy(host):
    population, alpha = mixed_population(host, num_networks=6)
    before = stacks(population)
    for row in range(6):
        with torch.no_grad():
            for p in population.network(row, alpha[row]).parameters():
                p.fill_(7.0)
    assert are_identical(stacks(population), before)


class Copies(TorchDispatchMode):
    """Count tensors that are copied."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        self.count += func.overloadpacket in (aten._to_copy, aten.copy_, aten.clone)
        return func(*args, **(kwargs or {}))


@every_host
def test_moving_it_to_where_it_is_does_no_work(host):
    population, alpha = mixed_population(host, num_networks=6)
    network = population.network(0, alpha[0])
    before = [(p, p.data_ptr()) for p in network.parameters()]
    with Copies() as copies:
        network.to("cpu").to(torch.float32)
    assert copies.count == 0
    after = [(p, p.data_ptr()) for p in network.parameters()]
    assert all(a[0] is b[0] and a[1] == b[1] for a, b in zip(before, after, strict=True))


@every_host
def test_it_computes_wherever_and_in_whatever_type_it_is_moved_to(host):
    """Alpha is plain data, so there is no cache that a move could leave behind."""
    population, alpha = mixed_population(host, num_networks=9)
    data = Split(*minibatch(host, population.num_networks))
    double = data.to(torch.device("cpu"), torch.float64)
    for row in range(population.num_networks):
        network = population.network(row, alpha[row])
        wanted = network(data.x[:, row])
        moved = network.to(torch.float64)(double.x[:, row])
        assert moved.dtype == torch.float64
        torch.testing.assert_close(moved.float(), wanted, rtol=1e-4, atol=1e-4)
        assert network.to("meta")(double.x[:, row].to("meta")).is_meta


@every_host
def test_seeds_in_training_and_seeds_not_kept_are_left_out(host):
    population, alpha = mixed_population(host, num_networks=12)
    keep = np.arange(population.num_slots) % 2 == 0
    x, _ = minibatch(host, population.num_networks)
    for row in range(population.num_networks):
        live = {kind.slot for kind in kinds(population) if kind.row == row and not kind.in_training}
        network = population.network(row, alpha[row], keep)
        assert {i for i, slot in enumerate(network.slots) if not isinstance(slot, nn.Identity)} == live - {1, 3}
        expected = without(plain_network(population, alpha, row), ~keep).eval()(x[:, row])
        torch.testing.assert_close(network(x[:, row]), expected, rtol=1e-6, atol=1e-6)


@every_host
def test_it_can_be_copied_saved_loaded_and_trained(host, tmp_path):
    population, alpha = mixed_population(host, num_networks=6)
    network, other = population.network(0, alpha[0]), population.network(0, alpha[0])
    x, y = minibatch(host, 1)
    optimizer = torch.optim.SGD(copy.deepcopy(network).parameters(), lr=0.1)
    assert len(optimizer.param_groups[0]["params"]) == len(list(network.parameters()))
    cross_entropy(network(x[:, 0]), y[:, 0]).backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    torch.save(network.state_dict(), tmp_path / "network.pt")
    other.load_state_dict(torch.load(tmp_path / "network.pt", weights_only=True))
    assert torch.equal(network(x[:, 0]), other(x[:, 0]))


# ── slots ───────────────────────────────────────────────────────────────────────────────────────


@every_seed
def test_a_slot_compiles_without_graph_break(name, operator, topology):
    torch.compiler.reset()
    slot = GrownSlot(build_seed(nn, name, topology, operator, 8), alpha=0.5)
    x = features(topology, 8, dtype=torch.float32).requires_grad_()
    out = torch.compile(slot, fullgraph=True, backend="eager")(x)
    torch.testing.assert_close(out, slot(x))
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), [x, *slot.parameters()]))


@pytest.mark.parametrize("alpha", [0.5, 1.0], ids=["BLENDING", "FOSSILIZED"])
@pytest.mark.parametrize("operator", Operator)
def test_a_slot_compiles_with_its_backward_ahead_of_time(operator, alpha):
    torch.compiler.reset()
    slot = GrownSlot(build_seed(nn, "conv_light", "image", operator, 8), alpha)
    x = features("image", 8, dtype=torch.float32).requires_grad_()
    inputs = [x, *slot.parameters()]
    compiled = torch.autograd.grad(torch.compile(slot, fullgraph=True, backend="aot_eager")(x).square().sum(), inputs)
    torch.testing.assert_close(compiled, torch.autograd.grad(slot(x).square().sum(), inputs))


@every_host
def test_the_whole_network_compiles_without_graph_break(host):
    """Seeds in BLENDING at 0.5 and in FOSSILIZED at 1, for any number of samples."""
    torch.compiler.reset()
    names, alpha = blueprints_for(host.topology), np.resize([0.5, 1.0], len(host.slots))
    population = Population(host, [0])
    for slot in range(population.num_slots):
        population.germinate([0], slot, names[slot % len(names)], Operator(slot % len(Operator)), in_training=False)
    shake(population)
    network, (x, _) = population.network(0, alpha), minibatch(host, 1)
    assert [slot.alpha for slot in network.slots] == alpha.tolist()
    compiled = torch.compile(network, fullgraph=True, backend="eager", dynamic=True)
    for size in (5, 3):
        torch.testing.assert_close(compiled(x[:size, 0]), network(x[:size, 0]))
