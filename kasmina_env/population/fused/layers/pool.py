"""Pools over squares of a picture, and the mean of all of it."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from kasmina_env.population.fused.kernels import Kernel, kernel, unpack
from kasmina_env.population.fused.tracer import Tracer, lowers, require, run_length
from kasmina_env.population.fused.vectors import WIDTH, fill, load, store, where_beats, where_equal


@kernel
def max_forward(memory: Any, numbers: Any, reals: Any) -> None:
    """The largest of each square, NaN if there is one, and which it is: the first where several are."""
    x, out, which, channels, lanes, side, step, height, width, out_height, out_width = unpack(numbers, 11)
    for channel in range(channels):
        for row in range(out_height):
            last_row = min(height, row * step + side)
            for column in range(out_width):
                last = min(width, column * step + side)
                target = ((channel * out_height + row) * out_width + column) * lanes
                for j in range(0, lanes, WIDTH):
                    best, place = fill(-math.inf), fill(0.0)
                    for r in range(row * step, last_row):
                        for c in range(column * step, last):
                            v = load(memory, x + ((channel * height + r) * width + c) * lanes + j)
                            place = where_beats(v, best, fill(float(r * width + c)), place)
                            best = where_beats(v, best, v, best)
                    store(memory, out + target + j, best)
                    store(memory, which + target + j, place)


@kernel
def max_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """Add the gradient of each square to where its largest was."""
    dx, g, which, channels, lanes, side, step, height, width, out_height, out_width, adds = unpack(numbers, 12)
    for channel in range(channels):
        for row in range(out_height):
            last_row = min(height, row * step + side)
            for column in range(out_width):
                last = min(width, column * step + side)
                source = ((channel * out_height + row) * out_width + column) * lanes
                for j in range(0, lanes, WIDTH):
                    v, place = load(memory, g + source + j), load(memory, which + source + j)
                    for r in range(row * step, last_row):
                        for c in range(column * step, last):
                            p = dx + ((channel * height + r) * width + c) * lanes + j
                            found = where_equal(place, fill(float(r * width + c)), v, fill(0.0))
                            store(memory, p, found + load(memory, p) if adds else found)


@kernel
def mean_forward(memory: Any, numbers: Any, reals: Any) -> None:
    """The mean of each square, of those pixels that lie in the picture."""
    x, out, _, channels, lanes, side, step, height, width, out_height, out_width = unpack(numbers, 11)
    for channel in range(channels):
        for row in range(out_height):
            last_row = min(height, row * step + side)
            for column in range(out_width):
                last = min(width, column * step + side)
                share = 1.0 / ((last_row - row * step) * (last - column * step))
                target = ((channel * out_height + row) * out_width + column) * lanes
                for j in range(0, lanes, WIDTH):
                    a = fill(0.0)
                    for r in range(row * step, last_row):
                        for c in range(column * step, last):
                            a += load(memory, x + ((channel * height + r) * width + c) * lanes + j)
                    store(memory, out + target + j, a * share)


@kernel
def mean_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """Spread the gradient of each square over its pixels."""
    dx, g, _, channels, lanes, side, step, height, width, out_height, out_width, adds = unpack(numbers, 12)
    for channel in range(channels):
        for row in range(out_height):
            last_row = min(height, row * step + side)
            for column in range(out_width):
                last = min(width, column * step + side)
                share = 1.0 / ((last_row - row * step) * (last - column * step))
                source = ((channel * out_height + row) * out_width + column) * lanes
                for j in range(0, lanes, WIDTH):
                    v = load(memory, g + source + j) * share
                    for r in range(row * step, last_row):
                        for c in range(column * step, last):
                            p = dx + ((channel * height + r) * width + c) * lanes + j
                            store(memory, p, v + load(memory, p) if adds else v)


def _pool(
    tracer: Tracer,
    x: Tensor,
    forward: Kernel,
    backward: Kernel,
    side: int,
    step: int,
    shape: tuple[int, ...],
) -> Tensor:
    lanes, (channels, height, width) = tracer.lanes, x.shape[1:]
    require(run_length(x, 1) == height * width * lanes, "features in this order have no kernel")
    out = tracer.make(shape)
    which = tracer.scratch(out.numel()) if forward is max_forward else 0
    sizes = (channels, lanes, side, step, height, width, *(shape[-2:] if len(shape) == 3 else (1, 1)))
    tracer.emit(forward, tracer.place(x), tracer.place(out), which, *sizes)
    covers = step == side and sizes[-2] * step >= height and sizes[-1] * step >= width

    def emit() -> None:
        if tracer.wants_gradient(x):
            dx, adds = tracer.add_gradient(x, is_sum=not covers)
            tracer.emit_backward(backward, dx, tracer.gradient(out), which, *sizes, adds)

    return tracer.on_backward(out, emit)


def _pooled(x: Tensor, side: int, step: int, ceil: bool) -> tuple[int, ...]:
    """Shape behind a pool; a last square that would begin outside is left out."""
    sizes = []
    for size in x.shape[2:]:
        number = (math.ceil if ceil else math.floor)((size - side) / step) + 1
        sizes.append(number - 1 if ceil and (number - 1) * step >= size else number)
    return (x.shape[1], *sizes)


@lowers("max_pool2d")
def max_pool2d(
    tracer: Tracer,
    x: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """Largest of each square."""
    require(padding == 0 and dilation == 1 and isinstance(kernel_size, int), "this kind of pool has no kernel")
    step = stride or kernel_size
    shape = _pooled(x, kernel_size, step, ceil_mode)
    return _pool(tracer, x, max_forward, max_backward, kernel_size, step, shape)


@lowers("avg_pool2d")
def avg_pool2d(
    tracer: Tracer,
    x: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each square."""
    is_plain = padding == 0 and divisor_override is None and isinstance(kernel_size, int)
    require(is_plain, "this kind of pool has no kernel")
    step = stride or kernel_size
    shape = _pooled(x, kernel_size, step, ceil_mode)
    return _pool(tracer, x, mean_forward, mean_backward, kernel_size, step, shape)


@lowers("adaptive_avg_pool2d")
def adaptive_avg_pool2d(tracer: Tracer, x: Tensor, output_size: Any) -> Tensor:
    """Mean of the picture."""
    require(output_size in (1, (1, 1)), "an adaptive pool to more than one pixel has no kernel")
    return mean(tracer, x, (2, 3), keepdim=True)


@lowers("mean")
def mean(tracer: Tracer, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Mean over the pixels of a picture."""
    is_picture = x.ndim == 4 and isinstance(dim, (tuple, list)) and {d % 4 for d in dim} == {2, 3}
    require(is_picture, "a mean over other axes than a picture's has no kernel")
    side = max(x.shape[2:])
    shape = (x.shape[1], 1, 1) if keepdim else (x.shape[1],)
    return _pool(tracer, x, mean_forward, mean_backward, side, side, shape)
