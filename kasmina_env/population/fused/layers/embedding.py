"""Tables of vectors."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from kasmina_env.population.fused.kernels import kernel, unpack
from kasmina_env.population.fused.tracer import Tracer, lowers, require, run_length


@kernel
def look_up(memory: Any, numbers: Any, reals: Any) -> None:
    """``out[c, j] = table[x[j], c]``, NaN where the table has no such row."""
    x, table, out, rows, channels, run = unpack(numbers, 6)
    for j in range(run):
        row = int(memory[x + j])
        for c in range(channels):
            memory[out + c * run + j] = memory[table + row * channels + c] if 0 <= row < rows else math.nan


@kernel
def look_up_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """Add gradients to the rows that were looked up."""
    x, d_table, g, rows, channels, run = unpack(numbers, 6)
    for j in range(run):
        row = int(memory[x + j])
        if 0 <= row < rows:
            for c in range(channels):
                memory[d_table + row * channels + c] += memory[g + c * run + j]


@lowers("embedding")
def embedding(tracer: Tracer, x: Tensor, weight: Tensor, padding_idx: int | None = None, **options: Any) -> Tensor:
    """Rows of a table."""
    require(padding_idx is None and not options.get("max_norm"), "this kind of embedding has no kernel")
    run = run_length(x.unsqueeze(-1), x.ndim)
    out = tracer.make((*x.shape[1:], weight.shape[1]), order=(x.ndim - 1, *range(x.ndim - 1)))
    sizes = (*weight.shape, run)
    tracer.emit(look_up, tracer.place(x), tracer.place(weight), tracer.place(out), *sizes)

    def emit() -> None:
        places = tracer.place(x), tracer.gradient(weight), tracer.gradient(out)
        tracer.emit_backward(look_up_backward, *places, *sizes)

    return tracer.on_backward(out, emit)
