"""The loss, and what tasks make of it: kernels of `kasmina_env.tasks.Criterion`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from kasmina_env.networks.hosts import Host
from kasmina_env.population.fused.kernels import Kernel, kernel, unpack
from kasmina_env.population.fused.tracer import Tracer, require, run_length
from kasmina_env.population.fused.vectors import WIDTH, exp, fill, load, store, where_beats, where_equal
from kasmina_env.tasks import Criterion
from kasmina_env.tasks.base import bits_saved, classify, classify_next


class LossPlaces(NamedTuple):
    """Where the loss finds and leaves what is there for each sample."""

    labels: int  # as float32, for each position
    weights: int  # of the sample in the mean loss, 0 for those that only fill a vector up
    loss: int
    quality: int


@kernel
def cross_entropy(memory: Any, numbers: Any, reals: Any) -> None:
    """Loss and whether the largest logit is the label's, at each position; probabilities are kept."""
    logits, labels, shares, losses, hits, num_classes, run, by_class = unpack(numbers, 8)
    for j in range(0, run, WIDTH):
        label = load(memory, labels + j)
        best, which, own = fill(-math.inf), fill(0.0), fill(math.nan)  # of a label that is no class
        for k in range(num_classes):
            v, number = load(memory, logits + k * by_class + j), fill(float(k))
            which = where_beats(v, best, number, which)
            best = where_beats(v, best, v, best)
            own = where_equal(label, number, v, own)
        summed = fill(0.0)
        for k in range(num_classes):
            v = exp(load(memory, logits + k * by_class + j) - best)
            summed += v
            store(memory, shares + k * run + j, v)
        for k in range(num_classes):
            store(memory, shares + k * run + j, load(memory, shares + k * run + j) / summed)
        store(memory, losses + j, summed)
        for i in range(losses + j, losses + j + WIDTH):
            memory[i] = math.log(memory[i])
        store(memory, losses + j, load(memory, losses + j) + best - own)
        store(memory, hits + j, where_equal(which, label, fill(1.0), fill(0.0)))


@kernel
def cross_entropy_backward(memory: Any, numbers: Any, reals: Any) -> None:
    """Gradient of the logits: probability, less 1 for the label, times the weight of the sample."""
    g, labels, shares, weights, num_classes, positions, lanes, by_class = unpack(numbers, 8)
    for position in range(positions):
        for j in range(0, lanes, WIDTH):
            i = position * lanes + j
            label, weight = load(memory, labels + i), load(memory, weights + j) * (1.0 / positions)
            for k in range(num_classes):
                target = where_equal(label, fill(float(k)), fill(1.0), fill(0.0))
                share = load(memory, shares + k * positions * lanes + i)
                store(memory, g + k * by_class + i, (share - target) * weight)


@kernel
def classified(memory: Any, numbers: Any, reals: Any) -> None:
    """Mean loss of each sample, and its share of positions that are right; none is whose loss is not finite."""
    losses, hits, loss, quality, positions, lanes = unpack(numbers, 6)
    for j in range(0, lanes, WIDTH):
        a, b = fill(0.0), fill(0.0)
        for i in range(j, positions * lanes, lanes):
            v = load(memory, losses + i)
            a += v
            b += where_equal(v - v, fill(0.0), load(memory, hits + i), fill(0.0))
        store(memory, loss + j, a * (1.0 / positions))
        store(memory, quality + j, b * (1.0 / positions))


@kernel
def saved_bits(memory: Any, numbers: Any, reals: Any) -> None:
    """Mean loss of each sample, and how much less it is than that of a guess, `reals[0]`."""
    losses, _, loss, quality, positions, lanes = unpack(numbers, 6)
    for j in range(0, lanes, WIDTH):
        a = fill(0.0)
        for i in range(j, positions * lanes, lanes):
            a += load(memory, losses + i)
        a = a * (1.0 / positions)
        store(memory, loss + j, a)
        store(memory, quality + j, where_equal(a - a, fill(0.0), fill(1.0) - a / fill(reals[0]), fill(0.0)))


def whole(logits: Tensor) -> Tensor:
    """All logits matter."""
    return logits


def behind_last(logits: Tensor, num_tokens: int) -> Tensor:
    """Of the last position those that are no tokens."""
    return logits[:, -1, num_tokens:]


# For each criterion which logits matter, with the settings of a `functools.partial`, and what is made of their loss.
CRITERIA: Mapping[Callable[..., Any], tuple[Callable[..., Tensor], Kernel]] = {
    classify: (whole, classified),
    bits_saved: (whole, saved_bits),
    classify_next: (behind_last, classified),
}


def label_shape(host: Host, criterion: Criterion) -> tuple[int, ...]:
    """Shape of the labels of one sample: one for each token, or a single one."""
    is_single = host.topology != "tokens" or getattr(criterion, "func", criterion) is classify_next
    return () if is_single else host.input_shape


def trace_loss(tracer: Tracer, logits: Tensor, criterion: Criterion, places: LossPlaces) -> None:
    """Record the loss of logits ``[B, K]`` or ``[B, T, K]`` under a criterion, and the gradient of its mean."""
    function, settings = getattr(criterion, "func", criterion), getattr(criterion, "keywords", {})
    require(function in CRITERIA, f"the criterion `{getattr(function, '__name__', function)}` has no kernel")
    choose, judge = CRITERIA[function]
    logits = choose(logits, **settings)
    run, num_classes, by_class = (
        run_length(logits, logits.ndim - 1, is_dense=False),
        logits.shape[-1],
        logits.stride(-1),
    )
    positions, lanes = run // tracer.lanes, tracer.lanes
    shares, losses, hits = (tracer.scratch(size) for size in (num_classes * run, run, run))
    at = tracer.place(logits)
    tracer.emit(cross_entropy, at, places.labels, shares, losses, hits, num_classes, run, by_class)
    shape = (losses, hits, places.loss, places.quality, positions, lanes)
    tracer.emit(judge, *shape, reals=(math.log(num_classes),))
    g, _ = tracer.add_gradient(logits)
    sizes = (num_classes, positions, lanes, by_class)
    tracer.emit_backward(cross_entropy_backward, g, places.labels, shares, places.weights, *sizes)
