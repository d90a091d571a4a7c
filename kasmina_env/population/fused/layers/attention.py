"""Attention of tokens to tokens, sample by sample; those that a mask hides are never looked at."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from kasmina_env.population.fused.kernels import kernel, unpack
from kasmina_env.population.fused.tracer import Tracer, lowers, require
from kasmina_env.population.fused.vectors import WIDTH, exp, fill, inline, load, store, where_beats


@inline
def _hides(memory: Any, bias: Any, is_causal: Any, pair: Any, query: Any, key: Any) -> Any:
    return (is_causal and key > query) or (bias >= 0 and memory[bias + pair] == -math.inf)


@kernel
def attend(memory: Any, numbers: Any, reals: Any) -> None:
    """``softmax(q k' * scale + bias) v``; the softmax is kept."""
    found = unpack(numbers, 17)
    q, k, v, out, shares, bias, is_causal, heads, tokens, size, lanes = found[:11]
    by_head, by_token, by_size, out_head, out_token, out_size = found[11:]
    scale = reals[0]
    for head in range(heads):
        for query in range(tokens):
            row = (head * tokens + query) * tokens
            own = q + head * by_head + query * by_token
            for j in range(0, lanes, WIDTH):
                best, summed = fill(-math.inf), fill(0.0)
                for key in range(tokens):
                    if _hides(memory, bias, is_causal, row + key, query, key):
                        continue
                    other, score = k + head * by_head + key * by_token, fill(0.0)
                    for d in range(size):
                        score += load(memory, own + d * by_size + j) * load(memory, other + d * by_size + j)
                    score = score * scale + (memory[bias + row + key] if bias >= 0 else 0.0)
                    best = where_beats(score, best, score, best)
                    store(memory, shares + (row + key) * lanes + j, score)
                for key in range(tokens):
                    if _hides(memory, bias, is_causal, row + key, query, key):
                        continue
                    share = exp(load(memory, shares + (row + key) * lanes + j) - best)
                    summed += share
                    store(memory, shares + (row + key) * lanes + j, share)
                for d in range(size):
                    a = fill(0.0)
                    for key in range(tokens):
                        if _hides(memory, bias, is_causal, row + key, query, key):
                            continue
                        share = load(memory, shares + (row + key) * lanes + j)
                        a += share * load(memory, v + head * by_head + key * by_token + d * by_size + j)
                    store(memory, out + head * out_head + query * out_token + d * out_size + j, a / summed)
                for key in range(tokens):
                    p = shares + (row + key) * lanes + j
                    store(memory, p, load(memory, p) / summed)


@kernel
def attend_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """Add the gradients of q, k and v."""
    found = unpack(numbers, 21)
    q, k, v, g, shares, bias, is_causal, heads, tokens, size, lanes = found[:11]
    by_head, by_token, by_size, out_head, out_token, out_size, dq, dk, dv, changes = found[11:]
    scale = reals[0]
    for head in range(heads):
        for query in range(tokens):
            row = (head * tokens + query) * tokens
            own, of_out = head * by_head + query * by_token, g + head * out_head + query * out_token
            for j in range(0, lanes, WIDTH):
                mean = fill(0.0)
                for key in range(tokens):
                    if _hides(memory, bias, is_causal, row + key, query, key):
                        continue
                    other, change = head * by_head + key * by_token, fill(0.0)
                    for d in range(size):
                        change += load(memory, of_out + d * out_size + j) * load(memory, v + other + d * by_size + j)
                    mean += change * load(memory, shares + (row + key) * lanes + j)
                    store(memory, changes + key * lanes + j, change)
                for key in range(tokens):
                    if _hides(memory, bias, is_causal, row + key, query, key):
                        continue
                    other, share = head * by_head + key * by_token, load(memory, shares + (row + key) * lanes + j)
                    slope = share * (load(memory, changes + key * lanes + j) - mean) * scale
                    for d in range(size):
                        p, r = own + d * by_size + j, other + d * by_size + j
                        store(memory, dq + p, load(memory, dq + p) + slope * load(memory, k + r))
                        store(memory, dk + r, load(memory, dk + r) + slope * load(memory, q + p))
                        found = share * load(memory, of_out + d * out_size + j)
                        store(memory, dv + r, load(memory, dv + r) + found)


@lowers("scaled_dot_product_attention")
def scaled_dot_product_attention(
    tracer: Tracer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Of ``[B, H, T, D]`` each, with a mask ``[H, T, T]`` of numbers or none."""
    is_alike = query.shape == key.shape == value.shape and query.stride() == key.stride() == value.stride()
    heads, tokens, size = query.shape[1:]
    is_known = attn_mask is None or (
        tuple(attn_mask.shape) == (heads, tokens, tokens) and attn_mask.is_floating_point()
    )
    require(is_alike and is_known and not dropout_p, "this kind of attention has no kernel")
    out = tracer.make((heads, tokens, size), order=(0, 2, 1))
    shares = tracer.scratch(heads * tokens * tokens * tracer.lanes)
    changes = tracer.scratch(tokens * tracer.lanes)
    bias = -1 if attn_mask is None else tracer.place(tracer.as_operand(attn_mask))
    sizes = (bias, int(is_causal), heads, tokens, size, tracer.lanes, *query.stride()[1:], *out.stride()[1:])
    inputs, factor = [tracer.place(t) for t in (query, key, value)], (scale or 1 / math.sqrt(size),)
    tracer.emit(attend, *inputs, tracer.place(out), shares, *sizes, reals=factor)

    def emit() -> None:
        found = [tracer.add_gradient(t, is_sum=True)[0] for t in (query, key, value)]
        places = (*inputs, tracer.gradient(out), shares)
        tracer.emit_backward(attend_backward, *places, *sizes, *found, changes, reals=factor)

    return tracer.on_backward(out, emit)
