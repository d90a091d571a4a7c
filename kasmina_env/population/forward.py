"""The wide forward: hosts side by side, and at each slot the seeds that live there.

Seeds run only over the networks that hold them, with their own weights: cost follows seeds that exist, not possible
ones. All of it works on the channels, as the last axis, in which every group of seeds is a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kasmina_env.blend import TERMS
from kasmina_env.config import Operator
from kasmina_env.population.plan import PlannedSlot


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def _channels_back(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


class TakeRows(torch.autograd.Function):
    """Rows of a matrix in another order; both indices are permutations, each the inverse of the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, take: Tensor, give: Tensor) -> Tensor:
        ctx.give = give
        return x.index_select(0, take)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.give), None, None


class AddTerms(torch.autograd.Function):
    """Put the terms of a slot's seeds into the features ``[..., N*C]``.

    Acting seeds, which come first, add ``alpha * term`` (`kasmina_env.blend.blend`, in one kernel). Those in TRAINING,
    which come next, change no value, bit for bit, and get the gradient as if their term had been added
    (`kasmina_env.blend.straight_through`). Host features keep their gradient at weight 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, live: Tensor | None, training: Tensor | None) -> Tensor:
        ctx.alpha, ctx.num_training = alpha, 0 if training is None else training.shape[-1]
        if live is None:
            return x.view_as(x)
        out = x.clone()
        out.narrow(-1, 0, len(alpha)).addcmul_(alpha, live)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        num_live = len(ctx.alpha)
        live = grad.narrow(-1, 0, num_live) * ctx.alpha if num_live else None
        training = grad.narrow(-1, num_live, ctx.num_training) if ctx.num_training else None
        return grad, None, live, training


class _Rows:
    """Index of all rows of wide features ``[places * N, C]``, made once: the batches of a step are alike."""

    def __init__(self, order: Tensor, inverse: Tensor) -> None:
        self.orders = order, inverse
        self.known: dict[int, list[Tensor]] = {}

    def __call__(self, num_rows: int) -> list[Tensor]:
        if num_rows not in self.known:
            order, inverse = self.orders
            first = torch.arange(0, num_rows, len(order), device=order.device).unsqueeze(1)
            self.known[num_rows] = [(first + order).flatten(), (first + inverse).flatten()]
        return self.known[num_rows]


def _take_networks(x: Tensor, channels: int, indices: Sequence[Tensor]) -> Tensor:
    moved: Tensor = TakeRows.apply(x.reshape(-1, channels), *indices)  # type: ignore[no-untyped-call]
    return moved.view(x.shape)


def slot_function(slot: PlannedSlot | None, num_networks: int) -> Callable[[Tensor], Tensor]:
    """What happens to wide features at a slot: every seed proposes a change, each operator makes a term of it.

    A seed in TRAINING reads detached features: the host's gradient is exactly what it would be without the seed.
    """
    if slot is None:
        return lambda x: x
    rows = None if slot.order is None or slot.inverse is None else _Rows(slot.order, slot.inverse)

    def run(x: Tensor) -> Tensor:
        last = _channels_last(x)
        channels = last.shape[-1] // num_networks
        if rows is None:
            return _channels_back(_grow(slot, last, channels))
        there, back = rows(last.numel() // channels)
        grown = _grow(slot, _take_networks(last, channels, (there, back)), channels)
        return _channels_back(_take_networks(grown, channels, (back, there)))

    return run


def _grow(slot: PlannedSlot, last: Tensor, channels: int) -> Tensor:
    """Features ``[..., N*C]`` in the slot's order to what they are behind the slot."""
    inputs = _cell_inputs(slot, last, channels)
    changes = [_channels_last(c.call(_channels_back(i))) for c, i in zip(slot.cells, inputs, strict=True)]
    groups = [_split(d, cell.sizes, channels) for d, cell in zip(changes, slot.cells, strict=True)]
    _make_terms(slot, inputs, groups, channels)
    kinds = len(Operator)
    live, training = (_join([t for terms in groups for t in terms[at]]) for at in (slice(kinds), slice(kinds, None)))
    out: Tensor = AddTerms.apply(last, slot.alpha, live, training)  # type: ignore[no-untyped-call]
    return out


def _split(x: Tensor, sizes: Sequence[int], channels: int) -> list[Tensor | None]:
    """Slices of groups of networks, None for one that is empty."""
    widths = [size * channels for size in sizes if size]
    parts = iter([x] if len(widths) == 1 and widths[0] == x.shape[-1] else x.split(widths, dim=-1))
    return [next(parts) if size else None for size in sizes]


def _join(parts: Sequence[Tensor | None]) -> Tensor | None:
    some = [part for part in parts if part is not None]
    if len(some) < 2:
        return some[0] if some else None
    return torch.cat(some, dim=-1)


def _cell_inputs(slot: PlannedSlot, last: Tensor, channels: int) -> list[Tensor]:
    """Features of the networks of every cell, contiguous; those of networks with a seed in TRAINING are detached."""
    sizes = [sum(cell.live) for cell in slot.cells] + [sum(cell.training) for cell in slot.cells]
    rest = last.shape[-1] // channels - sum(sizes)
    live_and_training = _split(last, [*sizes, rest], channels)
    inputs = []
    for live, training in zip(live_and_training, live_and_training[len(slot.cells) : -1], strict=False):
        joined = _join([live, None if training is None else training.detach()])
        assert joined is not None
        inputs.append(joined.contiguous())  # once: a slice would be copied by each layer that reads it
    return inputs


def _make_terms(
    slot: PlannedSlot, inputs: Sequence[Tensor], groups: Sequence[list[Tensor | None]], channels: int
) -> None:
    """Replace the changes of the seeds under each operator by their terms, in place.

    Seeds of all cells under one operator are taken together. ADD is left out: there the change is the term.
    """
    kinds = len(Operator)
    for operator in Operator:
        if operator is Operator.ADD:
            continue
        places = [
            (cell, kind)
            for kind in (int(operator), kinds + int(operator))
            for cell, terms in enumerate(groups)
            if terms[kind] is not None
        ]
        if not places:
            continue
        sizes = [slot.cells[cell].sizes[kind] for cell, kind in places]
        change = _join([groups[cell][kind] for cell, kind in places])
        features = _join([_split(inputs[cell], slot.cells[cell].sizes, channels)[kind] for cell, kind in places])
        assert change is not None
        assert features is not None
        x = _channels_back(features)
        gate = slot.gates.call(x) if slot.gates and operator is Operator.GATE else None
        term = _channels_last(TERMS[operator](x, _channels_back(change), gate))
        for (cell, kind), part in zip(places, _split(term, sizes, channels), strict=True):
            groups[cell][kind] = part
