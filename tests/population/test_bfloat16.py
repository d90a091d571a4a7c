"""In bfloat16: every host with its seeds computes what it computes in float32 up to rounding, and learns."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from kasmina_env import load_network, save_network
from kasmina_env.networks.blend import blend
from kasmina_env.networks.blueprints import build_seed
from kasmina_env.networks.layers import widen
from kasmina_env.population import Optimizer, Population
from kasmina_env.population.optim import Updates
from kasmina_env.settings.config import Operator
from kasmina_env.tasks import classify
from tests.contract import (
    BARE_SGD,
    HOSTS_UNDER_TEST,
    are_identical,
    blueprints_for,
    cross_entropy,
    every_host,
    every_seed,
    features,
    minibatch,
    mixed_population,
    plain_network,
    row_state,
    samples,
    stacks,
)

BF16 = torch.bfloat16


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


# ── seeds ───────────────────────────────────────────────────────────────────────────────────────


@every_seed
def test_a_seed_keeps_shape_and_type_and_computes_what_it_does_in_float32(name, operator, topology):
    seed, x = build_seed(nn, name, topology, operator, 8), features(topology, 8, dtype=torch.float32).to(BF16)
    wanted = blend(x.float(), seed(x.float()), 0.7)
    found = blend(x, seed.to(BF16)(x), 0.7)
    assert (found.shape, found.dtype) == (x.shape, BF16)
    assert relative_error(found, wanted) < 0.02


@every_seed
def test_every_parameter_gets_gradient_within_two_steps(name, operator, topology):
    host = next(host for host in HOSTS_UNDER_TEST.values() if host.topology == topology)
    population, slot = Population(host, [0], dtype=BF16), len(host.slots) - 1
    population.germinate([0], slot, name, operator, in_training=False)
    x, y = minibatch(host, 1, batch=16, dtype=BF16)
    population.train([widen(x)] * 2, [y] * 2, np.ones((1, len(host.slots))))
    squares = {name: p for name, p in row_state(population, 0, moment=1).items() if name.startswith("slots.")}
    assert all(p.isfinite().all() for p in squares.values())
    assert [name for name, p in squares.items() if not p.any()] == []


# ── populations ─────────────────────────────────────────────────────────────────────────────────


def to_float32(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.is_floating_point() else x


@every_host
def test_losses_and_gradients_are_those_of_plain_networks_in_float32_up_to_rounding(host):
    population, alpha = mixed_population(host, BF16, BARE_SGD, num_networks=12)
    x, y = minibatch(host, 12, batch=32, dtype=BF16)
    plain = [plain_network(population, alpha, row).float() for row in range(12)]
    losses = [cross_entropy(network(to_float32(x[:, row])), y[:, row]) for row, network in enumerate(plain)]
    torch.stack(losses).sum().backward()
    loss, _ = population.train([widen(x)], [y], alpha)
    torch.testing.assert_close(loss, torch.stack(losses).detach(), rtol=0.02, atol=0)
    found = [row_state(population, row, moment=0) for row in range(12)]
    pairs = [(found[row][name], p.grad) for row in range(12) for name, p in plain[row].named_parameters()]
    assert relative_error(*(torch.cat([g.flatten() for g in side]) for side in zip(*pairs, strict=True))) < 0.15


@every_host
def test_evaluation_is_that_of_plain_networks_and_counts_without_rounding(host):
    population, alpha = mixed_population(host, BF16, num_networks=12)
    data = samples(host, size=300, dtype=BF16)
    loss, quality = population.evaluate(data, alpha)
    assert loss.dtype == quality.dtype == torch.float32
    for row in range(12):
        logits = population.network(row, alpha[row])(data.x).unsqueeze(-2).float()
        wanted_loss, wanted_quality = classify(logits, data.y.unsqueeze(1))
        torch.testing.assert_close(loss[0, row], wanted_loss.mean(), rtol=0.01, atol=0)
        assert abs(quality[0, row] - wanted_quality.mean()) < 0.02


def test_updates_are_counted_beyond_256_and_averages_forget():
    population = Population(HOSTS_UNDER_TEST["mlp"], [0], dtype=BF16)
    stack = population.snapshot().networks.hosts
    stack.moments.fill_(1e3)
    updates = Updates(population.setting.optimizer, [stack], [torch.full((1, 1), 0.01)], 300)
    for factors in updates.factors:
        updates.gradient.zero_()
        updates.turn_(*factors)
    updates.finish()
    assert stack.steps.item() == 300
    assert (stack.moments <= 750).all()


@every_host
def test_it_survives_snapshot_and_files_bit_for_bit(host, tmp_path):
    population, alpha = mixed_population(host, BF16, num_networks=12)
    saved, (x, y) = population.snapshot(), minibatch(host, 12, dtype=BF16)
    first = [population.train([widen(x)], [y], alpha)[0], *stacks(population)]
    population.restore(saved)
    assert are_identical([population.train([widen(x)], [y], alpha)[0], *stacks(population)], first)
    network = population.network(0, alpha[0])
    save_network(network, tmp_path / "net.safetensors")
    loaded = load_network(tmp_path / "net.safetensors")(x[:, 0])
    assert loaded.dtype == BF16
    assert torch.equal(loaded, network(x[:, 0]))


@every_host
def test_it_learns(host):
    """A few samples by heart."""
    population = Population(host, range(3), Optimizer(learning_rate=0.01), dtype=BF16)
    for slot, operator in zip(range(population.num_slots), Operator, strict=False):
        population.germinate(range(3), slot, blueprints_for(host.topology)[slot], operator, in_training=False)
    x, y = minibatch(host, 3, batch=6, dtype=BF16)
    alpha = np.full((3, population.num_slots), 0.7)
    losses = [population.train([widen(x)] * 10, [y] * 10, alpha)[0] for _ in range(3)]
    assert (losses[2] < 0.85 * losses[0]).all()
