"""Optimisers for stacks: each row has its own step count, learning rate, and gradient clipping.

`torch.optim` keeps one step counter per tensor: a row reset in mid-flight would take a wrong first Adam step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kasmina_env.population.stack import Stack


@dataclass(frozen=True)
class Optimizer:
    """Settings of the optimiser every network of a population is trained with.

    Attributes:
        name: "adam" (Kingma & Ba 2015) or "sgd" (with heavy-ball momentum, as `torch.optim.SGD`).
        learning_rate: Step size.
        momentum: Of SGD; the first beta of Adam.
        beta2: Second beta of Adam.
        eps: Added to Adam's denominator.
        clip_norm: Gradients of a host, of each seed, and of each seed's gate are scaled down to this Euclidean norm;
            0 is no clipping.
    """

    name: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 0.01
    momentum: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        rules = {
            "name": (self.name in ("adam", "sgd"), "be 'adam' or 'sgd'"),
            "learning_rate": (self.learning_rate > 0, "be positive"),
            "momentum": (0 <= self.momentum < 1, "lie in [0, 1)"),
            "beta2": (0 <= self.beta2 < 1, "lie in [0, 1)"),
            "eps": (self.eps > 0, "be positive"),
            "clip_norm": (self.clip_norm >= 0, "be 0 (off) or positive"),
        }
        for field, (is_valid, rule) in rules.items():
            if not is_valid:
                raise ValueError(f"`{field}` must {rule}, got {getattr(self, field)!r}. Change it.")

    @property
    def num_moments(self) -> int:
        return 2 if self.name == "adam" else 1


def clip_rows(gradient: Tensor, max_norm: float) -> Tensor:
    """Scale each row of ``[R, P]`` down to at most the given norm, as `torch.nn.utils.clip_grad_norm_` does to one."""
    if max_norm == 0:
        return gradient
    norm: Tensor = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    return gradient * (max_norm / (norm + 1e-6)).clamp(max=1.0)


def _bias_correction(beta: float, steps: Tensor) -> Tensor:
    """``1 - beta**steps``, without the digits that this difference loses in float32 (three of seven at 0.999)."""
    return -torch.expm1(steps * math.log(beta)) if beta > 0 else torch.ones_like(steps)


def update_(optimizer: Optimizer, stack: Stack, gradient: Tensor, learning_rate: Tensor | float) -> None:
    """One optimiser step on every row of a stack, in place.

    Args:
        optimizer: Settings.
        stack: R networks.
        gradient: ``[R, P]``, already clipped.
        learning_rate: ``[R, 1]`` or a number.
    """
    stack.steps.add_(1)
    if optimizer.name == "sgd":
        (velocity,) = stack.moments
        velocity.mul_(optimizer.momentum).add_(gradient)
        stack.parameters.sub_(learning_rate * velocity)
        return
    mean, square = stack.moments
    mean.lerp_(gradient, 1 - optimizer.momentum)
    square.mul_(optimizer.beta2).addcmul_(gradient, gradient, value=1 - optimizer.beta2)
    mean_scale = learning_rate / _bias_correction(optimizer.momentum, stack.steps)
    square_scale = _bias_correction(optimizer.beta2, stack.steps).rsqrt()
    denominator = square.sqrt().mul_(square_scale).add_(optimizer.eps)
    stack.parameters.sub_((mean * mean_scale).div_(denominator))
