"""Blend operators: how a seed's change to its host's features enters the network.

A seed is residual: given features x it proposes ``s = x + delta``. Each operator turns the proposal into a *term*, and
the slot's output is ``h + alpha * term``. So alpha = 0 is exactly the identity, and the host keeps its own gradient
path at weight 1; the form ``(1-alpha)*h + alpha*s`` would starve every layer before a seed at alpha = 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from kasmina_env.networks.layers import Layers, Topology
from kasmina_env.settings.config import Operator


def add_term(x: Tensor, delta: Tensor, gate: Tensor | None = None) -> Tensor:
    """Add: the output is ``h + alpha * (s - x)``."""
    return delta


def multiply_term(x: Tensor, delta: Tensor, gate: Tensor | None = None) -> Tensor:
    """Multiply: the output is ``h * (1 + alpha * tanh(s - x))``, within ``h * [1 - alpha, 1 + alpha]``.

    Written as ``2 * sigmoid(2 * d) - 1``, because PyTorch's tanh takes ten times as long as its sigmoid on the CPU.
    """
    return x * (2 * torch.sigmoid(2 * delta) - 1)


def gate_term(x: Tensor, delta: Tensor, gate: Tensor | None = None) -> Tensor:
    """Gate: the output is ``h + alpha * g(x) * (s - x)``, with a learned gate in (0, 1) for each sample.

    Args:
        x: Features, ``[B, C, ...]``.
        delta: Change that the seed proposes, of the shape of x.
        gate: Gate values, broadcastable to x.
    """
    assert gate is not None, "`gate` must be given to the GATE operator, got None."
    return gate * delta


TERMS: dict[Operator, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    Operator.ADD: add_term,
    Operator.MULTIPLY: multiply_term,
    Operator.GATE: gate_term,
}


def blend(h: Tensor, term: Tensor, alpha: Tensor | float) -> Tensor:
    """Output of a slot, ``h + alpha * term``, in the dtype of h.

    Args:
        h: Features of the host.
        term: Result of one of `TERMS`, of the shape of h.
        alpha: Amplitude in [0, 1], broadcastable to h.
    """
    if term.dtype != h.dtype:
        term = term.to(h.dtype)
    if isinstance(alpha, Tensor) and alpha.dtype != h.dtype:
        alpha = alpha.to(h.dtype)
    return h + alpha * term


class StraightThrough(torch.autograd.Function):
    """Value of h, bit for bit; gradient to h and to the term as if the output were ``h + term`` (Bengio et al. 2013).

    ``h + (term - term.detach())`` has the same gradients, but turns -0.0 into 0.0 and spreads a non-finite term.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, h: Tensor, term: Tensor) -> Tensor:
        return h.view_as(h)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], grads[0]


def straight_through(h: Tensor, term: Tensor) -> Tensor:
    """Output of a slot whose seed is in TRAINING: the value is h, and the seed gets its gradient."""
    out: Tensor = StraightThrough.apply(h, term)  # type: ignore[no-untyped-call]
    return out


class Gate(Module):
    """Per-sample gate: mean-pool, Linear(C, max(8, C // 4)), ReLU, Linear(1), sigmoid.

    Images are pooled over space; tokens are not pooled over time, which keeps a causal network causal.
    """

    # A fresh gate is open: behind a ReLU and with weights above 0, g >= sigmoid(3) = 0.95 for every input. With weights
    # of 0 the hidden layer would not learn until the third step, if the seed is born as the identity.
    INITIAL = {"score.weight": 0.01, "score.bias": 3.0}

    def __init__(self, nn: Layers, topology: Topology, channels: int) -> None:
        super().__init__()
        self.is_image = topology == "image"
        hidden = max(8, channels // 4)
        self.hidden = nn.Linear(channels, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gate values that broadcast to the features: one for each sample and network, or for each of its tokens."""
        pooled = x.mean(dim=(2, 3)) if self.is_image else x
        gate = torch.sigmoid(self.score(torch.relu(self.hidden(pooled))))  # [B, N] or [..., 1]
        if not self.is_image:
            return gate
        channels = pooled.shape[-1] // gate.shape[-1]
        return gate.unsqueeze(-1).expand(*gate.shape, channels).flatten(-2)[..., None, None]


class Seed(Module):
    """A blueprint under an operator: maps features to the term that `blend` adds at alpha.

    Args:
        nn: Namespace of layers, wide or ordinary.
        delta: Module of the blueprint, which maps features to their proposed change.
        operator: Blend operator.
        topology: Kind of the features.
        channels: C of one network.
    """

    def __init__(self, nn: Layers, delta: Module, operator: Operator, topology: Topology, channels: int) -> None:
        super().__init__()
        self.delta = delta
        self.gate = Gate(nn, topology, channels) if operator is Operator.GATE else None
        self.term = TERMS[operator]

    def forward(self, x: Tensor) -> Tensor:
        gate = None if self.gate is None else self.gate(x)
        return self.term(x, self.delta(x), gate)
