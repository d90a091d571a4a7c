"""How a seed's change enters the network, ADD, MULTIPLY and GATE, behind the straight-through estimator too.

One pass each, where `kasmina_env.networks.blend` takes up to seven.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kasmina_env.population.fused.kernels import Kernel, kernel, unpack
from kasmina_env.population.fused.tracer import Tracer, require
from kasmina_env.population.fused.vectors import WIDTH, fill, load, store, tanh
from kasmina_env.settings.config import Operator


@kernel
def add_forward(memory: Any, numbers: Any, reals: Any) -> None:
    """``h + alpha * change``."""
    h, change, out, at, size = unpack(numbers, 5)
    alpha = memory[at]
    for i in range(0, size, WIDTH):
        store(memory, out + i, load(memory, h + i) + load(memory, change + i) * alpha)


@kernel
def add_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """The gradient of the output is that of h already, here as in the other operators but for what they add."""
    _, _, g, at, size, d_change = unpack(numbers, 6)
    alpha = memory[at] if at >= 0 else 1.0
    for i in range(0, size, WIDTH):
        store(memory, d_change + i, load(memory, g + i) * alpha)


@kernel
def multiply_forward(memory: Any, numbers: Any, reals: Any) -> None:
    """``h * (1 + alpha * tanh(change))``."""
    h, change, out, at, size = unpack(numbers, 5)
    alpha = memory[at]
    for i in range(0, size, WIDTH):
        v = load(memory, h + i)
        store(memory, out + i, v + v * tanh(load(memory, change + i)) * alpha)


@kernel
def multiply_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """In TRAINING, where there is no alpha, the gradient of h is what it is without the seed."""
    h, change, g, at, size, d_change = unpack(numbers, 6)
    alpha = memory[at] if at >= 0 else 1.0
    for i in range(0, size, WIDTH):
        t, v = tanh(load(memory, change + i)), load(memory, g + i)
        store(memory, d_change + i, v * load(memory, h + i) * (fill(1.0) - t * t) * alpha)
        if at >= 0:
            store(memory, g + i, v + v * t * alpha)


@kernel
def gate_forward(memory: Any, numbers: Any, reals: Any) -> None:
    """``h + alpha * gate * change``; the gate repeats every `run` numbers."""
    h, change, out, at, size, gate, run = unpack(numbers, 7)
    alpha = memory[at]
    for j in range(0, run, WIDTH):
        factor = load(memory, gate + j) * alpha
        for i in range(j, size, run):
            store(memory, out + i, load(memory, h + i) + load(memory, change + i) * factor)


@kernel
def gate_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """Gradients of change and gate."""
    _, change, g, at, size, d_change, gate, run, d_gate = unpack(numbers, 9)
    alpha = memory[at] if at >= 0 else 1.0
    for j in range(0, run, WIDTH):
        factor, found = load(memory, gate + j) * alpha, fill(0.0)
        for i in range(j, size, run):
            v = load(memory, g + i)
            found += v * load(memory, change + i)
            store(memory, d_change + i, v * factor)
        store(memory, d_gate + j, found * alpha)


KERNELS: dict[Operator, tuple[Kernel, Kernel]] = {
    Operator.ADD: (add_forward, add_backward),
    Operator.MULTIPLY: (multiply_forward, multiply_backward),
    Operator.GATE: (gate_forward, gate_backward),
}


def trace_blend(
    tracer: Tracer, operator: Operator, h: Tensor, change: Tensor, gate: Tensor | None, out: int, alpha: int
) -> None:
    """Put a seed's change into features; the gradient of the output, where that of h is, becomes that of h.

    Args:
        operator: Blend operator of the seed.
        h: Features; their gradient is known.
        change: Proposed by the seed.
        gate: Gate of the seed, under GATE.
        out: Place of the output, as large as h.
        alpha: Place of the amplitude; -1 for a seed in TRAINING, which changes nothing and learns as if it were 1.
    """
    require(change.shape == h.shape and change.stride() == h.stride(), "a seed that reorders features has no kernel")
    require(tracer.buffer(change) is not tracer.buffer(h), "a seed that returns its input has no kernel")
    forward, backward = KERNELS[operator]
    of_gate: tuple[int, ...] = ()
    size = tracer.buffer(h).size
    places = tracer.place(h), tracer.place(change)
    if gate is not None:
        of_gate = (tracer.place(gate), tracer.buffer(gate).size)
    if alpha >= 0:
        tracer.emit(forward, *places, out, alpha, size, *of_gate)
    d_change, _ = tracer.add_gradient(change)
    if gate is not None:
        of_gate = (*of_gate, tracer.add_gradient_of_whole(gate))
    tracer.emit_backward(backward, *places, tracer.gradient(h), alpha, size, d_change, *of_gate)
