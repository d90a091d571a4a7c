"""Clipping and the optimisers, on the flat numbers of a host, a seed or a gate."""

from __future__ import annotations

import math
from typing import Any

from kasmina_env.population.fused.kernels import Kernel, kernel, unpack
from kasmina_env.population.fused.vectors import WIDTH, fill, load, root, store, total, where_less


@kernel
def mask(memory: Any, numbers: Any, reals: Any) -> None:
    """Set gradients to 0 where a weight is absent."""
    gradient, present, size = unpack(numbers, 3)
    for i in range(0, size, WIDTH):
        found = where_less(fill(0.0), load(memory, present + i), load(memory, gradient + i), fill(0.0))
        store(memory, gradient + i, found)


@kernel
def sum_squares(memory: Any, numbers: Any, reals: Any) -> None:
    """Add the squares of a parameter's gradient to its own sum, and to that of the minibatch."""
    gradient, size, own, norm = unpack(numbers, 4)
    whole = size - size % WIDTH
    a = fill(0.0)
    for i in range(gradient, gradient + whole, WIDTH):
        v = load(memory, i)
        a += v * v
    found = total(a)
    for i in range(gradient + whole, gradient + size):
        found += memory[i] * memory[i]
    memory[own] += found
    memory[norm] += found


@kernel
def adam(memory: Any, numbers: Any, reals: Any) -> None:
    """Clip, update and set the gradient to 0 for the next minibatch (Kingma & Ba 2015)."""
    weights, gradient, mean, square, size, norm, rate, steps = unpack(numbers, 8)
    beta, beta2, eps, clip = reals[0], reals[1], reals[2], reals[3]
    factor = clip / (math.sqrt(memory[norm]) + 1e-6) if clip > 0 else 1.0
    if factor > 1:  # not where it is NaN
        factor = 1.0
    memory[norm] = 0.0
    memory[steps] += 1.0
    step = memory[rate] / (1.0 - beta ** memory[steps])
    scale = 1.0 / math.sqrt(1.0 - beta2 ** memory[steps])
    for i in range(0, size, WIDTH):
        g = load(memory, gradient + i) * factor
        m = load(memory, mean + i)
        m = m + (g - m) * (1.0 - beta)
        v = load(memory, square + i) * beta2 + g * g * (1.0 - beta2)
        store(memory, mean + i, m)
        store(memory, square + i, v)
        store(memory, weights + i, load(memory, weights + i) - m * step / (root(v) * scale + eps))
        store(memory, gradient + i, fill(0.0))


@kernel
def sgd(memory: Any, numbers: Any, reals: Any) -> None:
    """The same with heavy-ball momentum."""
    weights, gradient, mean, _, size, norm, rate, steps = unpack(numbers, 8)
    momentum, clip = reals[0], reals[3]
    factor = clip / (math.sqrt(memory[norm]) + 1e-6) if clip > 0 else 1.0
    if factor > 1:  # not where it is NaN
        factor = 1.0
    memory[norm] = 0.0
    memory[steps] += 1.0
    for i in range(0, size, WIDTH):
        m = load(memory, mean + i) * momentum + load(memory, gradient + i) * factor
        store(memory, mean + i, m)
        store(memory, weights + i, load(memory, weights + i) - m * memory[rate])
        store(memory, gradient + i, fill(0.0))


UPDATES: dict[str, Kernel] = {"adam": adam, "sgd": sgd}
