"""The wide forward: hosts side by side, and at each slot the seeds that live there.

A cell (seeds of one kind in one slot) runs only over the networks that hold it, with their own weights: cost follows
live seeds, not possible ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kasmina_env.blend import blend
from kasmina_env.layers import merge_networks, split_networks
from kasmina_env.population.plan import PlannedCell

NETWORK_AXIS = -2  # of split_networks: [..., N, C]


class TakeRows(torch.autograd.Function):
    """Features of several groups of networks; the groups must not overlap.

    One buffer collects the gradients of all groups. (A chain of `index_select` would fill one of full size for each.)
    """

    @staticmethod
    def forward(ctx: Any, split: Tensor, *groups: Tensor) -> tuple[Tensor, ...]:
        ctx.groups, ctx.shape = groups, split.shape
        return tuple(split.index_select(NETWORK_AXIS, rows) for rows in groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        total = grads[0].new_zeros(ctx.shape)
        for rows, grad in zip(ctx.groups, grads, strict=True):
            total.index_copy_(NETWORK_AXIS, rows, grad)
        return (total, *(None for _ in ctx.groups))


class AddTerms(torch.autograd.Function):
    """Put the terms of all cells of a slot into the features.

    A live cell adds ``alpha * term``; a cell in TRAINING changes no value, bit for bit, and gets the gradient as if its
    term had been added (see `kasmina_env.blend.straight_through`). Host features keep their gradient at weight 1.
    """

    @staticmethod
    def forward(ctx: Any, split: Tensor, cells: Sequence[PlannedCell], *terms: Tensor) -> Tensor:
        ctx.cells = cells
        live = [(c, t) for c, t in zip(cells, terms, strict=True) if c.alpha is not None]
        if not live:
            return split.view_as(split)
        out = split.clone()
        for cell, term in live:
            assert cell.alpha is not None
            rows = split.index_select(NETWORK_AXIS, cell.rows)
            out.index_copy_(NETWORK_AXIS, cell.rows, blend(rows, term, cell.alpha))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        terms = []
        for cell in ctx.cells:
            rows = grad.index_select(NETWORK_AXIS, cell.rows)
            terms.append(rows if cell.alpha is None else rows * cell.alpha)
        return (grad, None, *terms)


def slot_function(cells: Sequence[PlannedCell], num_networks: int) -> Callable[[Tensor], Tensor]:
    """What happens to wide features at a slot: every cell proposes a term, all terms are blended in.

    A seed in TRAINING reads detached features: the host's gradient is exactly what it would be without the seed.
    """
    if not cells:
        return lambda x: x
    live = [cell for cell in cells if cell.alpha is not None]
    training = [cell for cell in cells if cell.alpha is None]

    def run(x: Tensor) -> Tensor:
        split = split_networks(x, num_networks)
        terms: list[Tensor] = []
        for group, source in ((live, split), (training, split.detach())):
            if group:
                inputs = TakeRows.apply(source, *(cell.rows for cell in group))  # type: ignore[no-untyped-call]
                terms += [c.term(merge_networks(i)) for c, i in zip(group, inputs, strict=True)]
        out: Tensor = AddTerms.apply(split, [*live, *training], *terms)  # type: ignore[no-untyped-call]
        return merge_networks(out)

    return run
