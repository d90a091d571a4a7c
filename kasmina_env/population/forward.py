"""The wide forward: hosts side by side, and at each slot the seeds that live there.

Seeds run only over the networks that hold them, with their own weights: cost follows seeds that exist, not possible
ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kasmina_env.blend import TERMS, blend
from kasmina_env.config import Operator
from kasmina_env.layers import merge_networks, split_networks
from kasmina_env.population.plan import Piece, PlannedSlot

NETWORK_AXIS = -2  # of split_networks: [..., N, C]


class TakeRows(torch.autograd.Function):
    """Features as they are, and those of several groups of networks; a network may be in more than one group.

    The gradients of all groups are added to that of the features themselves in one buffer (a chain of `index_select`
    would fill one of full size for each). Detached networks get nothing from the groups; they are overwritten, not
    multiplied by a mask, so that a gradient that is not finite stays where it is.
    """

    @staticmethod
    def forward(ctx: Any, split: Tensor, detached: Tensor | None, *groups: Tensor) -> tuple[Tensor, ...]:
        ctx.groups, ctx.detached = groups, detached
        return split.view_as(split), *(split.index_select(NETWORK_AXIS, rows) for rows in groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, own: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        total = own.clone()
        for rows, grad in zip(ctx.groups, grads, strict=True):
            total.index_add_(NETWORK_AXIS, rows, grad)
        if ctx.detached is not None:
            total.index_copy_(NETWORK_AXIS, ctx.detached, own.index_select(NETWORK_AXIS, ctx.detached))
        return (total, None, *(None for _ in ctx.groups))


class SplitRows(torch.autograd.Function):
    """Features of groups that together are all networks, each once."""

    @staticmethod
    def forward(ctx: Any, split: Tensor, *groups: Tensor) -> tuple[Tensor, ...]:
        ctx.groups, ctx.shape = groups, split.shape
        return tuple(split.index_select(NETWORK_AXIS, rows) for rows in groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        total = grads[0].new_empty(ctx.shape)
        for rows, grad in zip(ctx.groups, grads, strict=True):
            total.index_copy_(NETWORK_AXIS, rows, grad)
        return (total, *(None for _ in ctx.groups))


class AddTerms(torch.autograd.Function):
    """Put the terms of a slot's pieces into the features.

    A live seed adds ``alpha * term``; one in TRAINING changes no value, bit for bit, and gets the gradient as if its
    term had been added (see `kasmina_env.blend.straight_through`). Host features keep their gradient at weight 1.
    """

    @staticmethod
    def forward(ctx: Any, split: Tensor, pieces: Sequence[Piece], *terms: Tensor) -> Tensor:
        ctx.pieces = pieces
        live = [(p, t) for p, t in zip(pieces, terms, strict=True) if len(p.live_rows)]
        if not live:
            return split.view_as(split)
        out = split.clone()
        for piece, term in live:
            if piece.live is not None:
                term = term.index_select(NETWORK_AXIS, piece.live)
            rows = split.index_select(NETWORK_AXIS, piece.live_rows)
            out.index_copy_(NETWORK_AXIS, piece.live_rows, blend(rows, term, piece.alpha))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        terms = [grad.index_select(NETWORK_AXIS, piece.rows) * piece.scale for piece in ctx.pieces]
        return (grad, None, *terms)


def slot_function(slot: PlannedSlot | None, num_networks: int) -> Callable[[Tensor], Tensor]:
    """What happens to wide features at a slot: every seed proposes a change, each operator makes a term of it.

    A seed in TRAINING reads detached features: the host's gradient is exactly what it would be without the seed.
    """
    if slot is None:
        return lambda x: x
    # ADD needs only the change itself; the other operators look at the features as well
    looking = [piece for piece in slot.pieces if piece.operator is not Operator.ADD]
    groups = [cell.rows for cell in slot.cells] + [piece.rows for piece in looking]

    def run(x: Tensor) -> Tensor:
        split = split_networks(x, num_networks)
        split, *inputs = TakeRows.apply(split, slot.training_rows, *groups)  # type: ignore[no-untyped-call]
        changes = [
            split_networks(cell.call(merge_networks(features)), len(cell.rows))
            for cell, features in zip(slot.cells, inputs, strict=False)
        ]
        change = changes[0] if len(changes) == 1 else torch.cat(changes, dim=NETWORK_AXIS)
        looked_at = iter(inputs[len(slot.cells) :])
        terms = []
        for piece, part in zip(slot.pieces, _parts(change, slot.pieces), strict=True):
            if piece.operator is Operator.ADD:
                terms.append(part)
                continue
            features = merge_networks(next(looked_at))
            gate = slot.gates.call(features) if slot.gates and piece.operator is Operator.GATE else None
            term = TERMS[piece.operator](features, merge_networks(part), gate)
            terms.append(split_networks(term, len(piece.rows)))
        out: Tensor = AddTerms.apply(split, slot.pieces, *terms)  # type: ignore[no-untyped-call]
        return merge_networks(out)

    return run


def _parts(change: Tensor, pieces: Sequence[Piece]) -> Sequence[Tensor]:
    """The changes of each piece's seeds."""
    positions = [piece.positions for piece in pieces]
    if positions == [None]:
        return [change]
    # every seed is in exactly one part
    parts: Sequence[Tensor] = SplitRows.apply(change, *positions)  # type: ignore[no-untyped-call]
    return parts
