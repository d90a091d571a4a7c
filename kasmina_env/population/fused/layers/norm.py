"""Group and layer normalisation, sample by sample.

A layer norm is a group norm with one group in which each position counts as a sample of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kasmina_env.population.fused.kernels import kernel, unpack
from kasmina_env.population.fused.tracer import Tracer, UnsupportedError, dense, lowers, require, run_length
from kasmina_env.population.fused.vectors import WIDTH, fill, load, root, store, total


@kernel
def normalise(memory: Any, numbers: Any, reals: Any) -> None:
    """``(x - mean) / deviation * weight + bias``; mean and 1 / deviation are kept for the backward."""
    x, out, weight, bias, mean, scale, groups, channels, positions, lanes = unpack(numbers, 10)
    eps = reals[0]
    size = channels * positions
    fours = size - size % 4
    for group in range(groups):
        for j in range(0, lanes, WIDTH):
            start = x + group * size * lanes + j
            a, b, c, d = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
            for i in range(0, fours, 4):
                p = start + i * lanes
                a += load(memory, p)
                b += load(memory, p + lanes)
                c += load(memory, p + 2 * lanes)
                d += load(memory, p + 3 * lanes)
            for i in range(fours, size):
                a += load(memory, start + i * lanes)
            m = (a + b + c + d) * (1.0 / size)
            a, b, c, d = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
            for i in range(0, fours, 4):
                p = start + i * lanes
                u, v = load(memory, p) - m, load(memory, p + lanes) - m
                a += u * u
                b += v * v
                u, v = load(memory, p + 2 * lanes) - m, load(memory, p + 3 * lanes) - m
                c += u * u
                d += v * v
            for i in range(fours, size):
                u = load(memory, start + i * lanes) - m
                a += u * u
            s = fill(1.0) / root((a + b + c + d) * (1.0 / size) + eps)
            store(memory, mean + group * lanes + j, m)
            store(memory, scale + group * lanes + j, s)
            for channel in range(channels):
                number = group * channels + channel
                factor = s * memory[weight + number]
                shift = fill(memory[bias + number]) - m * factor
                for i in range(number * positions, (number + 1) * positions):
                    store(memory, out + i * lanes + j, load(memory, x + i * lanes + j) * factor + shift)


@kernel
def normalise_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """Gradients of weight, bias and, where `dx` is not -1, x."""
    x, g, weight, d_weight, d_bias, mean, scale, dx, adds, groups, channels, positions, lanes = unpack(numbers, 13)
    for group in range(groups):
        for j in range(0, lanes, WIDTH):
            m, s = load(memory, mean + group * lanes + j), load(memory, scale + group * lanes + j)
            sum_g, sum_gx = fill(0.0), fill(0.0)
            for channel in range(channels):
                number = group * channels + channel
                a, b, c, d = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
                start, end = number * positions, (number + 1) * positions
                for i in range(start, end - 1, 2):
                    u, v = load(memory, g + i * lanes + j), load(memory, g + (i + 1) * lanes + j)
                    a += u
                    b += u * (load(memory, x + i * lanes + j) - m)
                    c += v
                    d += v * (load(memory, x + (i + 1) * lanes + j) - m)
                if positions % 2:
                    u = load(memory, g + (end - 1) * lanes + j)
                    a += u
                    b += u * (load(memory, x + (end - 1) * lanes + j) - m)
                a, b = a + c, (b + d) * s
                memory[d_bias + number] += total(a)
                memory[d_weight + number] += total(b)
                sum_g += a * memory[weight + number]
                sum_gx += b * memory[weight + number]
            if dx >= 0:
                # dx = s * (w * g - mean(w * g) - x_hat * mean(w * g * x_hat)), x_hat = (x - m) * s
                share = 1.0 / (channels * positions)
                slope = sum_gx * s * s * share
                level = sum_g * s * share - m * slope
                for channel in range(channels):
                    number = group * channels + channel
                    factor = s * memory[weight + number]
                    for i in range(number * positions, (number + 1) * positions):
                        p = i * lanes + j
                        found = load(memory, g + p) * factor - load(memory, x + p) * slope - level
                        if adds:
                            found = found + load(memory, dx + p)
                        store(memory, dx + p, found)


def _normalise(
    tracer: Tracer,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    shape: tuple[int, int, int, int],
    out: Tensor,
) -> Tensor:
    """Record one; `shape` is groups, channels of a group, positions, lanes."""
    if weight is None or bias is None:
        raise UnsupportedError("a norm without weight and bias has no kernel")
    at, w = dense(tracer, x, "norm"), tracer.place(weight)
    mean, scale = (tracer.scratch(shape[0] * shape[3]) for _ in range(2))
    place = tracer.place(out)
    tracer.emit(normalise, at, place, w, tracer.place(bias), mean, scale, *shape, reals=(eps,))

    def backward() -> None:
        wanted = tracer.wants_gradient(x)
        dx, adds = tracer.add_gradient(x) if wanted else (-1, 0)
        found = (tracer.gradient(weight), tracer.gradient(bias), mean, scale, dx, adds)
        tracer.emit_backward(normalise_backward, at, tracer.gradient(out), w, *found, *shape)

    return tracer.on_backward(out, backward)


@lowers("group_norm")
def group_norm(
    tracer: Tracer,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Over groups of channels, ``[B, C, ...]``."""
    channels, lanes = x.shape[1], tracer.lanes
    shape = (num_groups, channels // num_groups, run_length(x, 1) // lanes, lanes)
    return _normalise(tracer, x, weight, bias, eps, shape, tracer.make(x.shape[1:]))


@lowers("layer_norm")
def layer_norm(
    tracer: Tracer,
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Over the last axis."""
    require(len(normalized_shape) == 1, "a layer norm of several axes has no kernel")
    run, last = run_length(x, x.ndim - 1), x.ndim - 2
    out = tracer.make(x.shape[1:], order=(last, *range(last)))
    return _normalise(tracer, x, weight, bias, eps, (1, x.shape[-1], 1, run), out)
