"""The wide forward: hosts side by side, and at each slot the seeds that live there.

Seeds run only over the networks that hold them, with their own weights: cost follows seeds that exist, not possible
ones. All of it works on the channels, as the last axis, in which every group of seeds is a slice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kasmina_env.blend import TERMS, straight_through
from kasmina_env.config import Operator
from kasmina_env.population.plan import Kind, PlannedSlot


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def _channels_back(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


class TakeNetworks(torch.autograd.Function):
    """Networks of features ``[places, N, C]`` in another order: `take`, a permutation; `give` undoes it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, take: Tensor, give: Tensor) -> Tensor:
        ctx.give = give
        return x.index_select(1, take)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(1, ctx.give), None, None


def _slice(x: Tensor, start: int, size: int, channels: int) -> Tensor:
    """Features of some networks."""
    return x.narrow(-1, start * channels, size * channels)


class Deal(torch.autograd.Function):
    """Give a slot's features ``[..., N*C]`` out: to itself, to kinds whose term needs them, and to cells.

    Cells get copies: each layer that reads a slice would copy it again. No gradient comes back from networks whose seed
    is in TRAINING. All copies and sums of a slot are one node: autograd's own slices fill and add whole tensors.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slot: PlannedSlot, channels: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.slot, ctx.channels = slot, channels
        kinds = [_slice(x, kind.start, kind.size, channels) for kind in _kinds_that_read(slot)]
        parts: list[list[Tensor]] = [[] for _ in slot.cells]  # pieces of a cell stand in it as in the slot
        for piece in slot.pieces:
            parts[piece.cell].append(_slice(x, piece.in_slot, piece.size, channels))
        cells = [torch.cat(part, dim=-1) for part in parts]
        ctx.mark_non_differentiable(*(x for x, cell in zip(cells, slot.cells, strict=True) if not cell.has_live))
        return (x.view_as(x), *kinds, *cells)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *grads: Tensor | None) -> tuple[Tensor, None, None]:
        slot, channels = ctx.slot, ctx.channels
        kinds = _kinds_that_read(slot)
        out = grad.clone()
        for kind, found in zip(kinds, grads, strict=False):
            if found is not None:
                _slice(out, kind.start, kind.size, channels).add_(found)
        cells = grads[len(kinds) :]
        for piece in slot.pieces:
            found = cells[piece.cell]
            if found is not None and not slot.kinds[piece.kind].in_training:
                part = _slice(found, piece.in_cell, piece.size, channels)
                _slice(out, piece.in_slot, piece.size, channels).add_(part)
        return out, None, None


def _kinds_that_read(slot: PlannedSlot) -> list[Kind]:
    """Kinds of acting seeds whose terms depend on the features themselves, not only on their change."""
    return [kind for kind in slot.kinds if kind.operator is not Operator.ADD and not kind.in_training]


class Collect(torch.autograd.Function):
    """Changes that cells propose, each ``[..., R*C]``, to those of kinds."""

    @staticmethod
    def forward(ctx: Any, slot: PlannedSlot, channels: int, *changes: Tensor) -> tuple[Tensor, ...]:
        ctx.slot, ctx.channels = slot, channels
        parts: list[list[Tensor]] = [[] for _ in slot.kinds]
        for piece in slot.pieces:
            parts[piece.kind].append(_slice(changes[piece.cell], piece.in_cell, piece.size, channels))
        return tuple(torch.cat(part, dim=-1) for part in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        slot, channels = ctx.slot, ctx.channels
        parts: list[list[Tensor]] = [[] for _ in slot.cells]
        for piece in slot.pieces:
            parts[piece.cell].append(_slice(grads[piece.kind], piece.in_kind, piece.size, channels))
        return (None, None, *(torch.cat(part, dim=-1) for part in parts))


class AddTerms(torch.autograd.Function):
    """Put the terms of a slot's seeds, by kind, into the features ``[..., N*C]``.

    Acting seeds, which come first, add ``alpha * term`` (`kasmina_env.blend.blend`, in one kernel). Those in TRAINING,
    which come next, change no value, bit for bit, and get the gradient as if their term had been added
    (`kasmina_env.blend.straight_through`). Host features keep their gradient at weight 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slot: PlannedSlot, channels: int, *terms: Tensor) -> Tensor:
        ctx.slot, ctx.channels = slot, channels
        if not len(slot.alpha):
            return x.view_as(x)
        out = torch.empty_like(x)
        for kind, term in zip(slot.kinds, terms, strict=True):
            if not kind.in_training:
                place = kind.start, kind.size, channels
                torch.addcmul(_slice(x, *place), _slice(slot.alpha, *place), term, out=_slice(out, *place))
        rest = x.shape[-1] - len(slot.alpha)
        out.narrow(-1, len(slot.alpha), rest).copy_(x.narrow(-1, len(slot.alpha), rest))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slot, terms = ctx.slot, []
        for kind in slot.kinds:
            place = kind.start, kind.size, ctx.channels
            part = _slice(grad, *place)
            terms.append(part if kind.in_training else part * _slice(slot.alpha, *place))
        return (grad, None, None, *terms)


def _take_networks(x: Tensor, take: Tensor, give: Tensor) -> Tensor:
    places = x.reshape(-1, len(take), x.shape[-1] // len(take))
    moved: Tensor = TakeNetworks.apply(places, take, give)  # type: ignore[no-untyped-call]
    return moved.view(x.shape)


def slot_function(slot: PlannedSlot | None, num_networks: int) -> Callable[[Tensor], Tensor]:
    """What happens to wide features at a slot: every seed proposes a change, each operator makes a term of it.

    A seed in TRAINING reads detached features: the host's gradient is exactly what it would be without the seed.
    """
    if slot is None:
        return lambda x: x

    def run(x: Tensor) -> Tensor:
        last = _channels_last(x)
        channels = last.shape[-1] // num_networks
        if slot.order is None or slot.inverse is None:
            return _channels_back(_grow(slot, last, channels))
        grown = _grow(slot, _take_networks(last, slot.order, slot.inverse), channels)
        return _channels_back(_take_networks(grown, slot.inverse, slot.order))

    return run


def _grow(slot: PlannedSlot, last: Tensor, channels: int) -> Tensor:
    """Features ``[..., N*C]`` in the slot's order to what they are behind the slot."""
    if len(slot.pieces) == 1 and slot.kinds[0].size * channels == last.shape[-1]:
        return _grow_alike(slot, last)
    x, *dealt = Deal.apply(last, slot, channels)  # type: ignore[no-untyped-call]
    readers = _kinds_that_read(slot)
    features = dict(zip(readers, dealt, strict=False))
    inputs = dealt[len(readers) :]
    changes = [_channels_last(c.call(_channels_back(i))) for c, i in zip(slot.cells, inputs, strict=True)]
    terms = changes if len(changes) == len(slot.kinds) == 1 else Collect.apply(slot, channels, *changes)  # type: ignore[no-untyped-call]
    for kind in slot.kinds:
        if kind.in_training:
            features[kind] = _slice(last.detach(), kind.start, kind.size, channels)
    gates = _gates(slot, features, channels)
    terms = [
        term if kind.operator is Operator.ADD else _make_term(kind, features[kind], term, gates.get(kind))
        for kind, term in zip(slot.kinds, terms, strict=True)
    ]
    out: Tensor = AddTerms.apply(x, slot, channels, *terms)  # type: ignore[no-untyped-call]
    return out


def _grow_alike(slot: PlannedSlot, x: Tensor) -> Tensor:
    """The same where every network, often the only one, has the same kind of seed: there is nothing to deal."""
    (kind,), (cell,) = slot.kinds, slot.cells
    features = _channels_back(x.detach() if kind.in_training else x)
    gate = slot.gates.call(features) if slot.gates is not None else None
    term = _channels_last(TERMS[kind.operator](features, cell.call(features), gate))
    return straight_through(x, term) if kind.in_training else torch.addcmul(x, slot.alpha, term)


def _make_term(kind: Kind, features: Tensor, change: Tensor, gate: Tensor | None) -> Tensor:
    term = TERMS[kind.operator](_channels_back(features), _channels_back(change), gate)
    return _channels_last(term)


def _gates(slot: PlannedSlot, features: dict[Kind, Tensor], channels: int) -> dict[Kind, Tensor]:
    """Gate values of the kinds under GATE, all of which run together."""
    if slot.gates is None:
        return {}
    kinds = [kind for kind in slot.kinds if kind.operator is Operator.GATE]
    parts = [features[kind] for kind in kinds]
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    values = slot.gates.call(_channels_back(joined))
    split = values.split([kind.size * channels for kind in kinds], dim=1 if values.ndim == 4 else -1)
    return dict(zip(kinds, split, strict=True))
