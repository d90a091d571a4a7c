"""Parameters and compute of hosts and seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import Module

from kasmina_env.lifecycle.arrays import FloatArray
from kasmina_env.lifecycle.state import LifecycleState, Stage
from kasmina_env.networks.blend import Gate
from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.hosts import Host, execution_order, make_network
from kasmina_env.settings.config import Operator


@dataclass(frozen=True, eq=False)
class Costs:
    """Parameters and compute of a host and of every seed of the menu. S slots, K blueprints, P operators.

    Compute is the number of times that parameters are applied to one sample. A weight of a convolution or a linear map
    counts once at each position of the output, which is one multiply-accumulate; a bias, and the weight and the bias
    of a norm, count once at each position too.

    What applies no parameters is free: looking up an embedding, normalising, activations, pooling, blending, and the
    two products of attention between tokens. Of T tokens with C channels those would be 2 T² C multiply-accumulates
    beside the 4 T C² of its linear maps, so attention is cheaper here than a counter of all products says: in
    Kasmina/Text-v0, where T = C = 16, it costs 0.18 of its host and not 0.27.
    """

    host_parameters: float
    host_compute: float
    seed_parameters: FloatArray  # [S, K, P]
    seed_compute: FloatArray  # [S, K, P]

    def of_seeds(self, table: FloatArray, lifecycle: LifecycleState) -> FloatArray:
        """Look a table up for the seed in every slot, 0 where there is none: ``[N, S]``."""
        slots = np.arange(table.shape[0])
        found = table[slots, lifecycle.blueprint, lifecycle.operator]
        return np.where(lifecycle.has_seed, found, 0.0)

    def fossil_growth(self, lifecycle: LifecycleState) -> FloatArray:
        """Parameters of fossilized seeds over those of the host, ``[N]``."""
        parameters = self.of_seeds(self.seed_parameters, lifecycle)
        is_fossil = lifecycle.stage == Stage.FOSSILIZED
        return np.asarray((parameters * is_fossil).sum(axis=1) / self.host_parameters)

    def param_growth(self, lifecycle: LifecycleState) -> FloatArray:
        """Parameters of all seeds over those of the host, ``[N]``."""
        return np.asarray(self.of_seeds(self.seed_parameters, lifecycle).sum(axis=1) / self.host_parameters)

    def compute_growth(self, lifecycle: LifecycleState) -> FloatArray:
        """Compute of all seeds (TRAINING and FOSSILIZED included: they run) over that of the host, ``[N]``."""
        return np.asarray(self.of_seeds(self.seed_compute, lifecycle).sum(axis=1) / self.host_compute)


def measure_costs(host: Host, blueprints: Sequence[str], operators: Sequence[Operator]) -> Costs:
    """Count parameters and compute of the ordinary modules by running them on one sample.

    Args:
        host: Specification of the host.
        blueprints: Menu, K names.
        operators: All operators, in the order of their codes.
    """
    dtype = torch.int64 if host.topology == "tokens" else None
    inputs = torch.zeros(1, *host.input_shape, dtype=dtype, device="cpu")
    passed: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        passed.append(x)
        return x

    of_host = _measure(partial(make_network, host, nn), inputs, [keep] * len(host.slots))
    features = dict(zip(execution_order(host.slots), passed, strict=True))
    of_seeds = np.zeros((2, len(host.slots), len(blueprints), len(operators)))
    is_gated = np.array([operator is Operator.GATE for operator in operators])
    for slot, spec in enumerate(host.slots):
        gate = _measure(partial(Gate, nn, host.topology, spec.channels), features[slot])
        for k, name in enumerate(blueprints):
            build = partial(BLUEPRINTS.get(name).builder(host.topology).build, nn, spec.channels)
            change = _measure(build, features[slot])
            of_seeds[:, slot, k] = change[:, None] + gate[:, None] * is_gated
    return Costs(*of_host, *of_seeds)


def _measure(build: Callable[[], Module], *inputs: object) -> FloatArray:
    """Parameters and compute of a module. Its weights are whatever lies in memory: nothing is drawn."""
    with torch.device("meta"):
        module = build()
    num_parameters = sum(p.numel() for p in module.parameters())  # before `to_empty`, which unties those that are tied
    compute = 0

    def count(layer: Module, _: object, output: torch.Tensor) -> None:
        nonlocal compute
        weights = sum(p.numel() for p in layer.parameters(recurse=False))
        positions = math.prod(output.shape[2:]) if output.ndim == 4 else math.prod(output.shape[:-1])
        compute += weights * positions

    for layer in module.to_empty(device="cpu").eval().modules():
        if not list(layer.children()) and not isinstance(layer, nn.Embedding):
            layer.register_forward_hook(count)
    with torch.no_grad():
        module(*inputs)
    return np.array([num_parameters, compute], dtype=np.float64)
