"""Optimisers for stacks: each row has its own step count, learning rate, and gradient clipping.

`torch.optim` keeps one step counter per tensor: a row reset in mid-flight would take a wrong first Adam step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        host_factor: Factor of the learning rate of hosts; small for a mature host.
        momentum: Momentum of SGD; the first beta of Adam.
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
    host_factor: float = 1.0

    def __post_init__(self) -> None:
        rules = {
            "name": (self.name in ("adam", "sgd"), "be 'adam' or 'sgd'"),
            "learning_rate": (self.learning_rate > 0, "be positive"),
            "momentum": (0 <= self.momentum < 1, "lie in [0, 1)"),
            "beta2": (0 <= self.beta2 < 1, "lie in [0, 1)"),
            "eps": (self.eps > 0, "be positive"),
            "host_factor": (self.host_factor >= 0, "be at least 0"),
            "clip_norm": (self.clip_norm >= 0, "be 0 (off) or positive"),
        }
        for field, (is_valid, rule) in rules.items():
            if not is_valid:
                raise ValueError(f"`{field}` must {rule}, got {getattr(self, field)!r}. Change it.")

    @property
    def num_moments(self) -> int:
        return 2 if self.name == "adam" else 1


def _bias_correction(beta: float, steps: Tensor) -> Tensor:
    """``1 - beta**steps``, without the digits that this difference loses in float32 (three of seven at 0.999)."""
    return -torch.expm1(steps * math.log(beta)) if beta > 0 else torch.ones_like(steps)


class Updates:
    """The next few updates of several stacks, whose optimiser states lie in flat tensors until `finish`.

    A launch costs more than its arithmetic here. So operations that are equal for all rows are one call.

    Args:
        optimizer: Settings.
        stacks: Stacks to update, each with its own R networks and P parameters.
        learning_rates: Learning rates of each stack ``[R, 1]``.
        num_updates: Number of updates to come.

    Attributes:
        gradient: Flat gradient of all stacks; fill it before each update.
        factors: Arguments of `turn_` for each update.
    """

    def __init__(
        self, optimizer: Optimizer, stacks: Sequence[Stack], learning_rates: Sequence[Tensor], num_updates: int
    ) -> None:
        self.optimizer, self.stacks, self.num_updates = optimizer, stacks, num_updates
        self.moments = [torch.cat([s.moments[i].flatten() for s in stacks]) for i in range(optimizer.num_moments)]
        rates, steps = torch.cat(list(learning_rates)), torch.cat([stack.steps for stack in stacks])
        number = torch.arange(1, num_updates + 1, device=steps.device, dtype=steps.dtype)
        steps = steps + number.view(-1, 1, 1)  # [num_updates, rows of all stacks, 1]
        root_scales = steps
        if optimizer.name == "adam":
            rates = rates / _bias_correction(optimizer.momentum, steps)
            root_scales = _bias_correction(optimizer.beta2, steps).rsqrt()
        self.factors = list(zip(rates.expand_as(steps), root_scales, strict=True))
        self.gradient, self._root = torch.zeros_like(self.moments[0]), torch.empty_like(self.moments[0])
        self._of_gradient, self._of_root = self.by_stack(self.gradient), self.by_stack(self._root)

    def by_stack(self, flat: Tensor) -> list[Tensor]:
        """Views ``[R, P]`` of a flat tensor that holds a number for every parameter of all stacks."""
        shapes = [stack.parameters.shape for stack in self.stacks]
        parts = flat.split([rows * size for rows, size in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _scale_rows_(self, blocks: Sequence[Tensor], factors: Tensor) -> None:
        for block, part in zip(blocks, factors.split([len(stack) for stack in self.stacks]), strict=True):
            block.mul_(part)

    def clip_(self) -> None:
        """Scale rows of the gradient down to `clip_norm`, as `torch.nn.utils.clip_grad_norm_` does."""
        if self.optimizer.clip_norm == 0:
            return
        norms = [torch.linalg.vector_norm(block, dim=1, keepdim=True) for block in self._of_gradient]
        factors = (self.optimizer.clip_norm / (torch.cat(norms) + 1e-6)).clamp_(max=1.0)
        self._scale_rows_(self._of_gradient, factors)

    def turn_(self, rates: Tensor, root_scales: Tensor) -> None:
        """Replace the clipped gradient with the update to subtract from the parameters.

        Args:
            rates: Learning rates of the rows of all stacks ``[rows, 1]``.
            root_scales: Factors of the roots of Adam's second moments ``[rows, 1]``.
        """
        optimizer, mean, gradient = self.optimizer, self.moments[0], self.gradient
        if optimizer.name == "sgd":
            mean.mul_(optimizer.momentum).add_(gradient)
            gradient.copy_(mean)
            self._scale_rows_(self._of_gradient, rates)
            return
        square = self.moments[1]
        mean.lerp_(gradient, 1 - optimizer.momentum)
        square.mul_(optimizer.beta2).addcmul_(gradient, gradient, value=1 - optimizer.beta2)
        gradient.copy_(mean)
        self._scale_rows_(self._of_gradient, rates)
        torch.sqrt(square, out=self._root)
        self._scale_rows_(self._of_root, root_scales)
        gradient.div_(self._root.add_(optimizer.eps))

    def finish(self) -> None:
        """Write the optimiser states back into the stacks."""
        for i, moment in enumerate(self.moments):
            for stack, block in zip(self.stacks, self.by_stack(moment), strict=True):
                stack.moments[i] = block
        for stack in self.stacks:
            stack.steps.add_(self.num_updates)
