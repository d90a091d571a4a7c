"""Kernels alone, and layers that no host or blueprint uses yet."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from kasmina_env.networks.hosts import Slot
from kasmina_env.population import Population
from kasmina_env.population.fused import driver, warm_up
from kasmina_env.population.fused.kernels import KERNELS, Operation
from kasmina_env.population.fused.layers import activations
from kasmina_env.population.fused.layout import OperationTable
from tests.contract import BARE_SGD
from tests.population.fused.pairs import EQUAL, assert_equal_states, batches


def run(kernel, x: torch.Tensor) -> torch.Tensor:
    """A function of single numbers by its kernel."""
    table, memory = OperationTable(), np.concatenate([x.numpy(), np.zeros_like(x.numpy())])
    stretch = table.add([Operation(kernel, (0, len(x), len(x)))])
    driver.run(memory.ctypes.data, table.numbers, table.reals, np.array([stretch]), 0, 1)
    return torch.from_numpy(memory[len(x) :])


SPECIAL = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 80.0, -80.0, 1e30, -1e30, torch.nan])
NUMBERS = torch.cat([torch.linspace(-12, 12, 4096), SPECIAL, torch.zeros(-len(SPECIAL) % 16)])
FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": nn.functional.gelu}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_that_of_torch_for_every_number(name):
    found = run(getattr(activations, f"{name}_forward"), NUMBERS)
    torch.testing.assert_close(found, FUNCTIONS[name](NUMBERS), rtol=1e-5, atol=1e-6, equal_nan=True)


class Mixed(nn.Module):
    """Grouped and wide convolutions, pools that overlap, sums and products of features."""

    def __init__(self, layers) -> None:
        super().__init__()
        self.grouped = layers.Conv2d(6, 12, 3, padding=1, groups=3)
        self.wide = layers.Conv2d(6, 12, 3, padding=2)
        self.pool, self.average = layers.MaxPool2d(3, 2), layers.AvgPool2d(2, ceil_mode=True)

    def forward(self, x):
        left, right = torch.tanh(self.grouped(x)), torch.sigmoid(self.average(self.wide(x)))
        return self.pool(left) * right[..., :3, :3] - 0.5 * self.pool(left) + 1.0


@dataclass(frozen=True)
class OddHost:
    topology = "image"
    slots = (Slot("only", 12),)
    num_classes = 4
    input_shape = (6, 7, 7)

    def build(self, layers):
        return [Mixed(layers), nn.Sequential(layers.AdaptiveAvgPool2d(1), layers.Flatten(), layers.Linear(12, 4))]


def test_layers_that_no_host_uses_are_those_of_torch():
    pair = [Population(OddHost(), range(2), BARE_SGD, engine=name) for name in ("torch", "fused")]
    x, y = batches(OddHost(), 2, num_batches=1)
    losses = [population.train(x, y, np.zeros((2, 1)))[0] for population in pair]
    torch.testing.assert_close(*losses, **EQUAL)
    assert_equal_states(*pair)


def test_warming_up_again_compiles_nothing():
    lines = []
    warm_up()
    warm_up(lines.append)
    assert not lines
    assert all(kernel.compile() for kernel in KERNELS)


@pytest.mark.slow
def test_compilation_is_announced_where_the_cache_is_empty(tmp_path):
    command = [sys.executable, "-c", "from kasmina_env.population.fused import warm_up; warm_up()"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    assert "compiling the fused engine, once on this machine: 8 of" in done[0].stderr
    assert done[1].stderr == ""
