"""Convolutions of any odd kernel, padding and number of groups, and linear maps, which are convolutions of one pixel.

``[C, H, W, B]`` with samples innermost: an output is a sum of inputs times single weights. A vector of samples of one
output pixel meets only the taps that lie inside the picture, so there is no padding in memory. Eight outputs share each
input that is loaded, and their sums stay in registers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kasmina_env.population.fused.kernels import kernel, unpack
from kasmina_env.population.fused.tracer import Tracer, lowers, require, run_length
from kasmina_env.population.fused.vectors import WIDTH, fill, inline, load, store, total

# ── eight outputs at a time ─────────────────────────────────────────────────────────────────────


@inline
def _start(memory: Any, out: Any, bias: Any, adds: Any) -> Any:
    """What a sum starts from: what is there, a bias, or nothing."""
    if adds:
        return load(memory, out)
    return fill(memory[bias]) if bias >= 0 else fill(0.0)


@inline
def _start_eight(memory: Any, out: Any, step: Any, bias: Any, adds: Any) -> Any:
    y, n = out + 4 * step, 1 if bias >= 0 else 0
    return (
        _start(memory, out, bias, adds),
        _start(memory, out + step, bias + n, adds),
        _start(memory, out + 2 * step, bias + 2 * n, adds),
        _start(memory, out + 3 * step, bias + 3 * n, adds),
        _start(memory, y, bias + 4 * n, adds),
        _start(memory, y + step, bias + 5 * n, adds),
        _start(memory, y + 2 * step, bias + 6 * n, adds),
        _start(memory, y + 3 * step, bias + 7 * n, adds),
    )


@inline
def _add_products(memory: Any, value: Any, weight: Any, step: Any, sums: Any) -> Any:
    """Add one input times the weights of eight outputs."""
    w = weight + 4 * step
    return (
        sums[0] + value * memory[weight],
        sums[1] + value * memory[weight + step],
        sums[2] + value * memory[weight + 2 * step],
        sums[3] + value * memory[weight + 3 * step],
        sums[4] + value * memory[w],
        sums[5] + value * memory[w + step],
        sums[6] + value * memory[w + 2 * step],
        sums[7] + value * memory[w + 3 * step],
    )


@inline
def _store_eight(memory: Any, out: Any, step: Any, sums: Any) -> None:
    y = out + 4 * step
    store(memory, out, sums[0])
    store(memory, out + step, sums[1])
    store(memory, out + 2 * step, sums[2])
    store(memory, out + 3 * step, sums[3])
    store(memory, y, sums[4])
    store(memory, y + step, sums[5])
    store(memory, y + 2 * step, sums[6])
    store(memory, y + 3 * step, sums[7])


@kernel
def matmul(memory: Any, numbers: Any, reals: Any) -> None:
    """``out[o, j] = bias[o] + sum over i of weight[o, i] * x[i, j]``, weights at any strides."""
    x, weight, bias, out, adds, num_in, num_out, run, by_out, by_in, x_step, step = unpack(numbers, 12)
    whole = num_out - num_out % 8
    for j in range(0, run, WIDTH):
        for o in range(0, whole, 8):
            y, w = out + o * step + j, weight + o * by_out
            sums = _start_eight(memory, y, step, bias + o if bias >= 0 else -1, adds)
            for i in range(num_in):
                sums = _add_products(memory, load(memory, x + i * x_step + j), w + i * by_in, by_out, sums)
            _store_eight(memory, y, step, sums)
        for o in range(whole, num_out):
            y, w = out + o * step + j, weight + o * by_out
            a = _start(memory, y, bias + o if bias >= 0 else -1, adds)
            for i in range(num_in):
                a += load(memory, x + i * x_step + j) * memory[w + i * by_in]
            store(memory, y, a)


@kernel
def convolve(memory: Any, numbers: Any, reals: Any) -> None:
    """The same over windows of a picture, group by group."""
    found = unpack(numbers, 20)
    x, weight, bias, out, adds, num_in, num_out, lanes, by_out, by_in = found[:10]
    by_row, by_column, size, pad, groups, by_group, height, width, out_height, out_width = found[10:]
    plane, step, whole = height * width * lanes, out_height * out_width * lanes, num_out - num_out % 8
    for group in range(groups):
        for row in range(out_height):
            first_row, last_row = max(0, pad - row), min(size, height + pad - row)
            for column in range(out_width):
                first, last = max(0, pad - column), min(size, width + pad - column)
                corner = x + group * num_in * plane + ((row - pad) * width + column - pad) * lanes
                target = out + group * num_out * step + (row * out_width + column) * lanes
                for j in range(0, lanes, WIDTH):
                    for o in range(0, whole, 8):
                        y, w = target + o * step + j, weight + group * by_group + o * by_out
                        b = bias + group * num_out + o if bias >= 0 else -1
                        sums = _start_eight(memory, y, step, b, adds)
                        for r in range(first_row, last_row):
                            for c in range(first, last):
                                p, q = corner + (r * width + c) * lanes + j, w + r * by_row + c * by_column
                                for i in range(num_in):
                                    value = load(memory, p + i * plane)
                                    sums = _add_products(memory, value, q + i * by_in, by_out, sums)
                        _store_eight(memory, y, step, sums)
                    for o in range(whole, num_out):
                        y, w = target + o * step + j, weight + group * by_group + o * by_out
                        a = _start(memory, y, bias + group * num_out + o if bias >= 0 else -1, adds)
                        for i in range(num_in):
                            for r in range(first_row, last_row):
                                p, q = corner + i * plane + r * width * lanes + j, w + i * by_in + r * by_row
                                for c in range(first, last):
                                    a += load(memory, p + c * lanes) * memory[q + c * by_column]
                        store(memory, y, a)


# ── gradients of weights, four inputs and four outputs at a time ────────────────────────────────


@inline
def _add_scaled(g: Any, a: Any, b: Any, c: Any, d: Any, sums: Any) -> Any:
    return sums[0] + g * a, sums[1] + g * b, sums[2] + g * c, sums[3] + g * d


@inline
def _add_totals(memory: Any, out: Any, step: Any, sums: Any) -> None:
    memory[out] += total(sums[0])
    memory[out + step] += total(sums[1])
    memory[out + 2 * step] += total(sums[2])
    memory[out + 3 * step] += total(sums[3])


@kernel
def weight_gradient(memory: Any, numbers: Any, reals: Any) -> None:
    """Add the gradient of a convolution's weights, one tap after the other, each over the pixels where it applies."""
    found = unpack(numbers, 19)
    x, g, out, num_in, num_out, lanes, by_out, by_in, by_row, by_column = found[:10]
    size, pad, groups, by_group, height, width, out_height, out_width, plane = found[10:]
    g_plane, x_row, g_row = out_height * out_width * lanes, width * lanes, out_width * lanes
    fours_in, fours_out = num_in - num_in % 4, num_out - num_out % 4
    zero = (fill(0.0), fill(0.0), fill(0.0), fill(0.0))
    for group in range(groups):
        for r in range(size):
            first_row, last_row = max(0, pad - r), min(out_height, height + pad - r)
            for c in range(size):
                first, last = max(0, pad - c), min(out_width, width + pad - c)
                rows, run = last_row - first_row, (last - first) * lanes
                x0 = x + group * num_in * plane + ((first_row + r - pad) * width + first + c - pad) * lanes
                g0 = g + group * num_out * g_plane + (first_row * out_width + first) * lanes
                w0 = out + group * by_group + r * by_row + c * by_column
                for o in range(0, fours_out, 4):
                    for i in range(0, fours_in, 4):
                        s, t, u, v = zero, zero, zero, zero
                        for row in range(rows):
                            for j in range(0, run, WIDTH):
                                p, q = x0 + i * plane + row * x_row + j, g0 + o * g_plane + row * g_row + j
                                a, b = load(memory, p), load(memory, p + plane)
                                e, d = load(memory, p + 2 * plane), load(memory, p + 3 * plane)
                                s = _add_scaled(load(memory, q), a, b, e, d, s)
                                t = _add_scaled(load(memory, q + g_plane), a, b, e, d, t)
                                u = _add_scaled(load(memory, q + 2 * g_plane), a, b, e, d, u)
                                v = _add_scaled(load(memory, q + 3 * g_plane), a, b, e, d, v)
                        w = w0 + o * by_out + i * by_in
                        _add_totals(memory, w, by_in, s)
                        _add_totals(memory, w + by_out, by_in, t)
                        _add_totals(memory, w + 2 * by_out, by_in, u)
                        _add_totals(memory, w + 3 * by_out, by_in, v)
                for o in range(num_out):
                    for i in range(fours_in if o < fours_out else 0, num_in):
                        summed = fill(0.0)
                        for row in range(rows):
                            p, q = x0 + i * plane + row * x_row, g0 + o * g_plane + row * g_row
                            for j in range(0, run, WIDTH):
                                summed += load(memory, q + j) * load(memory, p + j)
                        memory[w0 + o * by_out + i * by_in] += total(summed)


@kernel
def bias_gradient(memory: Any, numbers: Any, reals: Any) -> None:
    """Add the sums of a gradient over positions and samples."""
    g, out, num_out, run = unpack(numbers, 4)
    for o in range(num_out):
        a = fill(0.0)
        for j in range(g + o * run, g + (o + 1) * run, WIDTH):
            a += load(memory, j)
        memory[out + o] += total(a)


@lowers("linear")
def linear(tracer: Tracer, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear map of the last axis."""
    run, (num_out, num_in) = run_length(x, x.ndim - 1, is_dense=False), weight.shape
    last = x.ndim - 2
    out = tracer.make((*x.shape[1:-1], num_out), order=(last, *range(last)))
    return _map(tracer, x, weight, bias, out, (num_in, num_out, run, num_in, 1), x.stride(-1))


def _map(
    tracer: Tracer,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    shape: tuple[int, int, int, int, int],
    step: int,
    middle: int = 0,
) -> Tensor:
    """Record a linear map.

    Args:
        shape: Inputs, outputs, numbers of each, and steps of the weights from output to output and input to input.
        step: From input to input of x.
        middle: Place of the first weight among all of `weight`.
    """
    num_in, num_out, run, by_out, by_in = shape
    b = -1 if bias is None else tracer.place(bias)
    w = tracer.place(weight) + middle
    tracer.emit(matmul, tracer.place(x), w, b, tracer.place(out), 0, *shape, step, run)

    def backward() -> None:
        g, dw = tracer.gradient(out), tracer.gradient(weight) + middle
        one_pixel = (0, 0, 1, 0, 1, 0, 1, 1, 1, 1, step)
        tracer.emit_backward(weight_gradient, tracer.place(x), g, dw, *shape, *one_pixel)
        if bias is not None:
            tracer.emit_backward(bias_gradient, g, tracer.gradient(bias), num_out, run)
        if tracer.wants_gradient(x):
            dx, adds = tracer.add_gradient(x)
            tracer.emit_backward(matmul, g, w, -1, dx, adds, num_out, num_in, run, by_in, by_out, run, step)

    return tracer.on_backward(out, backward)


@lowers("conv2d")
def conv2d(
    tracer: Tracer,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """A convolution with steps of one pixel."""
    require(tuple(stride) == tuple(dilation) == (1, 1), "a convolution with stride or dilation has no kernel")
    require(padding[0] == padding[1] and weight.shape[2] == weight.shape[3], "an oblong convolution has no kernel")
    lanes, (height, width) = tracer.lanes, x.shape[2:]
    num_out, num_in, whole, _ = weight.shape
    require(run_length(x, 1) == height * width * lanes, "features in this order have no kernel")
    out_height, out_width = height + 2 * padding[0] - whole + 1, width + 2 * padding[1] - whole + 1
    out = tracer.make((num_out, out_height, out_width))
    window = tracer.window(weight)
    size, pad = window.size, padding[0] - window.start
    num_out //= groups
    middle = window.start * (whole + 1)
    by_out, by_in = num_in * whole * whole, whole * whole
    if size == groups == 1 and pad == 0:
        run = height * width * lanes
        return _map(tracer, x, weight, bias, out, (num_in, num_out, run, by_out, by_in), run, middle)
    b = -1 if bias is None else tracer.place(bias)
    w = tracer.place(weight) + middle
    steps = (by_out, by_in, whole, 1, size, pad, groups, num_out * by_out)
    sizes = (height, width, out_height, out_width)
    tracer.emit(convolve, tracer.place(x), w, b, tracer.place(out), 0, num_in, num_out, lanes, *steps, *sizes)

    def backward() -> None:
        g, dw = tracer.gradient(out), tracer.gradient(weight) + middle
        of_weight = (num_in, num_out, lanes, *steps, *sizes, height * width * lanes)
        tracer.emit_backward(weight_gradient, tracer.place(x), g, dw, *of_weight)
        if bias is not None:
            tracer.emit_backward(
                bias_gradient, g, tracer.gradient(bias), num_out * groups, out_height * out_width * lanes
            )
        if tracer.wants_gradient(x):
            dx, adds = tracer.add_gradient(x)
            turned = (by_in, by_out, -whole, -1, size, size - 1 - pad, groups, num_out * by_out)
            last = w + (size - 1) * (whole + 1)
            back = (out_height, out_width, height, width)
            tracer.emit_backward(convolve, g, last, -1, dx, adds, num_out, num_in, lanes, *turned, *back)

    return tracer.on_backward(out, backward)
