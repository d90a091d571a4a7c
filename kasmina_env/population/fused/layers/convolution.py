"""Convolutions of any odd kernel, padding and number of groups, and linear maps, which are convolutions of one pixel.

``[C, H, W, B]`` with samples innermost: an output is a sum of inputs times single weights. A vector of samples of one
output pixel meets only the taps that lie inside the picture, so there is no padding in memory. Eight outputs share each
input that is loaded, and their sums stay in registers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kasmina_env.population.fused.kernels import kernel, unpack
from kasmina_env.population.fused.recorder import Recorder, lowers, require, run_length
from kasmina_env.population.fused.vectors import WIDTH, fill, inline, load, store, total


@inline
def _start(memory: Any, out: Any, bias: Any, adds: Any) -> Any:
    """What a sum starts from: what is there, a bias, or nothing."""
    if adds:
        return load(memory, out)
    return fill(memory[bias]) if bias >= 0 else fill(0.0)


@kernel
def matmul(memory: Any, numbers: Any, reals: Any) -> None:
    """``out[o, j] = bias[o] + sum over i of weight[o, i] * x[i, j]``, weights at any strides."""
    x, weight, bias, out, adds, num_in, num_out, run, by_out, by_in, x_step, step = unpack(numbers, 12)
    whole = num_out - num_out % 8
    for j in range(0, run, WIDTH):
        for o in range(0, whole, 8):
            y, b, n = out + o * step + j, bias + o if bias >= 0 else -1, 1 if bias >= 0 else 0
            a0, a1 = _start(memory, y, b, adds), _start(memory, y + step, b + n, adds)
            a2, a3 = _start(memory, y + 2 * step, b + 2 * n, adds), _start(memory, y + 3 * step, b + 3 * n, adds)
            a4, a5 = _start(memory, y + 4 * step, b + 4 * n, adds), _start(memory, y + 5 * step, b + 5 * n, adds)
            a6, a7 = _start(memory, y + 6 * step, b + 6 * n, adds), _start(memory, y + 7 * step, b + 7 * n, adds)
            for i in range(num_in):
                v, w = load(memory, x + i * x_step + j), weight + o * by_out + i * by_in
                a0 += v * memory[w]
                a1 += v * memory[w + by_out]
                a2 += v * memory[w + 2 * by_out]
                a3 += v * memory[w + 3 * by_out]
                a4 += v * memory[w + 4 * by_out]
                a5 += v * memory[w + 5 * by_out]
                a6 += v * memory[w + 6 * by_out]
                a7 += v * memory[w + 7 * by_out]
            store(memory, y, a0)
            store(memory, y + step, a1)
            store(memory, y + 2 * step, a2)
            store(memory, y + 3 * step, a3)
            store(memory, y + 4 * step, a4)
            store(memory, y + 5 * step, a5)
            store(memory, y + 6 * step, a6)
            store(memory, y + 7 * step, a7)
        for o in range(whole, num_out):
            y = out + o * step + j
            a0 = _start(memory, y, bias + o if bias >= 0 else -1, adds)
            for i in range(num_in):
                a0 += load(memory, x + i * x_step + j) * memory[weight + o * by_out + i * by_in]
            store(memory, y, a0)


@kernel
def convolve(memory: Any, numbers: Any, reals: Any) -> None:
    """The same over windows of a picture, group by group."""
    found = unpack(numbers, 20)
    x, weight, bias, out, adds, num_in, num_out, lanes, by_out, by_in = found[:10]
    by_row, by_column, size, pad, groups, by_group, height, width, out_height, out_width = found[10:]
    plane, out_plane = height * width * lanes, out_height * out_width * lanes
    whole = num_out - num_out % 8
    for group in range(groups):
        for row in range(out_height):
            first_row, last_row = max(0, pad - row), min(size, height + pad - row)
            for column in range(out_width):
                first, last = max(0, pad - column), min(size, width + pad - column)
                corner = x + group * num_in * plane + ((row - pad) * width + column - pad) * lanes
                target = out + group * num_out * out_plane + (row * out_width + column) * lanes
                for j in range(0, lanes, WIDTH):
                    for o in range(0, whole, 8):
                        y, w0 = target + o * out_plane + j, weight + group * by_group + o * by_out
                        b, n = bias + group * num_out + o if bias >= 0 else -1, 1 if bias >= 0 else 0
                        a0, a1 = _start(memory, y, b, adds), _start(memory, y + out_plane, b + n, adds)
                        a2 = _start(memory, y + 2 * out_plane, b + 2 * n, adds)
                        a3 = _start(memory, y + 3 * out_plane, b + 3 * n, adds)
                        a4 = _start(memory, y + 4 * out_plane, b + 4 * n, adds)
                        a5 = _start(memory, y + 5 * out_plane, b + 5 * n, adds)
                        a6 = _start(memory, y + 6 * out_plane, b + 6 * n, adds)
                        a7 = _start(memory, y + 7 * out_plane, b + 7 * n, adds)
                        for i in range(num_in):
                            for r in range(first_row, last_row):
                                source = corner + i * plane + r * width * lanes + j
                                w1 = w0 + i * by_in + r * by_row
                                for c in range(first, last):
                                    v, w = load(memory, source + c * lanes), w1 + c * by_column
                                    a0 += v * memory[w]
                                    a1 += v * memory[w + by_out]
                                    a2 += v * memory[w + 2 * by_out]
                                    a3 += v * memory[w + 3 * by_out]
                                    a4 += v * memory[w + 4 * by_out]
                                    a5 += v * memory[w + 5 * by_out]
                                    a6 += v * memory[w + 6 * by_out]
                                    a7 += v * memory[w + 7 * by_out]
                        store(memory, y, a0)
                        store(memory, y + out_plane, a1)
                        store(memory, y + 2 * out_plane, a2)
                        store(memory, y + 3 * out_plane, a3)
                        store(memory, y + 4 * out_plane, a4)
                        store(memory, y + 5 * out_plane, a5)
                        store(memory, y + 6 * out_plane, a6)
                        store(memory, y + 7 * out_plane, a7)
                    for o in range(whole, num_out):
                        y, w0 = target + o * out_plane + j, weight + group * by_group + o * by_out
                        a0 = _start(memory, y, bias + group * num_out + o if bias >= 0 else -1, adds)
                        for i in range(num_in):
                            for r in range(first_row, last_row):
                                source = corner + i * plane + r * width * lanes + j
                                w1 = w0 + i * by_in + r * by_row
                                for c in range(first, last):
                                    a0 += load(memory, source + c * lanes) * memory[w1 + c * by_column]
                        store(memory, y, a0)


@inline
def _correlate(
    memory: Any, x: Any, g: Any, out: Any, by_in: Any, by_out: Any, plane: Any, g_plane: Any, rows: Any, row: Any,
    g_row: Any, run: Any,
) -> None:  # fmt: skip
    """Add the products of four inputs with four gradients, summed over `rows` runs, to a weight's gradient."""
    z = fill(0.0)
    a0, a1, a2, a3, b0, b1, b2, b3 = z, z, z, z, z, z, z, z
    c0, c1, c2, c3, d0, d1, d2, d3 = z, z, z, z, z, z, z, z
    for r in range(rows):
        for j in range(0, run, WIDTH):
            p, q = g + r * g_row + j, x + r * row + j
            g0, g1 = load(memory, p), load(memory, p + g_plane)
            g2, g3 = load(memory, p + 2 * g_plane), load(memory, p + 3 * g_plane)
            v = load(memory, q)
            a0 += g0 * v
            b0 += g1 * v
            c0 += g2 * v
            d0 += g3 * v
            v = load(memory, q + plane)
            a1 += g0 * v
            b1 += g1 * v
            c1 += g2 * v
            d1 += g3 * v
            v = load(memory, q + 2 * plane)
            a2 += g0 * v
            b2 += g1 * v
            c2 += g2 * v
            d2 += g3 * v
            v = load(memory, q + 3 * plane)
            a3 += g0 * v
            b3 += g1 * v
            c3 += g2 * v
            d3 += g3 * v
    _add_four(memory, out, by_in, a0, a1, a2, a3)
    _add_four(memory, out + by_out, by_in, b0, b1, b2, b3)
    _add_four(memory, out + 2 * by_out, by_in, c0, c1, c2, c3)
    _add_four(memory, out + 3 * by_out, by_in, d0, d1, d2, d3)


@inline
def _add_four(memory: Any, out: Any, step: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    memory[out] += total(a)
    memory[out + step] += total(b)
    memory[out + 2 * step] += total(c)
    memory[out + 3 * step] += total(d)


@inline
def _correlate_one(memory: Any, x: Any, g: Any, out: Any, rows: Any, row: Any, g_row: Any, run: Any) -> None:
    a = fill(0.0)
    for r in range(rows):
        for j in range(0, run, WIDTH):
            a += load(memory, g + r * g_row + j) * load(memory, x + r * row + j)
    memory[out] += total(a)


@kernel
def weight_gradient(memory: Any, numbers: Any, reals: Any) -> None:
    """Add the gradient of a convolution's weights, one tap after the other, each over the pixels where it applies."""
    found = unpack(numbers, 19)
    x, g, out, num_in, num_out, lanes, by_out, by_in, by_row, by_column = found[:10]
    size, pad, groups, by_group, height, width, out_height, out_width, plane = found[10:]
    g_plane, row, g_row = out_height * out_width * lanes, width * lanes, out_width * lanes
    in_fours, out_fours = num_in - num_in % 4, num_out - num_out % 4
    for group in range(groups):
        for r in range(size):
            first_row, last_row = max(0, pad - r), min(out_height, height + pad - r)
            for c in range(size):
                first, last = max(0, pad - c), min(out_width, width + pad - c)
                rows, run = last_row - first_row, (last - first) * lanes
                x0 = x + group * num_in * plane + ((first_row + r - pad) * width + first + c - pad) * lanes
                g0 = g + group * num_out * g_plane + (first_row * out_width + first) * lanes
                w0 = out + group * by_group + r * by_row + c * by_column
                for o in range(0, out_fours, 4):
                    for i in range(0, in_fours, 4):
                        p, q, w = x0 + i * plane, g0 + o * g_plane, w0 + o * by_out + i * by_in
                        _correlate(memory, p, q, w, by_in, by_out, plane, g_plane, rows, row, g_row, run)
                for o in range(num_out):
                    for i in range(in_fours if o < out_fours else 0, num_in):
                        p, q, w = x0 + i * plane, g0 + o * g_plane, w0 + o * by_out + i * by_in
                        _correlate_one(memory, p, q, w, rows, row, g_row, run)


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
def linear(recorder: Recorder, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear map of the last axis."""
    run, (num_out, num_in) = run_length(x, x.ndim - 1, is_dense=False), weight.shape
    last = x.ndim - 2
    out = recorder.make((*x.shape[1:-1], num_out), order=(last, *range(last)))
    return _map(recorder, x, weight, bias, out, (num_in, num_out, run, num_in, 1), x.stride(-1))


def _map(
    recorder: Recorder,
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
    b = -1 if bias is None else recorder.place(bias)
    w = recorder.place(weight) + middle
    recorder.emit(matmul, recorder.place(x), w, b, recorder.place(out), 0, *shape, step, run)

    def backward() -> None:
        g, dw = recorder.gradient(out), recorder.gradient(weight) + middle
        one_pixel = (0, 0, 1, 0, 1, 0, 1, 1, 1, 1, step)
        recorder.emit_backward(weight_gradient, recorder.place(x), g, dw, *shape, *one_pixel)
        if bias is not None:
            recorder.emit_backward(bias_gradient, g, recorder.gradient(bias), num_out, run)
        if recorder.wants_gradient(x):
            dx, adds = recorder.add_gradient(x)
            recorder.emit_backward(matmul, g, w, -1, dx, adds, num_out, num_in, run, by_in, by_out, run, step)

    return recorder.on_backward(out, backward)


@lowers("conv2d")
def conv2d(
    recorder: Recorder,
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
    lanes, (height, width) = recorder.lanes, x.shape[2:]
    num_out, num_in, whole, _ = weight.shape
    require(run_length(x, 1) == height * width * lanes, "features in this order have no kernel")
    out_height, out_width = height + 2 * padding[0] - whole + 1, width + 2 * padding[1] - whole + 1
    out = recorder.make((num_out, out_height, out_width))
    window = recorder.window(weight)
    size, pad = window.size, padding[0] - window.start
    num_out //= groups
    middle = window.start * (whole + 1)
    by_out, by_in = num_in * whole * whole, whole * whole
    if size == groups == 1 and pad == 0:
        run = height * width * lanes
        return _map(recorder, x, weight, bias, out, (num_in, num_out, run, by_out, by_in), run, middle)
    b = -1 if bias is None else recorder.place(bias)
    w = recorder.place(weight) + middle
    steps = (by_out, by_in, whole, 1, size, pad, groups, num_out * by_out)
    sizes = (height, width, out_height, out_width)
    recorder.emit(convolve, recorder.place(x), w, b, recorder.place(out), 0, num_in, num_out, lanes, *steps, *sizes)

    def backward() -> None:
        g, dw = recorder.gradient(out), recorder.gradient(weight) + middle
        of_weight = (num_in, num_out, lanes, *steps, *sizes, height * width * lanes)
        recorder.emit_backward(weight_gradient, recorder.place(x), g, dw, *of_weight)
        if bias is not None:
            recorder.emit_backward(
                bias_gradient, g, recorder.gradient(bias), num_out * groups, out_height * out_width * lanes
            )
        if recorder.wants_gradient(x):
            dx, adds = recorder.add_gradient(x)
            turned = (by_in, by_out, -whole, -1, size, size - 1 - pad, groups, num_out * by_out)
            last = w + (size - 1) * (whole + 1)
            back = (out_height, out_width, height, width)
            recorder.emit_backward(convolve, g, last, -1, dx, adds, num_out, num_in, lanes, *turned, *back)

    return recorder.on_backward(out, backward)
