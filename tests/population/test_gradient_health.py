"""Gradient health: real gradients, measured once, and never confused with no measurement."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kasmina_env.networks.hosts import execution_order
from kasmina_env.networks.layers import widen
from kasmina_env.population import Optimizer, Population
from kasmina_env.settings.config import Operator
from tests.contract import (
    blueprints_for,
    cross_entropy,
    every_host,
    kinds,
    minibatch,
    mixed_population,
    plain_network,
    plant,
    row_state,
    samples,
    sync_debug_mode,
)

LIBRARY = Path(__file__).parents[2] / "kasmina_env"
STANDSTILL = Optimizer("sgd", learning_rate=1e-30, momentum=0.0)


def train(population: Population, alpha, num_batches: int = 3):
    host, dtype = population.setting.host, population.setting.dtype
    batches = [minibatch(host, population.num_networks, seed=i, dtype=dtype) for i in range(num_batches)]
    _, health = population.train([widen(x) for x, _ in batches], [y for _, y in batches], alpha)
    return batches, health


def plain_norms(population: Population, alpha, row: int, batches) -> tuple[torch.Tensor, ...]:
    """Root mean square over minibatches of the gradient norms of host, segments and blueprints, by plain autograd."""
    plain = plain_network(population, alpha, row)
    squares = []
    for x, y in batches:
        plain.zero_grad()
        cross_entropy(plain(x[:, row]), y[:, row]).backward()
        order = execution_order(population.setting.host.slots)
        segments = (plain.network.segments[order.index(slot)] for slot in range(len(order)))
        parts = (plain.network, *segments, *(getattr(slot, "delta", slot) for slot in plain.slots))
        squares.append([sum((p.grad**2).sum() for p in part.parameters()) for part in parts])
    norms = torch.tensor(squares).mean(dim=0).sqrt()
    return norms[0], *norms[1:].split(population.num_slots)


@every_host
def test_norms_are_those_of_plain_autograd_before_clipping(host):
    """R15."""
    population, alpha = mixed_population(host, torch.float64, STANDSTILL)
    batches, health = train(population, alpha)
    for row in range(population.num_networks):
        host_norm, segment_norm, seed_norm = plain_norms(population, alpha, row, batches)
        assert abs(health.host_norm[row] - host_norm) <= 1e-6
        assert (health.segment_norm[row] - segment_norm).abs().max() <= 1e-6
        assert (health.seed_norm[row].nan_to_num(0.0) - seed_norm).abs().max() <= 1e-6


@every_host
def test_a_slot_without_a_seed_is_never_measured(host):
    population, alpha = mixed_population(host)
    has_seed = np.zeros(alpha.shape, dtype=bool)
    for kind in kinds(population):
        has_seed[kind.row, kind.slot] = True
    _, health = train(population, alpha)
    for measured in (health.seed_norm, health.vanishing, health.exploding):
        assert np.array_equal(measured.isnan().numpy(), ~has_seed)
    assert health.host_norm.isfinite().all()


@every_host
def test_a_seed_without_gradient_is_measured_as_zero(host):
    population = Population(host, [0])
    population.germinate([0], 0, blueprints_for(host.topology)[0], Operator.ADD, in_training=False)
    _, health = train(population, np.zeros((1, len(host.slots))))
    assert health.seed_norm[0, 0] == 0
    assert health.vanishing[0, 0] == 1
    assert health.exploding[0, 0] == 0


@every_host
def test_a_seed_in_good_health_neither_vanishes_nor_explodes(host):
    population, alpha = mixed_population(host)
    _, health = train(population, alpha)
    assert (health.seed_norm[~health.seed_norm.isnan()] > 0).all()
    assert health.exploding.nan_to_num(0.0).max() == 0
    assert health.vanishing.nan_to_num(0.0).max() == 0


@every_host
def test_a_broken_seed_in_training_is_reported_while_its_host_goes_on(host):
    population = Population(host, [0, 1])
    population.germinate([0, 1], 0, blueprints_for(host.topology)[0], Operator.ADD)
    plant(population, 1, float("nan"), slots=[0])
    _, health = train(population, np.zeros((2, len(host.slots))))
    assert health.exploding[0, 0] == 0
    assert health.exploding[1, 0] > 0
    assert not health.seed_norm[1, 0].isfinite()
    assert health.host_norm.isfinite().all()
    assert all(p.isfinite().all() for name, p in row_state(population, 1).items() if name.startswith("network."))


@every_host
def test_a_huge_gradient_is_reported_as_exploding(host):
    population, last = Population(host, [0, 1]), len(host.slots) - 1
    population.germinate([0, 1], last, blueprints_for(host.topology)[-1], Operator.ADD)
    saved = population.snapshot()
    template = population.setting.host_template
    for name, p in zip(template.names, template.unflatten(saved.networks.hosts.parameters), strict=True):
        # behind the slot only: a norm there would undo what is huge before it
        p[1] *= 1e6 if name.startswith(f"segments.{last + 1}.") else 1.0
    population.restore(saved)
    _, health = train(population, np.zeros((2, len(host.slots))))
    assert health.exploding[0, last] == 0
    assert health.exploding[1, last] > 0


class Waits(TorchDispatchMode):
    """Collect operations whose result, or its shape, Python must wait for."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique2", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.found, self.num_calls = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num_calls += 1
        self.found += [name for name in self.NAMES if func.overloadpacket is getattr(torch.ops.aten, name, None)]
        return func(*args, **(kwargs or {}))


@every_host
def test_training_never_waits_for_a_number(host):
    """R15: nothing in it would synchronise with a device."""
    population, alpha = mixed_population(host)
    x, y = minibatch(host, population.num_networks)
    with Waits() as waits:
        population.train([widen(x)] * 2, [y] * 2, alpha)
    assert waits.found == []
    assert waits.num_calls > 100


class Backwards(TorchDispatchMode):
    """Count passes back through the loss."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket is torch.ops.aten._log_softmax_backward_data
        return func(*args, **(kwargs or {}))


@every_host
def test_health_is_measured_in_the_one_backward_pass_that_trains(host):
    """R15."""
    population, alpha = mixed_population(host, engine="torch")
    with Backwards() as backwards:
        _, health = train(population, alpha, num_batches=3)
    assert backwards.count == 3
    assert not health.seed_norm.isnan().all()


def private_uses(source: str) -> list[str]:
    """Names behind `torch` or `F` that begin with an underscore."""
    chains = (ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    return [chain for chain in chains if re.fullmatch(r"(torch|F)(\.\w+)*\._[a-z]\w*", chain)]


def test_no_private_function_of_torch_is_used():
    """R15: nothing that the next release may take away, so nothing that needs a fallback."""
    assert private_uses("torch._foreach_norm(torch.nn._reduction, x._base)") == [
        "torch._foreach_norm",
        "torch.nn._reduction",
    ]
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(LIBRARY.rglob("*.py"))}
    assert len(sources) > 40
    assert {path.name: found for path, source in sources.items() if (found := private_uses(source))} == {}


@pytest.mark.gpu
@every_host
def test_nothing_inside_a_step_waits_for_the_device(host):
    population, alpha = mixed_population(host, device="cuda")
    data = samples(host).to(torch.device("cuda"), torch.float32)
    batches = population.draw_minibatches(data, 2, 4)
    with sync_debug_mode("error"):
        population.train(*batches, alpha)
        population.evaluate(data, alpha)
