"""Sums and products of tensors that may be broadcast: each operand has a step for each axis, 0 where it repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kasmina_env.population.fused.kernels import kernel, unpack
from kasmina_env.population.fused.tracer import Tracer, clear, lowers, require
from kasmina_env.population.fused.vectors import WIDTH, fill, load, store, total


class Grid(NamedTuple):
    """Two axes around a run of numbers, and how far each operand moves along the three (along the run: 0 or 1)."""

    sizes: tuple[int, int, int]
    steps: tuple[tuple[int, int, int], ...]


def make_grid(*operands: Tensor) -> Grid:
    """The axes that equally shaped operands have in common, merged where they can be."""
    first = operands[0]
    axes = [(first.shape[i], [t.stride(i) for t in operands]) for i in range(1, first.ndim) if first.shape[i] > 1]
    axes.sort(key=lambda axis: max(axis[1]))
    merged = [(first.shape[0], [t.stride(0) for t in operands])]
    for size, steps in axes:
        inner_size, inner = merged[-1]
        if all(step == inner_size * below for step, below in zip(steps, inner, strict=True)):
            merged[-1] = inner_size * size, inner
        else:
            merged.append((size, steps))
    while len(merged) < 3:
        merged.append((1, [0] * len(operands)))
    is_known = len(merged) == 3 and all(step in (0, 1) for step in merged[0][1])
    require(is_known, "tensors broadcast in this way have no kernel")
    sizes, moves = zip(*reversed(merged), strict=True)
    return Grid(sizes, tuple(zip(*moves, strict=True)))


@kernel
def combine(memory: Any, numbers: Any, reals: Any) -> None:
    """``out = a * b`` or ``out = a + real * b``."""
    found = unpack(numbers, 16)
    a, b, out, is_product, outer, inner, run = found[:7]
    a_outer, a_inner, a_moves, b_outer, b_inner, b_moves, out_outer, out_inner, _ = found[7:]
    for i in range(outer):
        for k in range(inner):
            p, q, y = a + i * a_outer + k * a_inner, b + i * b_outer + k * b_inner, out + i * out_outer + k * out_inner
            for j in range(0, run, WIDTH):
                u = load(memory, p + j) if a_moves else fill(memory[p])
                v = load(memory, q + j) if b_moves else fill(memory[q])
                store(memory, y + j, u * v if is_product else u + v * reals[0])


@kernel
def spread_back(memory: Any, numbers: Any, reals: Any) -> None:
    """Add ``real * g``, times `other` unless that is -1, to a gradient, which sums where its operand was repeated."""
    found = unpack(numbers, 15)
    g, other, out, outer, inner, run = found[:6]
    g_outer, g_inner, _, b_outer, b_inner, b_moves, out_outer, out_inner, out_moves = found[6:]
    for i in range(outer):
        for k in range(inner):
            p, q = g + i * g_outer + k * g_inner, other + i * b_outer + k * b_inner
            y = out + i * out_outer + k * out_inner
            sum_over_run = fill(0.0)
            for j in range(0, run, WIDTH):
                v = load(memory, p + j) * reals[0]
                if other >= 0:
                    v = v * (load(memory, q + j) if b_moves else fill(memory[q]))
                if out_moves:
                    store(memory, y + j, load(memory, y + j) + v)
                else:
                    sum_over_run += v
            if not out_moves:
                memory[y] += total(sum_over_run)


def _write(tracer: Tracer, a: Tensor, b: Tensor, out: Tensor, is_product: bool, sign: float = 1.0) -> None:
    grid = make_grid(a.expand(out.shape), b.expand(out.shape), out)
    steps = [step for of_one in grid.steps for step in of_one]
    places = tracer.place(a), tracer.place(b), tracer.place(out)
    tracer.emit(combine, *places, int(is_product), *grid.sizes, *steps, reals=(sign,))


def _give_back(tracer: Tracer, out: Tensor, mine: Tensor, other: Tensor | None, factor: float = 1.0) -> None:
    """Add the gradient of `out`, times `factor` and the other operand of a product, to that of an operand."""
    dx, _ = tracer.add_gradient(mine, is_sum=True)
    grid = make_grid(out, out if other is None else other.expand(out.shape), mine.expand(out.shape))
    steps = [step for of_one in grid.steps for step in of_one]
    places = tracer.gradient(out), -1 if other is None else tracer.place(other), dx
    tracer.emit_backward(spread_back, *places, *grid.sizes, *steps, reals=(factor,))


def _combine(tracer: Tracer, left: Any, right: Any, is_product: bool, sign: float = 1.0) -> Tensor:
    a, b = tracer.as_operand(left), tracer.as_operand(right)
    shape = torch.broadcast_shapes(a.shape, b.shape)
    require(shape[0] == tracer.lanes, "a sum or product of numbers without samples has no kernel")
    wide = max((a, b), key=lambda t: sum(t.expand(shape).stride(i) > 0 for i in range(len(shape))))
    order = sorted(range(1, len(shape)), key=lambda i: wide.expand(shape).stride()[i], reverse=True)
    out = tracer.make(shape[1:], order=[i - 1 for i in order])
    _write(tracer, a, b, out, is_product, sign)

    def emit() -> None:
        for mine, other, factor in ((a, b, 1.0), (b, a, sign)):
            if tracer.wants_gradient(mine):
                _give_back(tracer, out, mine, other if is_product else None, factor)

    return tracer.on_backward(out, emit)


@lowers("add", "__add__", "__radd__")
def add(tracer: Tracer, left: Any, right: Any) -> Tensor:
    """Sum."""
    return _combine(tracer, left, right, is_product=False)


@lowers("sub", "__sub__")
def subtract(tracer: Tracer, left: Any, right: Any) -> Tensor:
    """Difference."""
    return _combine(tracer, left, right, is_product=False, sign=-1.0)


@lowers("mul", "__mul__", "__rmul__")
def multiply(tracer: Tracer, left: Any, right: Any) -> Tensor:
    """Product."""
    return _combine(tracer, left, right, is_product=True)


@lowers("pad")
def pad(tracer: Tracer, x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Zeros around features."""
    require(mode == "constant" and not value, "padding with anything but zeros has no kernel")
    pairs = [(0, 0)] * x.ndim
    pairs[x.ndim - len(pad) // 2 :] = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    require(pairs[0] == (0, 0) and min(pad) >= 0, "padding of this kind has no kernel")
    order = sorted(range(1, x.ndim), key=lambda i: x.stride()[i], reverse=True)
    shape = [size + sum(pair) for size, pair in zip(x.shape, pairs, strict=True)]
    out = tracer.make(shape[1:], order=[i - 1 for i in order])
    inside = out
    for axis, (before, _) in enumerate(pairs):
        inside = inside.narrow(axis, before, x.shape[axis])
    tracer.emit(clear, tracer.place(out), tracer.buffer(out).size)
    _write(tracer, x, tracer.as_operand(0.0), inside, is_product=False)

    def emit() -> None:
        if tracer.wants_gradient(x):
            _give_back(tracer, inside, x, None)

    return tracer.on_backward(out, emit)
