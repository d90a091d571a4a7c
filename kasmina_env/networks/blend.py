"""How a seed's change to its host's features enters the network: ADD, MULTIPLY, GATE, and straight-through.

A seed is residual: given features x it proposes ``s = x + delta``. Every operator turns the proposal into a *term*, and
the slot's output is ``h + alpha * term``. With one form for all three, identity at alpha = 0 is exact, the host
keeps its own gradient path at weight 1 (the lerp form ``(1-a)*h + a*s`` starves every layer before a seed at
alpha = 1), and there is no optional reference input to forget.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from kasmina_env.networks.layers import Layers, Topology
from kasmina_env.settings.config import Operator


def add_term(x: Tensor, delta: Tensor, gate: Tensor | None = None) -> Tensor:
    """The seed's change as it is: the output is ``h + alpha * (s - x)``."""
    return delta


def multiply_term(x: Tensor, delta: Tensor, gate: Tensor | None = None) -> Tensor:
    """Modulate: the output ``h * (1 + alpha * tanh(s - x))`` stays within ``h * [1 - alpha, 1 + alpha]``.

    ``tanh(d) = 2 * sigmoid(2 * d) - 1``: PyTorch's tanh takes ten times as long as its sigmoid on the CPU.
    """
    return x * (2 * torch.sigmoid(2 * delta) - 1)


def gate_term(x: Tensor, delta: Tensor, gate: Tensor | None = None) -> Tensor:
    """Let a learned per-sample gate in (0, 1) decide: the output is ``h + alpha * g(x) * (s - x)``.

    Args:
        x: Features, ``[B, C, ...]``.
        delta: The seed's change, the shape of x.
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
    """Put a term into the host's features: ``h + alpha * term``, in the dtype of h.

    Args:
        h: Host features.
        term: From one of `TERMS`, the shape of h.
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
    """What a seed in TRAINING does: nothing to the value, everything to its own gradient."""
    out: Tensor = StraightThrough.apply(h, term)  # type: ignore[no-untyped-call]
    return out


class Gate(Module):
    """Per-sample gate: mean-pool, Linear(C, max(8, C // 4)), ReLU, Linear(1), sigmoid.

    Images are pooled over space; tokens are not pooled over time, which keeps a causal network causal.
    """

    # A fresh gate passes the ramp: behind a ReLU and with weights above 0, g >= sigmoid(3) = 0.95 for every input.
    # Weights of 0 would keep the hidden layer from learning until the third step if the seed is born as the identity.
    INITIAL = {"score.weight": 0.01, "score.bias": 3.0}

    def __init__(self, nn: Layers, topology: Topology, channels: int) -> None:
        super().__init__()
        self.is_image = topology == "image"
        hidden = max(8, channels // 4)
        self.hidden = nn.Linear(channels, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features to gate values that fit them: one for each sample and network, or for each of its tokens."""
        pooled = x.mean(dim=(2, 3)) if self.is_image else x
        gate = torch.sigmoid(self.score(torch.relu(self.hidden(pooled))))  # [B, N] or [..., 1]
        if not self.is_image:
            return gate
        channels = pooled.shape[-1] // gate.shape[-1]
        return gate.unsqueeze(-1).expand(*gate.shape, channels).flatten(-2)[..., None, None]


class Seed(Module):
    """One blueprint under one operator: features to the term that `blend` adds at alpha.

    Args:
        nn: Namespace of layers, wide or ordinary.
        delta: The blueprint's module, features to their proposed change.
        operator: How the change enters the network.
        topology: Of the features.
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
