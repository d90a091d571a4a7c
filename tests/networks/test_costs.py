"""Compute, as it is defined: applications of parameters, beside what PyTorch's own counter counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.costs import measure_costs
from kasmina_env.networks.hosts import CNNHost, MLPHost, TransformerHost
from kasmina_env.settings.config import Operator
from tests.contract import blueprints_for

HOSTS = {
    "image": CNNHost(width=8, kernels=(3,), pools=(), image_size=8),
    "vector": MLPHost(width=8, depth=1),
    "tokens": TransformerHost(context=16, width=8, num_layers=1, num_segments=1, num_heads=0),
}
PLACES = {"image": 8 * 8, "vector": 1, "tokens": 16}
SHAPES = {"image": (1, 8, 8, 8), "vector": (1, 8), "tokens": (1, 16, 8)}
POOLED = ("attention", "image")  # works on the means of channels: one place, whatever the size of the picture


def counted_by_torch(module: nn.Module, shape: tuple[int, ...]) -> float:
    """Multiply-accumulates of matrix products and convolutions."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(shape))
    return counter.get_total_flops() / 2


def vectors(module: nn.Module) -> int:
    """Biases, and weights and biases of norms."""
    return sum(p.numel() for p in module.parameters() if p.ndim == 1)


@pytest.mark.parametrize("name, topology", [(n, t) for n in BLUEPRINTS for t in BLUEPRINTS.get(n).topologies])
def test_compute_is_what_torch_counts_with_biases_and_norms_and_without_products_of_tokens(name, topology):
    costs = measure_costs(HOSTS[topology], blueprints_for(topology), tuple(Operator))
    module = BLUEPRINTS.get(name).builder(topology).build(nn, 8)
    places = 1 if (name, topology) == POOLED else PLACES[topology]
    wanted = counted_by_torch(module, SHAPES[topology]) + vectors(module) * places
    if (name, topology) == ("attention", "tokens"):
        wanted -= 2 * 16 * 16 * 8  # queries with keys, and weights with values
    found = costs.seed_compute[0, blueprints_for(topology).index(name), Operator.ADD]
    assert found == wanted > 0


@pytest.mark.parametrize("topology", HOSTS)
def test_a_gate_costs_what_its_two_layers_cost(topology):
    costs = measure_costs(HOSTS[topology], blueprints_for(topology), tuple(Operator))
    per_place = (8 * 8 + 8) + (8 + 1)
    places = PLACES["tokens"] if topology == "tokens" else 1  # images are pooled first
    extra = costs.seed_compute[0, :, Operator.GATE] - costs.seed_compute[0, :, Operator.ADD]
    assert set(extra.tolist()) == {per_place * places}
