"""Batch normalisation: with the minibatch in training, with running statistics in evaluation.

Samples that only fill a vector up have no weight in the loss; here they are left out too. In evaluation no sample has a
weight, by which it is known.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from kasmina_env.population.fused.kernels import kernel, unpack
from kasmina_env.population.fused.tracer import Tracer, UnsupportedError, dense, lowers, run_length
from kasmina_env.population.fused.vectors import WIDTH, fill, load, store, total, where_less


@kernel
def batch_normalise(memory: Any, numbers: Any, reals: Any) -> None:
    """``(x - mean) / deviation * weight + bias``; running statistics move towards those of the minibatch."""
    x, out, weight, bias, running_mean, running_var, means, scales, shares, channels, positions, lanes = unpack(
        numbers, 12
    )
    eps, momentum = reals[0], reals[1]
    count = 0
    for j in range(lanes):
        count += positions if memory[shares + j] > 0 else 0
    for channel in range(channels):
        start = x + channel * positions * lanes
        mean, variance = memory[running_mean + channel], memory[running_var + channel]
        if count:
            a = fill(0.0)
            for j in range(0, lanes, WIDTH):
                share = load(memory, shares + j)
                for i in range(start + j, start + positions * lanes, lanes):
                    a += where_less(fill(0.0), share, load(memory, i), fill(0.0))
            mean = total(a) / count
            a = fill(0.0)
            for j in range(0, lanes, WIDTH):
                share = load(memory, shares + j)
                for i in range(start + j, start + positions * lanes, lanes):
                    u = where_less(fill(0.0), share, load(memory, i) - mean, fill(0.0))
                    a += u * u
            variance = total(a) / count
            unbiased = variance * (count / (count - 1.0))
            memory[running_mean + channel] += (mean - memory[running_mean + channel]) * momentum
            memory[running_var + channel] += (unbiased - memory[running_var + channel]) * momentum
        scale = 1.0 / math.sqrt(variance + eps)
        memory[means + channel], memory[scales + channel] = mean, scale
        factor = scale * memory[weight + channel]
        shift = memory[bias + channel] - mean * factor
        for i in range(channel * positions * lanes, (channel + 1) * positions * lanes, WIDTH):
            store(memory, out + i, load(memory, x + i) * factor + fill(shift))


@kernel
def batch_normalise_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """Gradients of weight, bias and, where `dx` is not -1, x."""
    x, g, weight, d_weight, d_bias, dx, adds, means, scales, shares, channels, positions, lanes = unpack(numbers, 13)
    count = 0
    for j in range(lanes):
        count += positions if memory[shares + j] > 0 else 0
    for channel in range(channels):
        start, end = channel * positions * lanes, (channel + 1) * positions * lanes
        mean, scale = memory[means + channel], memory[scales + channel]
        a, b = fill(0.0), fill(0.0)
        for i in range(start, end, WIDTH):
            v = load(memory, g + i)
            a += v
            b += v * (load(memory, x + i) - mean)
        sum_g, sum_gx = total(a), total(b) * scale
        memory[d_bias + channel] += sum_g
        memory[d_weight + channel] += sum_gx
        if dx >= 0:
            factor = scale * memory[weight + channel]
            level, slope = sum_g / count, sum_gx * scale / count
            for j in range(0, lanes, WIDTH):
                share = load(memory, shares + j)
                for i in range(start + j, end, lanes):
                    found = (load(memory, g + i) - level - (load(memory, x + i) - mean) * slope) * factor
                    found = where_less(fill(0.0), share, found, fill(0.0))
                    store(memory, dx + i, found + load(memory, dx + i) if adds else found)


@lowers("batch_norm")
def batch_norm(
    tracer: Tracer,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Over the channels of pictures."""
    if weight is None or bias is None or running_mean is None or running_var is None:
        raise UnsupportedError("a batch norm without weight, bias or running statistics has no kernel")
    at, out, channels = dense(tracer, x, "batch_norm"), tracer.make(x.shape[1:]), x.shape[1]
    shape = (channels, run_length(x, 1) // tracer.lanes, tracer.lanes)
    means, scales, shares = tracer.scratch(channels), tracer.scratch(channels), tracer.weights
    parameters = [tracer.place(t) for t in (weight, bias, running_mean, running_var)]
    places = (at, tracer.place(out), *parameters, means, scales, shares)
    tracer.emit(batch_normalise, *places, *shape, reals=(eps, momentum))

    def emit() -> None:
        dx, adds = tracer.add_gradient(x) if tracer.wants_gradient(x) else (-1, 0)
        found = (tracer.gradient(weight), tracer.gradient(bias), dx, adds, means, scales, shares)
        tracer.emit_backward(batch_normalise_backward, at, tracer.gradient(out), tracer.place(weight), *found, *shape)

    return tracer.on_backward(out, emit)
