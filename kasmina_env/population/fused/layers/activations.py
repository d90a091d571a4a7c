"""Functions of single numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kasmina_env.population.fused.kernels import Kernel, kernel, unpack
from kasmina_env.population.fused.tracer import META, Tracer, dense, lowers, require
from kasmina_env.population.fused.vectors import WIDTH, clamp, erf, exp, fill, load, sigmoid, store, tanh, where_less

ROOT_HALF, ROOT_TWO_PI = math.sqrt(0.5), math.sqrt(2 * math.pi)


@kernel
def relu_forward(memory: Any, numbers: Any, reals: Any) -> None:
    """Positive part; NaN stays NaN."""
    x, out, size = unpack(numbers, 3)
    for i in range(0, size, WIDTH):
        v = load(memory, x + i)
        store(memory, out + i, where_less(v, fill(0.0), fill(0.0), v))


@kernel
def relu_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """Where the output is positive."""
    out, g, dx, adds, size = unpack(numbers, 5)
    for i in range(0, size, WIDTH):
        found = where_less(fill(0.0), load(memory, out + i), load(memory, g + i), fill(0.0))
        if adds:
            found = found + load(memory, dx + i)
        store(memory, dx + i, found)


@kernel
def tanh_forward(memory: Any, numbers: Any, reals: Any) -> None:
    """Hyperbolic tangent."""
    x, out, size = unpack(numbers, 3)
    for i in range(0, size, WIDTH):
        store(memory, out + i, tanh(load(memory, x + i)))


@kernel
def tanh_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """``g * (1 - out**2)``."""
    out, g, dx, adds, size = unpack(numbers, 5)
    for i in range(0, size, WIDTH):
        y = load(memory, out + i)
        found = load(memory, g + i) * (fill(1.0) - y * y)
        if adds:
            found = found + load(memory, dx + i)
        store(memory, dx + i, found)


@kernel
def sigmoid_forward(memory: Any, numbers: Any, reals: Any) -> None:
    """``1 / (1 + exp(-x))``."""
    x, out, size = unpack(numbers, 3)
    for i in range(0, size, WIDTH):
        store(memory, out + i, sigmoid(load(memory, x + i)))


@kernel
def sigmoid_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """``g * out * (1 - out)``."""
    out, g, dx, adds, size = unpack(numbers, 5)
    for i in range(0, size, WIDTH):
        y = load(memory, out + i)
        found = load(memory, g + i) * y * (fill(1.0) - y)
        if adds:
            found = found + load(memory, dx + i)
        store(memory, dx + i, found)


@kernel
def gelu_forward(memory: Any, numbers: Any, reals: Any) -> None:
    """``x * P(normal < x)``."""
    x, out, size = unpack(numbers, 3)
    for i in range(0, size, WIDTH):
        v = load(memory, x + i)
        store(memory, out + i, v * 0.5 * (erf(v * ROOT_HALF) + 1.0))


@kernel
def gelu_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """Its first place is that of the input."""
    x, g, dx, adds, size = unpack(numbers, 5)
    for i in range(0, size, WIDTH):
        v = load(memory, x + i)
        density = exp(clamp(v * v * -0.5, -87.0, 0.0)) * (1.0 / ROOT_TWO_PI)
        found = load(memory, g + i) * ((erf(v * ROOT_HALF) + 1.0) * 0.5 + v * density)
        if adds:
            found = found + load(memory, dx + i)
        store(memory, dx + i, found)


def apply(tracer: Tracer, x: Tensor, forward: Kernel, backward: Kernel, of_input: bool = False) -> Tensor:
    """Record a function whose backward knows its output or, if `of_input`, its input."""
    at, size = dense(tracer, x, forward.name), tracer.buffer(x).size
    place = tracer.space.take(size)
    out = torch.empty_strided(x.shape, x.stride(), device=META)
    tracer.put(out, place, wants_gradient=True)
    tracer.emit(forward, at, place, size)

    def emit() -> None:
        if tracer.wants_gradient(x):
            known = at if of_input else place
            tracer.emit_backward(backward, known, tracer.gradient(out), *tracer.add_gradient(x), size)

    return tracer.on_backward(out, emit)


@lowers("relu")
def relu(tracer: Tracer, x: Tensor, inplace: bool = False) -> Tensor:
    """Positive part; NaN stays NaN."""
    return apply(tracer, x, relu_forward, relu_backward)


@lowers("tanh")
def lower_tanh(tracer: Tracer, x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return apply(tracer, x, tanh_forward, tanh_backward)


@lowers("sigmoid")
def lower_sigmoid(tracer: Tracer, x: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return apply(tracer, x, sigmoid_forward, sigmoid_backward)


@lowers("gelu")
def gelu(tracer: Tracer, x: Tensor, approximate: str = "none") -> Tensor:
    """``x * P(normal < x)``."""
    require(approximate == "none", "an approximate GELU has no kernel")
    return apply(tracer, x, gelu_forward, gelu_backward, of_input=True)
