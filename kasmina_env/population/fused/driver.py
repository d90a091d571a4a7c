"""The compiled loop: one network after the other through its program, without Python's lock.

What a network has outside, parameters and optimiser state, is copied in before and out after: a hundredth of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

from kasmina_env.population.fused.kernels import OPTIONS, stamped
from kasmina_env.population.fused.vectors import instruction

READ, WRITE = 1, 2  # directions of a transfer; with neither, memory is cleared
FLOAT = 4  # bytes


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@instruction(types.void, *[types.int64] * 4)
def _call(builder: Any, kernel: Any, memory: Any, numbers: Any, reals: Any) -> None:
    kinds = [ir.FloatType().as_pointer(), ir.IntType(64).as_pointer(), ir.DoubleType().as_pointer()]
    function = _at(builder, kernel, ir.FunctionType(ir.VoidType(), kinds))
    arguments = [builder.inttoptr(a, kind) for a, kind in zip((memory, numbers, reals), kinds, strict=True)]
    builder.call(function, arguments)


@instruction(types.void, *[types.int64] * 3)
def _copy(builder: Any, target: Any, source: Any, size: Any) -> None:
    byte = ir.IntType(8)
    cgutils.raw_memcpy(builder, _at(builder, target, byte), _at(builder, source, byte), size, 1)


@instruction(types.void, types.int64, types.int64)
def _clear(builder: Any, target: Any, size: Any) -> None:
    cgutils.memset(builder, _at(builder, target, ir.IntType(8)), size, 0)


@instruction(types.float32, types.int64)
def _get(builder: Any, address: Any) -> Any:
    return builder.load(_at(builder, address, ir.FloatType()))


@instruction(types.void, types.int64, types.float32)
def _set(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, _at(builder, address, ir.FloatType()))


def _compiled(function: Callable[..., Any]) -> Any:
    return njit(nogil=True, **OPTIONS)(stamped(function))


@_compiled
def transfer(memory: Any, transfers: Any, start: Any, stop: Any, direction: Any) -> None:
    """Copy what a network has outside into memory, or back."""
    for t in range(start, stop):
        address, place, size, directions = transfers[t, 0], transfers[t, 1], transfers[t, 2], transfers[t, 3]
        inside = memory + FLOAT * place
        if directions == 0 and direction == READ:
            _clear(inside, FLOAT * size)
        elif directions & direction == READ:
            _copy(inside, address, FLOAT * size)
        elif directions & direction == WRITE:
            _copy(address, inside, FLOAT * size)


@_compiled
def run(memory: Any, numbers: Any, reals: Any, tape: Any, start: Any, stop: Any) -> None:
    """Run stretches of operations."""
    first, by_row = numbers.ctypes.data, numbers.strides[0]
    first_real, by_real = reals.ctypes.data, reals.strides[0]
    for stretch in range(start, stop):
        for i in range(tape[stretch, 0], tape[stretch, 1]):
            _call(numbers[i, 0], memory, first + i * by_row, first_real + i * by_real)


@_compiled
def train(
    first: Any, step: Any, memory: Any, numbers: Any, reals: Any, tape: Any, tape_of: Any, transfers: Any,
    transfers_of: Any, inputs: Any, labels: Any, places: Any, losses: Any,
) -> None:  # fmt: skip
    """Train every `step`-th network from `first` on.

    Args:
        inputs, labels: Addresses of K minibatches.
        places: Places of inputs, labels and losses in memory; sizes of inputs and labels; number of samples.
        losses: ``[K, N]``, to be written.
    """
    x, y, loss, x_size, y_size, num_samples = places
    for n in range(first, losses.shape[1], step):
        transfer(memory, transfers, transfers_of[n], transfers_of[n + 1], READ)
        for k in range(len(inputs)):
            _copy(memory + FLOAT * x, inputs[k] + FLOAT * n * x_size, FLOAT * x_size)
            _copy(memory + FLOAT * y, labels[k] + FLOAT * n * y_size, FLOAT * y_size)
            run(memory, numbers, reals, tape, tape_of[n], tape_of[n + 1])
            summed = 0.0
            for i in range(num_samples):
                summed += _get(memory + FLOAT * (loss + i))
            losses[k, n] = summed / num_samples
        transfer(memory, transfers, transfers_of[n], transfers_of[n + 1], WRITE)


@_compiled
def evaluate(
    first: Any, step: Any, memory: Any, numbers: Any, reals: Any, tape: Any, transfers: Any, transfers_of: Any,
    ways: Any, ways_of: Any, inputs: Any, noise: Any, noise_width: Any, labels: Any, lengths: Any, places: Any,
    results: Any,
) -> None:  # fmt: skip
    """Evaluate every `step`-th network from `first` on.

    Args:
        ways: For each way through the network that is asked for, ``[stretches from, to, row of the results]``; one that
            begins behind the first slots finds there what the way before it left.
        ways_of: First way of each network on each data ``[N * D + 1]``.
        inputs: Addresses of D data, in chunks, as each network sees them ``[D, N]``.
        noise, labels: Addresses of D data, in chunks; noise is 0 where there is none.
        noise_width: Standard deviation of each network's noise on inputs.
        lengths: Samples of each data.
        places: Places of inputs, labels, losses and qualities in memory; sizes of inputs and labels; chunk size.
        results: ``[rows, 2]``, sums to be added to.
    """
    x, y, loss, quality, x_size, y_size, lanes = places
    num_data = len(lengths)
    for n in range(first, len(noise_width), step):
        transfer(memory, transfers, transfers_of[n], transfers_of[n + 1], READ)
        for d in range(num_data):
            start, stop = ways_of[n * num_data + d], ways_of[n * num_data + d + 1]
            for chunk in range((lengths[d] + lanes - 1) // lanes):
                _copy(memory + FLOAT * x, inputs[d, n] + FLOAT * chunk * x_size, FLOAT * x_size)
                _copy(memory + FLOAT * y, labels[d] + FLOAT * chunk * y_size, FLOAT * y_size)
                if noise[d] and noise_width[n] != 0:
                    for i in range(x_size):
                        inside, drawn = memory + FLOAT * (x + i), noise[d] + FLOAT * (chunk * x_size + i)
                        _set(inside, _get(inside) + _get(drawn) * noise_width[n])
                num_samples = min(lanes, lengths[d] - chunk * lanes)
                for way in range(start, stop):
                    run(memory, numbers, reals, tape, ways[way, 0], ways[way, 1])
                    for i in range(num_samples):
                        results[ways[way, 2], 0] += _get(memory + FLOAT * (loss + i))
                        results[ways[way, 2], 1] += _get(memory + FLOAT * (quality + i))
