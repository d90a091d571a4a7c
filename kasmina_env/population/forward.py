"""The wide forward: hosts side by side, and at each slot the seeds that live there.

Seeds run only over the networks that hold them, with their own weights: cost follows seeds that exist, not possible
ones. All of it works along one axis, in which every group of seeds is a slice (`Lanes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kasmina_env.networks.blend import TERMS, straight_through
from kasmina_env.population.arrangement import ArrangedSlot, Kind
from kasmina_env.population.wide_features import Lanes
from kasmina_env.settings.config import Operator


class TakeNetworks(torch.autograd.Function):
    """Reorder the networks of features by the permutation `take`; `give` is its inverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lanes: Lanes, take: Tensor, give: Tensor) -> Tensor:
        ctx.lanes, ctx.give = lanes, give
        return lanes.take(x, take)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.lanes.take(grad, ctx.give), None, None, None


class Deal(torch.autograd.Function):
    """Give a slot's features out: to itself, to kinds whose term needs them, and to cells.

    Cells get copies: each layer that reads a slice would copy it again. No gradient comes back from networks whose seed
    is in TRAINING. All copies and sums of a slot are one node: autograd's own slices fill and add whole tensors.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slot: ArrangedSlot) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.slot, lanes = slot, slot.lanes
        kinds = [lanes.cut(x, kind.start, kind.size) for kind in _kinds_that_read(slot)]
        cells = slot.slot_to_cells([x])
        ctx.mark_non_differentiable(*(x for x, cell in zip(cells, slot.cells, strict=True) if not cell.has_live))
        return (x.view_as(x), *kinds, *cells)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *grads: Tensor | None) -> tuple[Tensor, None]:
        slot, lanes = ctx.slot, ctx.slot.lanes
        kinds = _kinds_that_read(slot)
        out = grad.clone()
        for kind, found in zip(kinds, grads, strict=False):
            if found is not None:
                lanes.cut(out, kind.start, kind.size).add_(found)
        live = [(cell, found) for cell, found in zip(slot.cells, grads[len(kinds) :], strict=True) if cell.has_live]
        if live:
            known = [torch.zeros_like(lanes.cut(out, 0, cell.size)) if found is None else found for cell, found in live]
            slot.cells_to_slot.add_to(out, known)
        return out, None


def _kinds_that_read(slot: ArrangedSlot) -> list[Kind]:
    """Kinds of acting seeds whose terms depend on the features themselves, not only on their delta."""
    return [kind for kind in slot.kinds if kind.operator is not Operator.ADD and not kind.in_training]


class Collect(torch.autograd.Function):
    """Regroup the deltas that cells propose by kind."""

    @staticmethod
    def forward(ctx: Any, slot: ArrangedSlot, *deltas: Tensor) -> tuple[Tensor, ...]:
        ctx.slot = slot
        return slot.cells_to_kinds(deltas)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.slot.kinds_to_cells(grads))


class AddTerms(torch.autograd.Function):
    """Put the terms of a slot's seeds, by kind, into the features.

    Acting seeds, which come first, add ``alpha * term`` (`blend`, in one kernel). Those in TRAINING,
    which come next, change no value, bit for bit, and get the gradient as if their term had been added
    (`straight_through`). Host features keep their gradient at weight 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slot: ArrangedSlot, *terms: Tensor) -> Tensor:
        ctx.slot, lanes = slot, slot.lanes
        if not len(slot.alpha):
            return x.view_as(x)
        out = torch.empty_like(x)
        for kind, term in zip(slot.kinds, terms, strict=True):
            if not kind.in_training:
                x_part, alpha, out_part = (lanes.cut(tensor, kind.start, kind.size) for tensor in (x, slot.alpha, out))
                torch.addcmul(x_part, alpha, term, out=out_part)
        rest = len(slot.alpha), x.shape[lanes.axis] - len(slot.alpha)
        out.narrow(lanes.axis, *rest).copy_(x.narrow(lanes.axis, *rest))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slot, lanes, terms = ctx.slot, ctx.slot.lanes, []
        for kind in slot.kinds:
            part = lanes.cut(grad, kind.start, kind.size)
            terms.append(part if kind.in_training else part * lanes.cut(slot.alpha, kind.start, kind.size))
        return (grad, None, *terms)


def slot_function(slot: ArrangedSlot | None) -> Callable[[Tensor], Tensor]:
    """What happens to wide features at a slot: every seed proposes a delta, each operator makes a term of it.

    A seed in TRAINING reads detached features: the host's gradient is exactly what it would be without the seed.
    """
    if slot is None:
        return lambda x: x

    def run(x: Tensor) -> Tensor:
        lanes = slot.lanes
        opened = lanes.open(x)
        if slot.order is None or slot.inverse is None:
            return lanes.close(_grow(slot, opened))
        sorted_x = TakeNetworks.apply(opened, lanes, slot.order, slot.inverse)  # type: ignore[no-untyped-call]
        grown = TakeNetworks.apply(_grow(slot, sorted_x), lanes, slot.inverse, slot.order)  # type: ignore[no-untyped-call]
        return lanes.close(grown)

    return run


def _grow(slot: ArrangedSlot, opened: Tensor) -> Tensor:
    """Features behind the slot from those before it, both in the slot's order."""
    lanes = slot.lanes
    if len(slot.cells) == len(slot.kinds) == 1 and slot.kinds[0].size * lanes.width == opened.shape[lanes.axis]:
        return _grow_alike(slot, opened)
    x, *dealt = Deal.apply(opened, slot)  # type: ignore[no-untyped-call]
    readers = _kinds_that_read(slot)
    features = dict(zip(readers, dealt, strict=False))
    inputs = dealt[len(readers) :]
    deltas = [lanes.open(c.call(lanes.close(i))) for c, i in zip(slot.cells, inputs, strict=True)]
    terms = deltas if len(deltas) == len(slot.kinds) == 1 else Collect.apply(slot, *deltas)  # type: ignore[no-untyped-call]
    for kind in slot.kinds:
        if kind.in_training:
            features[kind] = lanes.cut(opened.detach(), kind.start, kind.size)
    gates = _gates(slot, features)
    terms = [
        term if kind.operator is Operator.ADD else _make_term(slot, kind, features[kind], term, gates)
        for kind, term in zip(slot.kinds, terms, strict=True)
    ]
    out: Tensor = AddTerms.apply(x, slot, *terms)  # type: ignore[no-untyped-call]
    return out


def _grow_alike(slot: ArrangedSlot, x: Tensor) -> Tensor:
    """`_grow` for the case that all networks have the same kind of seed, so no features need to be dealt out."""
    (kind,), (cell,), lanes = slot.kinds, slot.cells, slot.lanes
    features = lanes.close(x.detach() if kind.in_training else x)
    gate = slot.gates.call(features) if slot.gates is not None else None
    term = lanes.open(TERMS[kind.operator](features, cell.call(features), gate))
    return straight_through(x, term) if kind.in_training else torch.addcmul(x, slot.alpha, term)


def _make_term(slot: ArrangedSlot, kind: Kind, features: Tensor, delta: Tensor, gates: Mapping[Kind, Tensor]) -> Tensor:
    lanes = slot.lanes
    return lanes.open(TERMS[kind.operator](lanes.close(features), lanes.close(delta), gates.get(kind)))


def _gates(slot: ArrangedSlot, features: Mapping[Kind, Tensor]) -> dict[Kind, Tensor]:
    """Gate values of the kinds under GATE, all of which run together."""
    if slot.gates is None:
        return {}
    kinds, lanes = [kind for kind in slot.kinds if kind.operator is Operator.GATE], slot.lanes
    parts = [features[kind] for kind in kinds]
    joined = parts[0] if len(parts) == 1 else lanes.join(parts)
    values = lanes.open(slot.gates.call(lanes.close(joined)))
    split = values.split([kind.size * lanes.width for kind in kinds], dim=lanes.axis)
    return {kind: lanes.close(part) for kind, part in zip(kinds, split, strict=True)}
